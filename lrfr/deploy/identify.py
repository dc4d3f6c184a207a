"""`lrfr identify PROBE --gallery DIR`: who is it? The most similar people, each by their most similar photograph."""

import argparse
from pathlib import Path

from lrfr.deploy.recognizer import FAR, cosines
from lrfr.deploy.verify import FAR_HELP, WORDS, add_common, described, notes, prepared, tell, terms
from lrfr.errors import UserError

SEARCH = "the rate is that of one comparison: among n people of a gallery about n times as many strangers are accepted."


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("probe", type=Path, help="a photograph")
    text = "a folder with a folder of photographs per person, or one photograph per person, named like the person"
    parser.add_argument("--gallery", type=Path, required=True, metavar="DIR", help=text)
    parser.add_argument("--top", type=int, default=5, help="how many people are listed (default: 5)")
    parser.add_argument("--far", type=float, default=FAR, help=FAR_HELP)
    text = "search for every face of the probe, not the largest only"
    parser.add_argument("--all-faces", action="store_true", help=text)
    add_common(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the candidates; 0 for any answer. UserError if the probe has no face, or nobody of the gallery has one."""
    if arguments.top < 1:
        raise UserError(f"--top {arguments.top}: at least one person must be listed.")
    recognizer, (probe,), found = prepared(arguments, [arguments.probe], arguments.gallery)
    known = [one for one in found if one.faces]
    if not known:
        text = "no photograph of the gallery has a face; the first reason"
        raise UserError(f"{arguments.gallery}: {text}: {found[0].problem}")
    inside = [one.path.relative_to(arguments.gallery) for one in known]
    people = [path.parts[0] if path.parts[1:] else path.stem for path in inside]  # the folder's name, or the file's
    gallery = recognizer.embed([one.faces[0].image for one in known])
    faces = probe.faces if arguments.all_faces else probe.faces[:1]
    results, lines = [], []
    for face, similarities in zip(faces, cosines(recognizer.embed([f.image for f in faces]), gallery), strict=True):
        best: dict[str, int] = {}
        for index in (-similarities).argsort(kind="stable"):
            best.setdefault(people[index], int(index))
        candidates = [
            {"person": person, "photograph": str(known[i].path), "pixels": known[i].faces[0].pixels}
            | recognizer.decide(similarities[i], arguments.far, min(face.pixels, known[i].faces[0].pixels))
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
    lines += [
        f"gallery: {size['people']} people, {len(known)} photographs; {len(left_out)} left out",
        *(f"    {row['problem']}" for row in left_out),
        f"FAR {arguments.far:g}; threshold from {answer['thresholds_from']}; model {answer['model']}",
        *(f"note: {line}" for line in remarks),
    ]
    return tell(arguments, answer, lines)
