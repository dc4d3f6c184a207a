"""The verbs for photographs: `lrfr verify`, `lrfr identify` and `lrfr embed DIR`. They work in any folder.

Everything heavy is imported when a verb runs, since the command line imports this module to know the verbs' options.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lrfr.deploy.cards import FAR, operating_point
from lrfr.errors import UserError

if TYPE_CHECKING:
    from lrfr.deploy.find_faces import Face, Found
    from lrfr.deploy.recognizer import Recognizer

LARGEST_FACE = "{path}: {count} faces found, the largest is taken."
TOO_SMALL = "{path}: a face of {pixels} pixels is below the smallest resolution that was measured ({smallest})."
SEARCH = "the rate is that of one comparison: among n people of a gallery about n times as many strangers are accepted."


def common(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--model", type=Path, metavar="PATH", help="a .safetensors or .onnx student (default: the released one)"
    )
    command.add_argument("--aligned", action="store_true", help="the images are aligned faces already: detect nothing")
    command.add_argument("--json", action="store_true", help="one JSON object on stdout instead of a table")


def add_verbs(commands: Any) -> None:
    """The parsers of `verify` and `identify`."""
    rate = "false accept rate at which is decided, one of the model's card (default: %(default)s)"
    verify = commands.add_parser("verify", help="photographs: do two of them show one person?")
    verify.add_argument("a", type=Path, help="a photograph; of several faces the largest is taken")
    verify.add_argument("b", type=Path, help="another one")
    verify.add_argument("--far", type=float, default=FAR, help=rate)
    identify = commands.add_parser("identify", help="photographs: who of a gallery is it?")
    identify.add_argument("probe", type=Path, help="a photograph")
    text = "a folder with a folder of photographs per person, or one photograph per person, named like the person"
    identify.add_argument("--gallery", type=Path, required=True, metavar="DIR", help=text)
    identify.add_argument("--top", type=int, default=5, help="how many people are listed (default: 5)")
    identify.add_argument("--far", type=float, default=FAR, help=rate)
    identify.add_argument(
        "--all-faces", action="store_true", help="search for every face of the probe, not the largest only"
    )
    for command in (verify, identify):
        common(command)


def add_embed(command: argparse.ArgumentParser) -> None:
    """What the parser of the stage `embed` needs to be the verb too."""
    command.description = "Without a folder: the study's stage. With one: embed the faces of its photographs."
    command.add_argument("folder", type=Path, nargs="?", metavar="DIR", help="a folder with photographs")
    command.add_argument("--out", type=Path, help="the table to be written: .parquet, .csv or .npz")
    command.add_argument("--all-faces", action="store_true", help="every face of a photograph, not the largest only")
    common(command)


def is_verb(arguments: argparse.Namespace) -> bool:
    """Is it one of these verbs, and not a stage?"""
    if arguments.command == "embed":
        own = ("folder", "out", "model", "aligned", "json", "all_faces")
        return any(getattr(arguments, option) for option in own)
    return arguments.command in ("verify", "identify")


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def described(found: Found, face: Face) -> dict[str, Any]:
    """A photograph and one of its faces, for JSON."""
    own = {"pixels": face.pixels, "box": face.box, "probability": face.probability}
    return {"photograph": str(found.path), "faces_found": len(found.faces), **own}


def notes(recognizer: Recognizer, found: Found, faces: list[Face], take_largest: bool) -> list[str]:
    """What a reader must know about the faces that were compared."""
    lines = []
    if take_largest and len(found.faces) > 1:
        lines.append(LARGEST_FACE.format(path=found.path, count=len(found.faces)))
    listed = {row["resolution"] for row in recognizer.card["thresholds"]} - {"hr"}
    smallest = min(map(int, listed), default=0)
    small = [face.pixels for face in faces if face.pixels < smallest]
    return lines + [TOO_SMALL.format(path=found.path, pixels=pixels, smallest=smallest) for pixels in small]


def decide(recognizer: Recognizer, similarity: float, far: float, a: Face, b: Face) -> dict[str, Any]:
    """Similarity, threshold and decision for two faces."""
    row = operating_point(recognizer.card, far, min(a.pixels, b.pixels))
    same = bool(similarity >= row["similarity"])
    return {
        "same_person": same,
        "similarity": similarity,
        "threshold": row["similarity"],
        "resolution": row["resolution"],
    }


def terms(recognizer: Recognizer, far: float) -> dict[str, Any]:
    """Who decides, and by whose word."""
    card = recognizer.card
    return {"far": far, "thresholds_from": card.get("thresholds_from", "not stated on the card"), "model": card["name"]}


def ready(arguments: argparse.Namespace) -> Recognizer:
    """The recogniser; UserError if it cannot decide at the FAR that is asked for."""
    from lrfr.deploy.recognizer import Recognizer
    from lrfr.parallel import limit_threads

    limit_threads(1)  # one face needs no more, and processes can be forked from one thread only
    recognizer = Recognizer.load(arguments.model)
    operating_point(recognizer.card, arguments.far, 1)
    return recognizer


def verify(arguments: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """The answer about two photographs, for programs and for people; UserError if one of them has no face."""
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
    lines = [
        ("decision", "same person" if decision["same_person"] else "different people"),
        ("similarity", f"{decision['similarity']:.3f}"),
        ("threshold", f"{decision['threshold']:.3f} at FAR {arguments.far:g}, measured at {pixels_of(decision)}"),
        ("threshold from", answer["thresholds_from"]),
        ("faces", f"{a.pixels} and {b.pixels} pixels"),
        ("model", answer["model"]),
        *(("note", line) for line in remarks),
    ]
    return answer, "\n".join(f"{name:<16}{text}" for name, text in lines)


def pixels_of(decision: dict[str, Any]) -> str:
    return "full resolution" if decision["resolution"] == "hr" else f"{decision['resolution']} pixels"


def person_of(path: Path, gallery: Path) -> str:
    """The first folder below the gallery, or the file's name without its ending."""
    parts = path.relative_to(gallery).parts
    return parts[0] if len(parts) > 1 else path.stem


def identify(arguments: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """The most similar people of a gallery: each by their most similar photograph."""
    from lrfr.deploy.find_faces import find_all
    from lrfr.deploy.recognizer import cosines
    from lrfr.gate.images import list_photographs

    if arguments.top < 1:
        raise UserError(f"--top {arguments.top}: at least one person must be listed.")
    recognizer = ready(arguments)
    paths = list_photographs(arguments.gallery)
    (probe,) = find_all([arguments.probe], recognizer.size, arguments.aligned, 1)
    if probe.problem:
        raise UserError(probe.problem)
    found = find_all(paths, recognizer.size, arguments.aligned, cores())
    known = [one for one in found if one.faces]
    if not known:
        raise UserError(
            f"{arguments.gallery}: no photograph of the gallery has a face; the first reason: {found[0].problem}"
        )
    people = [person_of(one.path, arguments.gallery) for one in known]
    gallery = recognizer.embed([one.faces[0].image for one in known])
    faces = probe.faces if arguments.all_faces else probe.faces[:1]
    results, lines = [], []
    probes = recognizer.embed([face.image for face in faces])
    for face, similarities in zip(faces, cosines(probes, gallery), strict=True):
        best: dict[str, int] = {}
        for index in (-similarities).argsort(kind="stable"):
            best.setdefault(people[index], int(index))
        candidates = [
            {"person": person, "photograph": str(known[i].path), "pixels": known[i].faces[0].pixels}
            | decide(recognizer, float(similarities[i]), arguments.far, face, known[i].faces[0])
            for person, i in list(best.items())[: arguments.top]
        ]
        results.append(described(probe, face) | {"candidates": candidates})
        lines += [f"face of {face.pixels} pixels", f"    {'person':<32}similarity  threshold  decision"]
        lines += [
            f"{place:>3} {c['person']:<32}{c['similarity']:>10.3f}  {c['threshold']:>9.3f}  "
            f"{'same person' if c['same_person'] else 'different people'}"
            for place, c in enumerate(candidates, 1)
        ]
    left_out = [{"photograph": str(one.path), "problem": one.problem} for one in found if one.problem]
    remarks = notes(recognizer, probe, faces, not arguments.all_faces) + [SEARCH]
    size = {"people": len(set(people)), "photographs": len(known), "left_out": left_out}
    answer = {"faces": results, **terms(recognizer, arguments.far), "gallery": size, "notes": remarks}
    lines += [f"gallery: {len(set(people))} people, {len(known)} photographs; {len(left_out)} left out"]
    lines += [f"    {row['problem']}" for row in left_out]
    lines += [f"FAR {arguments.far:g}; threshold from {answer['thresholds_from']}; model {answer['model']}"]
    return answer, "\n".join(lines + [f"note: {line}" for line in remarks])


def run(arguments: argparse.Namespace) -> int:
    """Answer; 0 for any answer, also "different people"."""
    if arguments.command == "embed":
        from lrfr.deploy.embedding import embed as verb
    else:
        verb = {"verify": verify, "identify": identify}[arguments.command]
    answer, text = verb(arguments)
    print(json.dumps(answer) if arguments.json else text)
    return 0
