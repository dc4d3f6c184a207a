"""`lrfr verify A B`: do two photographs show one person? And what this verb shares with `identify` and `embed`.

The verbs work in any folder. What is heavy is imported when one runs: the command line asks all for their options.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lrfr.deploy.cards import FAR, operating_point
from lrfr.errors import UserError

if TYPE_CHECKING:
    from lrfr.deploy.find_faces import Face, Found
    from lrfr.deploy.recognizer import Recognizer

WORDS = {True: "same person", False: "different people"}


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("a", type=Path, help="a photograph; of several faces the largest is taken")
    parser.add_argument("b", type=Path, help="another one")
    add_far(parser)
    add_common(parser)


def add_far(parser: argparse.ArgumentParser) -> None:
    text = "false accept rate at which is decided, one of the model's card (default: %(default)s)"
    parser.add_argument("--far", type=float, default=FAR, help=text)


def add_common(parser: argparse.ArgumentParser) -> None:
    text = "a .safetensors or .onnx student (default: the released one)"
    parser.add_argument("--model", type=Path, metavar="PATH", help=text)
    parser.add_argument("--aligned", action="store_true", help="the images are aligned faces already: detect nothing")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout instead of a table")


def run(arguments: argparse.Namespace) -> int:
    """Print the answer; 0 for any answer, also "different people". UserError if a photograph has no face."""
    from lrfr.deploy.find_faces import find_all
    from lrfr.deploy.recognizer import cosines

    recognizer = ready(arguments)
    found = find_all([arguments.a, arguments.b], recognizer.size, arguments.aligned, 1)
    for one in found:
        if one.problem:
            raise UserError(one.problem)
    a, b = (one.faces[0] for one in found)
    x = recognizer.embed([a.image, b.image])
    decision = decide(recognizer, float(cosines(x[:1], x[1:])[0, 0]), arguments.far, a, b)
    remarks = [line for one in found for line in notes(recognizer, one, one.faces[:1], True)]
    both = {name: described(one, face) for name, one, face in zip("ab", found, (a, b), strict=True)}
    answer = {**decision, **terms(recognizer, arguments.far), **both, "notes": remarks}
    at = "full resolution" if decision["resolution"] == "hr" else f"{decision['resolution']} pixels"
    lines = [
        ("decision", WORDS[decision["same_person"]]),
        ("similarity", f"{decision['similarity']:.3f}"),
        ("threshold", f"{decision['threshold']:.3f} at FAR {arguments.far:g}, measured at {at}"),
        ("threshold from", answer["thresholds_from"]),
        ("faces", f"{a.pixels} and {b.pixels} pixels"),
        ("model", answer["model"]),
        *(("note", line) for line in remarks),
    ]
    print(json.dumps(answer) if arguments.json else "\n".join(f"{name:<16}{text}" for name, text in lines))
    return 0


def ready(arguments: argparse.Namespace) -> Recognizer:
    """The recogniser; UserError if it cannot decide at the FAR that is asked for."""
    from lrfr.deploy.recognizer import Recognizer
    from lrfr.parallel import limit_threads

    limit_threads(1)  # one face needs no more, and processes can be forked from one thread only
    recognizer = Recognizer.load(arguments.model)
    operating_point(recognizer.card, arguments.far, 1)
    return recognizer


def decide(recognizer: Recognizer, similarity: float, far: float, a: Face, b: Face) -> dict[str, Any]:
    """Similarity, threshold and decision for two faces."""
    row = operating_point(recognizer.card, far, min(a.pixels, b.pixels))
    decision = {"same_person": bool(similarity >= row["similarity"]), "similarity": similarity}
    return decision | {"threshold": row["similarity"], "resolution": row["resolution"]}


def terms(recognizer: Recognizer, far: float) -> dict[str, Any]:
    """Who decides, and by whose word."""
    card = recognizer.card
    return {"far": far, "thresholds_from": card.get("thresholds_from", "not stated on the card"), "model": card["name"]}


def described(found: Found, face: Face) -> dict[str, Any]:
    """A photograph and one of its faces, for JSON."""
    own = {"pixels": face.pixels, "box": face.box, "probability": face.probability}
    return {"photograph": str(found.path), "faces_found": len(found.faces), **own}


def notes(recognizer: Recognizer, found: Found, faces: list[Face], take_largest: bool) -> list[str]:
    """What a reader must know about the faces that were compared."""
    lines = []
    if take_largest and len(found.faces) > 1:
        lines.append(f"{found.path}: {len(found.faces)} faces found, the largest is taken.")
    listed = {row["resolution"] for row in recognizer.card["thresholds"]} - {"hr"}
    smallest = min(map(int, listed), default=0)
    below = f"is below the smallest resolution that was measured ({smallest})."
    return lines + [f"{found.path}: a face of {f.pixels} pixels {below}" for f in faces if f.pixels < smallest]
