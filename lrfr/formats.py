"""How results are ordered, written and read: the house order of models, cells with intervals, pairs and their scores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from lrfr.files import atomic_file

DIGITS = "%.6g"  # of the numbers in tables
CELL = ["pairing", "resolution", "metric"]  # what a row of a table is about, beside its protocol and model
SIGNIFICANT = 0.05  # p after Holm's correction; a difference with a larger one is a tie
# the house order of models, in tables and in figures
# fmt: off
ORDER = (
    "teacher", "hr_student", "scratch", "kd", "feature",
    "fitnet", "at", "rkd", "kd_tuned_teacher",
    "hkdd", "se_dfd", "mkmmd", "icd_face", "acs_review",
    "random_net", "raw_pixels", "shuffled",
)
# fmt: on
FIVE = ("hkdd", "se_dfd", "mkmmd", "icd_face", "acs_review")  # the papers' methods, compared with each other
REFERENCES = ("scratch", "teacher", "kd")  # everything is compared with these


def order(models) -> list[str]:
    """The models without duplicates, in the house order; unknown ones at the end, by name."""
    return sorted(set(models), key=lambda m: (ORDER.index(m) if m in ORDER else len(ORDER), m))


def pixels(resolution: str) -> float:
    """A sortable size of a resolution's name: pixels, with 'hr' as the largest."""
    return float("inf") if resolution == "hr" else float(resolution)


def read_table(path: Path) -> pd.DataFrame:
    """A table of a study; resolutions and protocols are names, never numbers."""
    return pd.read_csv(path, dtype={"resolution": str, "protocol": str}, keep_default_na=True)


def headline(results: pd.DataFrame, metric: str = "eer", pairing: str = "hr_lr") -> pd.DataFrame:
    """Models in rows, resolutions in columns, "11.2 [9.8, 12.9]" in per cent in the cells (value and interval)."""
    rows = results[(results.metric == metric) & (results.pairing == pairing)]

    def cell(row: pd.Series) -> str:
        band = "" if pd.isna(row.low) else f" [{100 * row.low:.1f}, {100 * row.high:.1f}]"
        return f"{100 * row.value:.1f}{band}"

    wide = rows.assign(cell=[cell(row) for _, row in rows.iterrows()]).pivot(
        index="model", columns="resolution", values="cell"
    )
    return (
        wide.loc[order(wide.index), sorted(wide.columns, key=pixels)].fillna("").rename_axis(columns=None).reset_index()
    )


def verdict(row) -> str:
    """better, worse or tie: what a row of comparisons.csv says of an error of a against that of b."""
    return "tie" if not row.p_holm < SIGNIFICANT else "better" if row["diff"] < 0 else "worse"


def per_cent(value: float, low: float, high: float, sign: str = "") -> str:
    """Like "11.2 [9.8, 12.9]" from fractions, never "-0.0"; sign "+" shows the sign of positive numbers too."""
    value, low, high = (round(100 * number, 1) + 0.0 for number in (value, low, high))
    return f"{value:{sign}.1f} [{low:{sign}.1f}, {high:{sign}.1f}]"


def unit(x: np.ndarray) -> np.ndarray:
    """Rows of float (n, D) divided by their length; a zero row stays zero."""
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), np.finfo(np.float64).tiny)


def pairs(a: np.ndarray, b: np.ndarray, people: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scores of all pairs of different images: -L2 distance of a row of a and a row of b, and whether the people agree.

    a, b: float (n, D), rows of the same n images. `a is b` gives the n(n-1)/2 pairs i < j, otherwise the n(n-1) ordered
    ones. Returns float64 and bool vectors.
    """
    x, y = a.astype(np.float64), b.astype(np.float64)
    squared = (x**2).sum(1)[:, None] + (y**2).sum(1)[None] - 2 * x @ y.T
    chosen = np.triu(np.ones(squared.shape, bool), 1) if a is b else ~np.eye(len(x), dtype=bool)
    people = np.asarray(people)
    return -np.sqrt(np.maximum(squared[chosen], 0)), (people[:, None] == people[None])[chosen]


def markdown(table: pd.DataFrame) -> str:
    """A pipe table of strings."""
    rows = [list(table.columns), ["---"] * table.shape[1], *table.astype(str).values.tolist()]
    return "".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |\n" for row in rows)


def families(models: list[str]) -> dict[str, list[tuple[str, str]]]:
    """Pairs (a, b) by the question that they answer: everything against each reference, and the five among each other."""
    five = [m for m in FIVE if m in models]
    asked = {r: [(m, r) for m in models if m != r] for r in REFERENCES if r in models}
    return {**asked, "five": [(a, b) for k, a in enumerate(five) for b in five[k + 1 :]]}


def write_table(folder: Path, name: str, table: pd.DataFrame, page: str) -> None:
    """One table as CSV and as Markdown, each replaced in one step."""
    with atomic_file(folder / f"{name}.csv") as file:
        table.to_csv(file, index=False, float_format=DIGITS, lineterminator="\n")
    with atomic_file(folder / f"{name}.md") as file:
        file.write_text(page, encoding="utf-8")
