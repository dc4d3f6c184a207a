"""`lrfr benchmark-set SET --root PATH`: the official numbers of any student on a benchmark set that the user brings.

Whatever goes wrong with an image, undecodable or without a face, leaves a row of NaN: a failed acquisition, a miss.
"""

import argparse
import json
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from hashlib import sha256
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import nn

from lrfr import __version__
from lrfr.benchmarks.outcomes import Images, Opened, differences, intervals, table
from lrfr.benchmarks.sets import open_set
from lrfr.data.degrade import mirror
from lrfr.deploy.find_faces import align, detector, look, view
from lrfr.deploy.recognizer import Recognizer, find_model
from lrfr.errors import UserError
from lrfr.files import atomic_file
from lrfr.formats import markdown, per_cent, render, wide
from lrfr.gate.dlib_weights import embedded_path
from lrfr.models import inception
from lrfr.models.heads import unit
from lrfr.models.teachers import TEACHERS, build_teacher
from lrfr.parallel import cores, limit_threads
from lrfr.progress import bar
from lrfr.train.fold import teacher_input

LEVEL, DRAWS = 0.95, 2000  # of the intervals, and draws of people; the smallest number that is usual for intervals
BATCH = 64  # faces a forward pass
TEACHER = "teacher"  # instead of a model's path: dlib's network, or that of a study's teacher, fed with upsampled faces
RESAMPLER = "area down, bicubic up (lrfr.data.degrade)"
FACES = {  # what a model sees of an image; detectors fail on native low-resolution crops
    "whole": "whole image as it is",
    "landmarks": "landmarks of the set, similarity to dlib's chip",
    "detect": "landmarks of MTCNN (facenet-pytorch), largest face, similarity to dlib's chip",
}


class Tested(NamedTuple):
    """A model: faces uint8 (H, W, 3), `side` pixels or any other number -> unit vectors float32 (N, dimensions)."""

    name: str
    sha256: str
    side: int
    dimensions: int
    embed: Callable[[Sequence[np.ndarray]], np.ndarray]


def direct_feed_teacher(name: str = "dlib_resnet", weights: str = "embedded", net: nn.Module | None = None) -> Tested:
    """A teacher as `build_teacher` makes it, or its fine-tuned `net`, fed with upsampled faces: the hard baseline."""
    spec, net = TEACHERS[name], build_teacher(name, weights) if net is None else net
    published = inception.fetch(weights) if weights in inception.PUBLISHED else Path(weights)
    path = embedded_path() if weights == "embedded" else published

    def embed(faces: Sequence[np.ndarray]) -> np.ndarray:
        views = torch.from_numpy(np.stack([view(face, spec.chip) for face in faces]))
        with torch.inference_mode():
            return unit(net(teacher_input(views)).embedding).numpy()

    return Tested(TEACHER, sha256(path.read_bytes()).hexdigest(), spec.chip, spec.embedding, embed)


def embed_images(
    images: Images, models: Sequence[Tested], policy: str, flip: bool, description: str
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Model -> float32 (N, D), NaN rows where the acquisition failed, and a sentence about each failure.

    Each image is decoded once, and only the models' views of one batch are held. policy: a key of `FACES`. flip: add
    the unit vector of the mirror image (insightface adds raw vectors; exported students give unit vectors only).
    """
    vectors = {model.name: np.full((images.size, model.dimensions), np.nan, np.float32) for model in models}
    sides, problems, mtcnn = {model.side for model in models}, [], detector() if policy == "detect" else None
    for start in bar(range(0, images.size, BATCH), description):
        seen: dict[int, dict[int, np.ndarray]] = {}  # image -> side -> view
        for i in range(start, min(start + BATCH, images.size)):
            try:
                pixels = images.read(i)
                if policy == "whole":
                    seen[i] = {side: view(pixels, side) for side in sides}
                    continue
                picture = Image.fromarray(pixels)
                found = [points for *_, points in look(mtcnn, picture)] if mtcnn else [images.points(i)]
                if not found:
                    raise UserError(f"{images.name(i)}: no face found.")
                points = max(found, key=lambda points: np.ptp(points, axis=0).prod())  # the largest face
                seen[i] = {side: align(picture, points, side)[0] for side in sides}
            except UserError as error:
                problems.append(str(error))
        for model in models if seen else ():
            faces = [views[model.side] for views in seen.values()]
            mirrored = model.embed([*map(mirror, faces)]) if flip else 0
            vectors[model.name][list(seen)] = model.embed(faces) + mirrored
    return vectors, problems


def load_models(given: Sequence[str] | None) -> list[Tested]:
    """By path or the word `teacher`; without any the released student. UserError if a name comes twice."""
    models: dict[str, Tested] = {}
    for path in given or [None]:
        if path == TEACHER:
            model = direct_feed_teacher()
        else:
            student, size = Recognizer(file := find_model(path)), file.card["network"]["embedding"]
            model = Tested(file.path.name, sha256(file.data).hexdigest(), student.size, size, student.embed)
        if models.setdefault(model.name, model) is not model:
            raise UserError(f"--model: two models are called {model.name}; rename one with its card.")
    return list(models.values())


class Report(NamedTuple):
    """What was found; policies say how, problems which acquisitions failed."""

    name: str
    counts: pd.DataFrame
    policies: dict[str, str]
    results: pd.DataFrame
    comparisons: pd.DataFrame
    problems: list[str]


def assess(
    opened: Opened, models: list[Tested], policy: str, asked: dict, draws: int, level: float, where: str, flip=False
) -> Report:
    """Embed a set with every model and score it; UserError, naming `where` it is, if it is too small for its protocols.

    policy, flip: see `embed_images`. asked: question -> pairs (a, b) of models whose difference answers it;
    Holm's correction is within a question; comparisons have a column `question`. draws of people, level: of intervals.
    """
    embedded = {role: embed_images(images, models, policy, flip, role) for role, images in opened.images.items()}
    results, comparisons, counted = [], [], {}
    try:
        for name, protocol in opened.protocols.items():
            outcomes = {}
            for model in (m.name for m in models):
                outcomes[model] = protocol.evaluate({role: vectors[model] for role, (vectors, _) in embedded.items()})
                counted |= dict.fromkeys(outcomes[model].counts, "Int64")
            drawn = protocol.draw(outcomes, draws=draws, level=level)
            rows = table(outcomes).merge(intervals(drawn), how="left", on=["model", "metric"], validate="one_to_one")
            results.append(rows.assign(protocol=name))
            found = {question: differences(drawn, outcomes, pairs) for question, pairs in asked.items() if pairs}
            comparisons += [rows.assign(question=question, protocol=name) for question, rows in found.items()]
    except ValueError as error:  # of protocols and intervals
        raise UserError(f"{where}: {error}") from None
    mirrored = "unit vectors of face and mirror image added" if flip else "no"
    policies = {"faces": FACES[policy], "flip": mirrored, "channels": "RGB", "resampler": RESAMPLER}
    policies |= {"similarity": "cosine", "intervals": f"{level:.0%}, {draws} draws of people", "lrfr": __version__}
    known = [f"{c.what} {c.observed}" + ("" if c.published is None else f" of {c.published}") for c in opened.counts]
    whole = pd.concat(results, ignore_index=True).astype(counted)
    whole = whole.assign(set=opened.name, set_counts="; ".join(known), **policies)
    whole["sha256"] = whole.model.map({model.name: model.sha256 for model in models})
    whole["input"] = whole.model.map({model.name: model.side for model in models})
    first = ["set", "protocol", "model", "sha256", "input", "metric", "value", "low", "high", *counted, "set_counts"]
    compared = pd.concat([pd.DataFrame(columns=["set", "protocol"]), *comparisons]).assign(set=opened.name, **policies)
    counts = pd.DataFrame(opened.counts).astype({"observed": "Int64", "published": "Int64"})
    problems = [problem for _, failed in embedded.values() for problem in failed]
    return Report(opened.name, counts, policies, whole[[*first, *policies]], compared, problems)


def rates(report: Report, index: str, columns: str) -> dict[str, pd.DataFrame]:
    """Protocol -> results in per cent, two decimals as in tables of these sets, with intervals where there are any."""

    def cell(row) -> str:
        low, high = (round(100 * end, 1) + 0.0 for end in (row.low, row.high))
        return f"{100 * row.value:.2f}" + ("" if low != low else f" [{low:.1f}, {high:.1f}]")

    protocols = report.results.groupby("protocol", sort=False)
    return {name: wide(rows, map(cell, rows.itertuples()), index, columns) for name, rows in protocols}


def page(report: Report) -> str:
    """The report of a few models for people, in Markdown; sizes and failures stand below the rates."""
    tables = rates(report, "metric", "model")
    for protocol, rows in report.results.groupby("protocol", sort=False):
        first = rows.dropna(axis="columns", how="all").drop_duplicates("model").set_index("model")
        numbers = first.select_dtypes("Int64").astype(int).astype(str).T.rename_axis(index="metric").reset_index()
        tables[protocol] = pd.concat([tables[protocol], numbers])
    return render("benchmark-set.md.j2", report=report, tables=tables, markdown=markdown, per_cent=per_cent)


def add(parser: argparse.ArgumentParser) -> None:
    """The arguments of `benchmark-set`."""
    parser.add_argument("benchmark", metavar="SET", help="tinyface, survface, scface or lfw (any .bin of InsightFace)")
    where = "where you unpacked it; a .bin file or its folder"
    parser.add_argument("--root", type=Path, required=True, metavar="PATH", help=where)
    parser.add_argument("--bin", metavar="NAME.bin", help="which .bin file of the folder (default: lfw.bin)")
    text = "a .safetensors or .onnx student, or `teacher`; several are compared (default: the released student)"
    parser.add_argument("--model", action="append", metavar="PATH", help=text)
    faces = parser.add_mutually_exclusive_group()
    for option, policy in (("--aligned", "whole"), ("--landmarks", "landmarks"), ("--detect", "detect")):
        faces.add_argument(option, dest="policy", action="store_const", const=policy, help=FACES[policy])
    parser.add_argument("--flip", action="store_true", help="add the embedding of the mirror image")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="where to write tables as CSV (default: nowhere)")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout instead of tables")


def run(arguments: argparse.Namespace) -> int:
    """Print the report and write its tables; UserError for whatever cannot be read, with nothing written."""
    if (out := arguments.out) is not None:  # looked at before hours of scoring; not Path.exists, which may raise
        there = next(folder for folder in (out, *out.absolute().parents) if os.path.exists(folder))
        if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
            raise UserError(f"--out {out}: {there} is not a folder to which you may write; name another one.")
    limit_threads(cores())
    models = load_models(arguments.model)
    opened = open_set(arguments.benchmark, arguments.root, arguments.bin)
    policy = arguments.policy or opened.policies[0]
    if policy not in opened.policies:
        raise UserError(f"--{policy}: {opened.name} at {arguments.root} has no landmarks; give --detect or --aligned.")
    every_two = {"every two": list(combinations([model.name for model in models], 2))}
    report = assess(opened, models, policy, every_two, DRAWS, LEVEL, str(arguments.root), arguments.flip)
    report = report._replace(comparisons=report.comparisons.drop(columns="question", errors="ignore"))
    try:
        with ExitStack() as stack:  # both are written before either appears
            for ending, rows in {"": report.results, "-comparisons": report.comparisons}.items() if out else ():
                path = out / f"{report.name}{ending}.csv"
                if rows.empty:  # the file may be there from an earlier run with more models
                    path.unlink(missing_ok=True)
                else:
                    rows.to_csv(stack.enter_context(atomic_file(path)), index=False, lineterminator="\n")
    except OSError as error:
        raise UserError(f"--out {out}: cannot be written ({error}); name another folder.") from None
    if arguments.json:
        tables = {name: getattr(report, name) for name in ("counts", "results", "comparisons")}
        rows = {name: t.astype(object).where(t.notna(), None).to_dict("records") for name, t in tables.items()}
        print(json.dumps({"set": report.name, "policies": report.policies, **rows, "problems": report.problems}))
    else:
        print(page(report), end="")
    return 0
