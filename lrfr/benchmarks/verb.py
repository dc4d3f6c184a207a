"""`lrfr benchmark-set SET --root PATH`: the official numbers of any student on a benchmark set that the user brings.

Everything heavy is imported when the verb runs, since the command line imports this module to know the verb's options.
"""

from __future__ import annotations

import argparse
import json
import os
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lrfr import __version__
from lrfr.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

    from lrfr.benchmarks.acquisition import Tested
    from lrfr.benchmarks.sets import Opened

VERB = "benchmark-set"
LEVEL, DRAWS = 0.95, 2000  # of the intervals, and draws of people; the smallest number that is usual for intervals


class Ways(NamedTuple):
    """How a set is looked at. policy: a key of `acquisition.FACES`. flip: see there. draws of people, level: of the intervals."""

    policy: str
    flip: bool
    draws: int
    level: float


class Report(NamedTuple):
    """What the verb found. counts, results and comparisons are tables, policies say how; problems: failed acquisitions."""

    name: str
    counts: pd.DataFrame
    policies: dict[str, str]
    results: pd.DataFrame
    comparisons: pd.DataFrame
    problems: list[str]


def add_verb(commands: Any) -> None:
    """The parser of `benchmark-set`."""
    command = commands.add_parser(
        VERB, help="the official protocol of a benchmark set that you bring, for any students"
    )
    command.add_argument(
        "benchmark", metavar="SET", help="tinyface, survface, scface, or lfw (any .bin file of InsightFace)"
    )
    command.add_argument(
        "--root", type=Path, required=True, metavar="PATH", help="where you unpacked it; a .bin file or its folder"
    )
    command.add_argument("--bin", metavar="NAME.bin", help="which .bin file of the folder (default: lfw.bin)")
    text = "a .safetensors or .onnx student, or `teacher`; several are compared (default: the released student)"
    command.add_argument("--model", action="append", metavar="PATH", help=text)
    faces = command.add_mutually_exclusive_group()
    for policy, text in {
        "whole": "the images are aligned faces, or too small for a detector: see them as they are",
        "landmarks": "align by the landmarks that come with the set",
        "detect": "align by the landmarks of a detector; no face is a miss",
    }.items():
        option = "aligned" if policy == "whole" else policy
        faces.add_argument(f"--{option}", dest="policy", action="store_const", const=policy, help=text)
    command.add_argument("--flip", action="store_true", help="add the embedding of the mirror image")
    command.add_argument(
        "--out", type=Path, metavar="FOLDER", help="where to write the tables as CSV (default: nowhere)"
    )
    command.add_argument("--json", action="store_true", help="one JSON object on stdout instead of tables")


def score(
    opened: Opened, vectors: dict[str, dict], models: list[Tested], ways: Ways
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Tidy results of every protocol, and paired differences of every two models; vectors: role -> model -> embeddings."""
    import pandas as pd

    from lrfr.benchmarks.outcome import table
    from lrfr.benchmarks.paired import differences, intervals

    results, comparisons, counted = [], [], []
    for name, protocol in opened.protocols.items():
        outcomes = {m.name: protocol.evaluate({role: found[m.name] for role, found in vectors.items()}) for m in models}
        draws = protocol.draw(outcomes, draws=ways.draws, level=ways.level)
        ends = intervals(draws).drop(columns="value")
        whole = table(outcomes).merge(ends, how="left", on=["model", "metric"], validate="one_to_one")
        whole.insert(0, "protocol", name)
        results.append(whole)
        counted += [count for count in next(iter(outcomes.values())).counts if count not in counted]
        if len(models) > 1:
            pairs = differences(draws, outcomes)
            pairs.insert(0, "protocol", name)
            comparisons.append(pairs)
    whole = pd.concat(results, ignore_index=True)
    whole = whole[["protocol", "model", "metric", "value", "low", "high", *counted]]
    return whole.astype(dict.fromkeys(counted, "Int64")), pd.concat(comparisons) if comparisons else pd.DataFrame()


def assess(opened: Opened, models: list[Tested], ways: Ways, where: object) -> Report:
    """Embed a set with every model and score it; UserError, naming `where` it is, if it is too small for its protocols."""
    import pandas as pd

    from lrfr.benchmarks import acquisition

    vectors, problems = {}, []
    for role, images in opened.images.items():
        found = acquisition.embed_images(images, models, ways.policy, ways.flip, role)
        vectors[role] = found.vectors
        problems += found.problems
    try:
        results, comparisons = score(opened, vectors, models, ways)
    except ValueError as error:  # of protocols and intervals
        raise UserError(f"{where}: {error}") from None
    policies = {
        "faces": acquisition.FACES[ways.policy],
        "flip": acquisition.FLIP[ways.flip],
        "channels": "RGB",
        "resampler": acquisition.RESAMPLER,
        "similarity": "cosine",
        "intervals": f"{ways.level:.0%}, {ways.draws} draws of people",
        "lrfr": __version__,
    }
    by_name = {model.name: model for model in models}
    results.insert(2, "sha256", [by_name[name].sha256 for name in results.model])
    results.insert(3, "input", [by_name[name].side for name in results.model])
    counts = pd.DataFrame(opened.counts).astype({"observed": "Int64", "published": "Int64"})
    known = "; ".join(
        f"{c.what} {c.observed}" + ("" if c.published is None else f" of {c.published}") for c in opened.counts
    )
    results, comparisons = results.assign(set_counts=known, **policies), comparisons.assign(**policies)
    for table in (results, comparisons):
        table.insert(0, "set", opened.name)
    return Report(opened.name, counts, policies, results, comparisons, problems)


def benchmark(arguments: argparse.Namespace) -> Report:
    """Read the set, embed it with every model, score it."""
    from lrfr.benchmarks import acquisition
    from lrfr.benchmarks.sets import open_set
    from lrfr.parallel import cores, limit_threads

    limit_threads(cores())
    models = acquisition.load_models(arguments.model)
    opened = open_set(arguments.benchmark, arguments.root, arguments.bin)
    policy = arguments.policy or opened.policies[0]
    if policy not in opened.policies:
        raise UserError(f"--{policy}: {opened.name} at {arguments.root} has no landmarks; give --detect or --aligned.")
    return assess(opened, models, Ways(policy, arguments.flip, DRAWS, LEVEL), arguments.root)


def cell(row: Any) -> str:
    """A rate in per cent, with the two decimals that tables of these sets have, and its interval where it has one."""
    low, high = (round(100 * end, 1) + 0.0 for end in (row.low, row.high))
    return f"{100 * row.value:.2f}" + ("" if low != low else f" [{low:.1f}, {high:.1f}]")


def page(report: Report) -> str:
    """The report for people, in Markdown."""
    import pandas as pd

    from lrfr.formats import markdown, per_cent

    counts = report.counts.astype(object).where(report.counts.notna(), "-")
    sides = report.results.drop_duplicates("model")
    policies = report.policies | {
        "input": ", ".join(f"{m} {s} x {s}" for m, s in zip(sides.model, sides.input, strict=True))
    }
    parts = [
        f"# {report.name}\n",
        markdown(counts),
        markdown(pd.DataFrame(policies.items(), columns=["policy", "value"])),
    ]
    if report.problems:
        parts.append(
            f"{len(report.problems)} images failed and count as failed acquisitions; the first: {report.problems[0]}\n"
        )
    for protocol, rows in report.results.groupby("protocol", sort=False):
        models = rows.model.unique()
        wide = rows.assign(cell=[cell(row) for row in rows.itertuples()]).pivot(
            index="metric", columns="model", values="cell"
        )
        wide = wide.loc[rows.metric.unique(), models].reset_index()
        first = rows.dropna(axis="columns", how="all").drop_duplicates("model").set_index("model")
        numbers = (
            first.select_dtypes("Int64").T[models].astype(int).astype(str).rename_axis(index="metric").reset_index()
        )
        parts += [f"## {protocol}, per cent\n", markdown(pd.concat([wide, numbers]))]
    for protocol, rows in report.comparisons.groupby("protocol", sort=False) if len(report.comparisons) else ():
        lines = [
            (row.a, row.b, row.metric, per_cent(row.diff, row.low, row.high, "+"), f"{row.p_holm:.4f}")
            + (
                ("-",) * 2
                if row.mcnemar != row.mcnemar
                else (f"{row.only_a:.0f} : {row.only_b:.0f}", f"{row.mcnemar_holm:.4f}")
            )
            for row in rows.itertuples()
        ]
        columns = ["a", "b", "metric", "a - b", "p (Holm)", "only a : only b right", "McNemar p (Holm)"]
        parts += [f"## {protocol}, differences in points\n", markdown(pd.DataFrame(lines, columns=columns))]
    return "\n".join(parts)


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows for JSON, with null where there is no value."""
    return table.astype(object).where(table.notna(), None).to_dict("records")


def write(report: Report, folder: Path) -> None:
    """<set>.csv, and <set>-comparisons.csv; that of an earlier run with several models goes where there is one model now."""
    from lrfr.files import atomic_file

    tables = {
        folder / f"{report.name}.csv": report.results,
        folder / f"{report.name}-comparisons.csv": report.comparisons,
    }
    try:
        with ExitStack() as stack:  # both are written before either appears
            for path, table in tables.items():
                if table.empty:
                    path.unlink(missing_ok=True)
                else:
                    table.to_csv(stack.enter_context(atomic_file(path)), index=False, lineterminator="\n")
    except OSError as error:
        raise UserError(
            f"--out {folder}: cannot be written ({error.strerror or error}); name another folder."
        ) from None


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
        tables = {name: records(getattr(report, name)) for name in ("counts", "results", "comparisons")}
        print(json.dumps({"set": report.name, "policies": report.policies, **tables, "problems": report.problems}))
    else:
        print(page(report), end="")
    return 0
