"""`lrfr identify PROBE --gallery DIR`: who is it? The most similar people, each by their most similar photograph."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from lrfr.deploy.verify import WORDS, add_common, add_far, decide, described, notes, ready, terms
from lrfr.errors import UserError

SEARCH = "the rate is that of one comparison: among n people of a gallery about n times as many strangers are accepted."


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("probe", type=Path, help="a photograph")
    text = "a folder with a folder of photographs per person, or one photograph per person, named like the person"
    parser.add_argument("--gallery", type=Path, required=True, metavar="DIR", help=text)
    parser.add_argument("--top", type=int, default=5, help="how many people are listed (default: 5)")
    add_far(parser)
    text = "search for every face of the probe, not the largest only"
    parser.add_argument("--all-faces", action="store_true", help=text)
    add_common(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the candidates; 0 for any answer. UserError if the probe has no face, or nobody of the gallery has one."""
    from lrfr.deploy.find_faces import find_all
    from lrfr.deploy.recognizer import cosines
    from lrfr.gate.images import list_photographs
    from lrfr.parallel import cores

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
        reason = f"no photograph of the gallery has a face; the first reason: {found[0].problem}"
        raise UserError(f"{arguments.gallery}: {reason}")
    inside = [one.path.relative_to(arguments.gallery) for one in known]
    people = [
        path.parts[0] if len(path.parts) > 1 else path.stem for path in inside
    ]  # the folder's name, or the file's
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
        for place, c in enumerate(candidates, 1):
            numbers = f"{c['similarity']:>10.3f}  {c['threshold']:>9.3f}"
            lines.append(f"{place:>3} {c['person']:<32}{numbers}  {WORDS[c['same_person']]}")
    left_out = [{"photograph": str(one.path), "problem": one.problem} for one in found if one.problem]
    remarks = notes(recognizer, probe, faces, not arguments.all_faces) + [SEARCH]
    size = {"people": len(set(people)), "photographs": len(known), "left_out": left_out}
    answer = {"faces": results, **terms(recognizer, arguments.far), "gallery": size, "notes": remarks}
    lines += [f"gallery: {size['people']} people, {len(known)} photographs; {len(left_out)} left out"]
    lines += [f"    {row['problem']}" for row in left_out]
    lines += [f"FAR {arguments.far:g}; threshold from {answer['thresholds_from']}; model {answer['model']}"]
    print(json.dumps(answer) if arguments.json else "\n".join(lines + [f"note: {line}" for line in remarks]))
    return 0
