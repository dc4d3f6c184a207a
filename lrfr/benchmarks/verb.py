"""`lrfr benchmark-set SET --root PATH`: the official numbers of any student on a benchmark set that the user brings."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from contextlib import ExitStack
from hashlib import sha256
from itertools import combinations
from pathlib import Path

from lrfr.benchmarks.acquisition import TEACHER, Tested, direct_feed_teacher
from lrfr.benchmarks.scoring import Report, assess, page
from lrfr.benchmarks.sets import open_set
from lrfr.deploy.cards import find_model
from lrfr.deploy.recognizer import Recognizer
from lrfr.errors import UserError
from lrfr.files import atomic_file
from lrfr.parallel import cores, limit_threads

LEVEL, DRAWS = 0.95, 2000  # of the intervals, and draws of people; the smallest number that is usual for intervals


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
