"""`lrfr verify A B`: do two photographs show one person? And what this verb shares with `identify` and `embed`.

The verbs work in any folder.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lrfr.deploy.find_faces import Face, Found, find_all
from lrfr.deploy.recognizer import FAR, Recognizer
from lrfr.errors import UserError
from lrfr.gate.images import list_photographs
from lrfr.parallel import cores, limit_threads

FAR_HELP = "false accept rate at which is decided, one of the model's card (default: %(default)s)"
WORDS = {True: "same person", False: "different people"}


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("a", type=Path, help="a photograph; of several faces the largest is taken")
    parser.add_argument("b", type=Path, help="another one")
    parser.add_argument("--far", type=float, default=FAR, help=FAR_HELP)
    add_common(parser)


def add_common(parser: argparse.ArgumentParser) -> None:
    text = "a .safetensors or .onnx student (default: the released one)"
    parser.add_argument("--model", type=Path, metavar="PATH", help=text)
    parser.add_argument("--aligned", action="store_true", help="the images are aligned faces already: detect nothing")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout instead of a table")


def run(arguments: argparse.Namespace) -> int:
    """Print the answer; 0 for any answer, also "different people". UserError if a photograph has no face."""
    recognizer, found, _ = prepared(arguments, [arguments.a, arguments.b])
    a, b = (one.faces[0] for one in found)
    answer = recognizer.decide(recognizer.similarity(a.image, b.image), arguments.far, min(a.pixels, b.pixels))
    answer |= terms(recognizer, arguments.far)
    answer |= {name: described(one, one.faces[0]) for name, one in zip("ab", found, strict=True)}
    answer["notes"] = [line for one in found for line in notes(recognizer, one, one.faces[:1], True)]
    at = "full resolution" if answer["resolution"] == "hr" else f"{answer['resolution']} pixels"
    lines = [
        ("decision", WORDS[answer["same_person"]]),
        ("similarity", f"{answer['similarity']:.3f}"),
        ("threshold", f"{answer['threshold']:.3f} at FAR {arguments.far:g}, measured at {at}"),
        ("threshold from", answer["thresholds_from"]),
        ("faces", f"{a.pixels} and {b.pixels} pixels"),
        ("model", answer["model"]),
        *(("note", line) for line in answer["notes"]),
    ]
    return tell(arguments, answer, [f"{name:<16}{text}" for name, text in lines])


def prepared(
    arguments: argparse.Namespace, paths: Sequence[Path] = (), folder: Path | None = None
) -> tuple[Recognizer, list[Found], list[Found]]:
    """The student, what is in the photographs of `paths`, and what is in those of a folder, found in many processes;
    UserError if the student cannot decide at the FAR that is asked for, or one of `paths` has no face."""
    limit_threads(1)  # one face needs no more, and processes can be forked from one thread only
    recognizer = Recognizer.load(arguments.model)
    if "far" in arguments:
        recognizer.threshold(arguments.far, 1, 1)
    listed = list_photographs(folder) if folder else []
    found = find_all(paths, recognizer.size, arguments.aligned, 1)
    if problems := [one.problem for one in found if one.problem]:
        raise UserError(problems[0])
    return recognizer, found, find_all(listed, recognizer.size, arguments.aligned, cores())


def tell(arguments: argparse.Namespace, answer: dict[str, Any], lines: list[str]) -> int:
    """Print one JSON object, or lines. Returns the exit code of every answer."""
    print(json.dumps(answer) if arguments.json else "\n".join(lines))
    return 0


def terms(recognizer: Recognizer, far: float) -> dict[str, Any]:
    """Who decides, and by whose word."""
    source = recognizer.card.get("thresholds_from", "not stated on the card")
    return {"far": far, "thresholds_from": source, "model": recognizer.card["name"]}


def described(found: Found, face: Face) -> dict[str, Any]:
    """A photograph and one of its faces, for JSON: all but the image."""
    own = dict(zip(face._fields[1:], face[1:], strict=True))
    return {"photograph": str(found.path), "faces_found": len(found.faces), **own}


def notes(recognizer: Recognizer, found: Found, faces: list[Face], take_largest: bool) -> list[str]:
    """What a reader must know about the faces that were compared."""
    many = [f"{found.path}: {len(found.faces)} faces found, the largest is taken."]
    smallest = min((int(r["resolution"]) for r in recognizer.card["thresholds"] if r["resolution"] != "hr"), default=0)
    below = f"is below the smallest resolution that was measured ({smallest})."
    small = [f"{found.path}: a face of {face.pixels} pixels {below}" for face in faces if face.pixels < smallest]
    return many * (take_largest and len(found.faces) > 1) + small
