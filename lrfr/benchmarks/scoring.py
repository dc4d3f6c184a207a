"""A set scored for several models: every protocol, intervals and paired differences; and how that is shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from lrfr import __version__
from lrfr.benchmarks.acquisition import FACES, FLIP, RESAMPLER, Tested, embed_images
from lrfr.benchmarks.outcomes import differences, intervals, table
from lrfr.benchmarks.roles import Opened
from lrfr.errors import UserError
from lrfr.formats import markdown, per_cent, wide

Questions = Mapping[str, Sequence[tuple[str, str]]]  # question -> pairs (a, b) of models whose difference answers it


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
