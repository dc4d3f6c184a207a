"""`lrfr benchmark-set SET --root PATH`: the official numbers of any student on a benchmark set that the user brings.

A set is scored for several models: every protocol, intervals and paired differences; then shown.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from hashlib import sha256
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from lrfr import __version__
from lrfr.benchmarks.acquisition import FACES, FLIP, RESAMPLER, TEACHER, Tested, direct_feed_teacher, embed_images
from lrfr.benchmarks.outcomes import Opened, differences, intervals, table
from lrfr.benchmarks.sets import open_set
from lrfr.deploy.cards import find_model
from lrfr.deploy.recognizer import Recognizer
from lrfr.errors import UserError
from lrfr.files import atomic_file
from lrfr.formats import markdown, per_cent, wide
from lrfr.parallel import cores, limit_threads

LEVEL, DRAWS = 0.95, 2000  # of the intervals, and draws of people; the smallest number that is usual for intervals
Questions = Mapping[str, Sequence[tuple[str, str]]]  # question -> pairs (a, b) of models whose difference answers it


def add(parser: argparse.ArgumentParser) -> None:
    """The arguments of `benchmark-set`."""
    text = "tinyface, survface, scface, or lfw (any .bin file of InsightFace)"
    parser.add_argument("benchmark", metavar="SET", help=text)
    text = "where you unpacked it; a .bin file or its folder"
    parser.add_argument("--root", type=Path, required=True, metavar="PATH", help=text)
    parser.add_argument("--bin", metavar="NAME.bin", help="which .bin file of the folder (default: lfw.bin)")
    text = "a .safetensors or .onnx student, or `teacher`; several are compared (default: the released student)"
    parser.add_argument("--model", action="append", metavar="PATH", help=text)
    faces = parser.add_mutually_exclusive_group()
    for option, policy, text in (
        ("--aligned", "whole", "the images are aligned faces, or too small for a detector: see them as they are"),
        ("--landmarks", "landmarks", "align by the landmarks that come with the set"),
        ("--detect", "detect", "align by the landmarks of a detector; no face is a miss"),
    ):
        faces.add_argument(option, dest="policy", action="store_const", const=policy, help=text)
    parser.add_argument("--flip", action="store_true", help="add the embedding of the mirror image")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="where to write tables as CSV (default: nowhere)")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout instead of tables")


def load_models(given: Sequence[str] | None) -> list[Tested]:
    """The models by path or by the word `teacher`, the released student without any.

    Raises UserError if one name comes twice, or like `find_model`.
    """
    models: dict[str, Tested] = {}
    for path in given or [None]:
        if path == TEACHER:
            model = direct_feed_teacher()
        else:
            file = find_model(path)
            student, dimensions = Recognizer(file), file.card["network"]["embedding"]
            model = Tested(file.path.name, sha256(file.data).hexdigest(), student.size, dimensions, student.embed)
        if model.name in models:
            raise UserError(f"--model: two models are called {model.name}; rename one with its card.")
        models[model.name] = model
    return list(models.values())


class Report(NamedTuple):
    """What was found. counts, results and comparisons are tables, policies say how; problems: failed acquisitions."""

    name: str
    counts: pd.DataFrame
    policies: dict[str, str]
    results: pd.DataFrame
    comparisons: pd.DataFrame
    problems: list[str]


def score(
    opened: Opened, vectors: dict[str, dict], models: Sequence[str], questions: Questions, draws: int, level: float
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Tidy results of every protocol, and paired differences; vectors: role -> model -> embeddings."""
    results, comparisons, counted = [], [], {}
    for name, protocol in opened.protocols.items():
        outcomes = {m: protocol.evaluate({role: found[m] for role, found in vectors.items()}) for m in models}
        drawn = protocol.draw(outcomes, draws=draws, level=level)
        whole = table(outcomes).merge(intervals(drawn), how="left", on=["model", "metric"], validate="one_to_one")
        results.append(whole.assign(protocol=name))
        counted |= next(iter(outcomes.values())).counts
        for question, pairs in questions.items():
            if pairs:
                rows = differences(drawn, outcomes, pairs).assign(question=question)
                rows.insert(0, "protocol", name)
                comparisons.append(rows)
    whole = pd.concat(results, ignore_index=True)
    whole = whole[["protocol", "model", "metric", "value", "low", "high", *counted]]
    return whole.astype(dict.fromkeys(counted, "Int64")), pd.concat(comparisons) if comparisons else pd.DataFrame()


def assess(
    opened: Opened,
    models: list[Tested],
    policy: str,
    flip: bool,
    asked: Questions,
    draws: int,
    level: float,
    where: str,
) -> Report:
    """Embed a set with every model and score it; UserError, naming `where` it is, if it is too small for its protocols.

    policy, flip: see `acquisition.embed_images`. asked: Holm's correction is within a question; comparisons have a
    column `question`. draws of people, level: of the intervals.
    """
    vectors, problems = {}, []
    for role, images in opened.images.items():
        found = embed_images(images, models, policy, flip, role)
        vectors[role] = found.vectors
        problems += found.problems
    by_name = {model.name: model for model in models}
    try:
        results, comparisons = score(opened, vectors, list(by_name), asked, draws, level)
    except ValueError as error:  # of protocols and intervals
        raise UserError(f"{where}: {error}") from None
    policies = {
        "faces": FACES[policy],
        "flip": FLIP[flip],
        "channels": "RGB",
        "resampler": RESAMPLER,
        "similarity": "cosine",
        "intervals": f"{level:.0%}, {draws} draws of people",
        "lrfr": __version__,
    }
    results.insert(2, "sha256", [by_name[name].sha256 for name in results.model])
    results.insert(3, "input", [by_name[name].side for name in results.model])
    published = ["" if c.published is None else f" of {c.published}" for c in opened.counts]
    known = "; ".join(f"{c.what} {c.observed}{of}" for c, of in zip(opened.counts, published, strict=True))
    results, comparisons = results.assign(set_counts=known, **policies), comparisons.assign(**policies)
    for one in (results, comparisons):
        one.insert(0, "set", opened.name)
    counts = pd.DataFrame(opened.counts).astype({"observed": "Int64", "published": "Int64"})
    return Report(opened.name, counts, policies, results, comparisons, problems)


def rates(rows: pd.DataFrame, index: str, columns: str) -> pd.DataFrame:
    """Results in per cent, with the two decimals that tables of these sets have, and an interval where there is one."""
    cells = []
    for row in rows.itertuples():
        low, high = (round(100 * end, 1) + 0.0 for end in (row.low, row.high))
        cells.append(f"{100 * row.value:.2f}" + ("" if low != low else f" [{low:.1f}, {high:.1f}]"))
    return wide(rows, cells, index, columns)


def front(report: Report) -> str:
    """The head of a page: what was found, next to what the authors publish, how it was looked at, what failed."""
    sides = report.results.drop_duplicates("model")
    inputs = ", ".join(f"{m} {s} x {s}" for m, s in zip(sides.model, sides.input, strict=True))
    policies = pd.DataFrame([*report.policies.items(), ("input", inputs)], columns=["policy", "value"])
    parts = [markdown(report.counts.astype(object).where(report.counts.notna(), "-")), markdown(policies)]
    if report.problems:
        number = f"{len(report.problems)} images failed and count as failed acquisitions"
        parts.append(f"{number}; the first: {report.problems[0]}\n")
    return "\n".join(parts)


def page(report: Report) -> str:
    """The report of a few models for people, in Markdown."""
    parts = [f"# {report.name}\n", front(report)]
    for protocol, rows in report.results.groupby("protocol", sort=False):
        first = rows.dropna(axis="columns", how="all").drop_duplicates("model").set_index("model")
        numbers = first.select_dtypes("Int64").astype(int).astype(str).T.rename_axis(index="metric").reset_index()
        parts += [f"## {protocol}, per cent\n", markdown(pd.concat([rates(rows, "metric", "model"), numbers]))]
    for protocol, rows in report.comparisons.groupby("protocol", sort=False) if len(report.comparisons) else ():
        lines: list[tuple[Any, ...]] = []
        for row in rows.itertuples():
            tested = (f"{row.only_a:.0f} : {row.only_b:.0f}", f"{row.mcnemar_holm:.4f}")
            shown = per_cent(row.diff, row.low, row.high, "+"), f"{row.p_holm:.4f}"
            lines.append((row.a, row.b, row.metric, *shown, *(("-", "-") if pd.isna(row.mcnemar) else tested)))
        columns = ["a", "b", "metric", "a - b", "p (Holm)", "only a : only b right", "McNemar p (Holm)"]
        parts += [f"## {protocol}, differences in points\n", markdown(pd.DataFrame(lines, columns=columns))]
    return "\n".join(parts)


def benchmark(arguments: argparse.Namespace) -> Report:
    """Read the set, embed it with every model, score it."""
    limit_threads(cores())
    models = load_models(arguments.model)
    opened = open_set(arguments.benchmark, arguments.root, arguments.bin)
    policy = arguments.policy or opened.policies[0]
    if policy not in opened.policies:
        raise UserError(f"--{policy}: {opened.name} at {arguments.root} has no landmarks; give --detect or --aligned.")
    every_two = {"every two": list(combinations([model.name for model in models], 2))}
    report = assess(opened, models, policy, arguments.flip, every_two, DRAWS, LEVEL, str(arguments.root))
    return report._replace(comparisons=report.comparisons.drop(columns="question", errors="ignore"))


def write(report: Report, folder: Path) -> None:
    """<set>.csv, and <set>-comparisons.csv, which goes if it is there from an earlier run with more models."""
    try:
        with ExitStack() as stack:  # both are written before either appears
            for ending, table in (("", report.results), ("-comparisons", report.comparisons)):
                path = folder / f"{report.name}{ending}.csv"
                if table.empty:
                    path.unlink(missing_ok=True)
                else:
                    table.to_csv(stack.enter_context(atomic_file(path)), index=False, lineterminator="\n")
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"--out {folder}: cannot be written ({reason}); name another folder.") from None


def check_folder(out: Path) -> None:
    """UserError for what `write` could not write to, or could not make."""
    # not Path.exists, which raises where it may not look
    there = next(folder for folder in (out, *out.absolute().parents) if os.path.exists(folder))
    if not there.is_dir():
        raise UserError(f"--out {out}: {'not' if there == out else f'{there} is not'} a folder; name another one.")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UserError(f"--out {out}: you may not write to {there}; name another folder.")


def run(arguments: argparse.Namespace) -> int:
    """Print the report and write its tables; UserError for whatever cannot be read, with nothing written."""
    if arguments.out is not None:  # before hours of scoring
        check_folder(arguments.out)
    report = benchmark(arguments)
    if arguments.out is not None:
        write(report, arguments.out)
    if arguments.json:
        tables = {name: getattr(report, name) for name in ("counts", "results", "comparisons")}
        rows = {name: t.astype(object).where(t.notna(), None).to_dict("records") for name, t in tables.items()}
        print(json.dumps({"set": report.name, "policies": report.policies, **rows, "problems": report.problems}))
    else:
        print(page(report), end="")
    return 0
