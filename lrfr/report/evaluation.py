"""What the `evaluate` stage wrote, and differences between its rows, paired on the same draws of people."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from lrfr.config import Study
from lrfr.errors import UserError
from lrfr.evaluate.statistics import paired_difference
from lrfr.formats import CELL, order, pixels
from lrfr.protocol.folds import DENSE, MISPLACED, OFFICIAL, VIEW2

PROTOCOLS = (DENSE, OFFICIAL, MISPLACED, VIEW2)  # in the order of the tables
NOT_COMPARED = ("agreement",)  # describes a student, is no merit


def arranged(table: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Rows sorted by these columns: protocols, models and resolutions in the house order, everything else as text."""

    def key(column: pd.Series) -> pd.Series:
        if column.name in ("model", "method"):
            return column.map({name: rank for rank, name in enumerate(order(column))})
        return column.map({"protocol": PROTOCOLS.index, "resolution": pixels}.get(column.name, str))

    return table.sort_values(by, key=key, kind="stable").reset_index(drop=True)


class Evaluation(NamedTuple):
    """Tables of the `evaluate` stage, see `lrfr.protocol.study`.

    draws: values with intervals; its first rows number those of `values`, float (rows, draws). points: every single
    measurement. counts: people and comparisons of each fold.
    """

    level: float
    draws: pd.DataFrame
    values: np.ndarray
    points: pd.DataFrame
    counts: pd.DataFrame

    @classmethod
    def read(cls, study: Study) -> Evaluation:
        folder, text = study.runs / "evaluation", {"resolution": str, "folds": str}
        try:
            draws, points = (pd.read_csv(folder / f"{name}.csv", dtype=text) for name in ("draws", "points"))
            values, counts = np.load(folder / "draws.npy"), pd.read_csv(folder / "counts.csv")
        except FileNotFoundError as error:
            raise UserError(f"{error.filename}: not there; run `dvc repro` again.") from None
        return cls(study.evaluate.level, draws, values, points, counts)

    def freedom(self, folds: str) -> int:
        """People minus strata, of the folds named as in draws.csv."""
        rows = self.counts[(self.counts.protocol == DENSE) & (self.counts.searches == 0)]
        return int((rows[rows.fold.isin([int(k) for k in folds.split()])].identities - 1).sum())

    def own(self, kind: str = "model") -> pd.DataFrame:
        """Rows of draws.csv in which each model is averaged over all its folds; their index is that of draws.npy."""
        rows = self.draws[self.draws.kind == kind].copy()
        rows["n_folds"] = rows.folds.str.split().str.len()
        return rows[rows.n_folds == rows.groupby(["protocol", "model"]).n_folds.transform("max")]

    def comparable(self) -> pd.DataFrame:
        """Rows of draws.csv that can be compared with others: of protocol `dense`, of measures that are a merit."""
        return self.draws[(self.draws.protocol == DENSE) & ~self.draws.metric.isin(NOT_COMPARED)]

    def difference(self, a, b) -> tuple[float, float, float, float]:
        """Value of row a minus that of row b of the same folds (named tuples of draws.csv): point, low, high, p."""
        return paired_difference(
            a.value, b.value, self.values[a.Index], self.values[b.Index], self.level, self.freedom(a.folds)
        )


def by_cell(rows: pd.DataFrame) -> dict[tuple[str, ...], tuple]:
    """(model, folds, pairing, resolution, metric) -> its row of draws.csv."""
    return {(row.model, row.folds, *cell_of(row)): row for row in rows.itertuples()}


def cell_of(row) -> tuple[str, ...]:
    """Pairing, resolution and metric of a row."""
    return tuple(getattr(row, column) for column in CELL)
