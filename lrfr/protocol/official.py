"""The source's own pair list: LFW's View 2, ten folds of 300 genuine and 300 impostor pairs that share no person.

A study fold holds some of the official folds. Accuracy is the mean over them, each at the threshold that is best on the
others (`ten_fold_accuracy`, rule "exact"); thresholds stay fixed in the draws. A person has 1.4 pairs on average:
intervals are the dyadic multiplier's (`statistics.dyadic_interval`), and nothing is compared.
"""

from __future__ import annotations

from itertools import product
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lrfr.errors import UserError
from lrfr.evaluate.bootstrap import weighted_verification
from lrfr.evaluate.statistics import SPREAD, dyadic_signs
from lrfr.evaluate.verification import ten_fold_accuracy


class OfficialPairs(NamedTuple):
    """Pairs (p,) in the order of their official folds 0 ... k-1, all of one size."""

    first: NDArray[np.int64]  # rows of an array of photographs
    second: NDArray[np.int64]
    same: NDArray[np.bool_]
    fold: NDArray[np.int64]
    people: int  # how many the pairs show
    weights: NDArray[np.uint8]  # whole numbers (1 + 2 draws, p): everybody once, then by person, then by pair


def official_pairs(
    table: pd.DataFrame, images: NDArray[np.int64], people: NDArray[np.int64], draws: int, seed: int, stratum: int
) -> OfficialPairs:
    """Pairs of a part of official.csv.

    images: int (n,), ascending, the photographs of the rows; people: int (n,), their people. The draws depend on (seed,
    stratum, the pairs) alone. UserError if a photograph of a pair is not among the rows, or `same` contradicts people.
    """
    sides = table[["image_a", "image_b"]].to_numpy()
    rows = np.minimum(np.searchsorted(images, sides), len(images) - 1)
    same = table.same.to_numpy().astype(bool)
    if (missing := sides[images[rows] != sides]).size:
        raise UserError(f"official.csv: photograph {missing[0]} is not among the fold's test; run `dvc repro` again.")
    if not np.array_equal(people[rows[:, 0]] == people[rows[:, 1]], same):
        raise UserError("official.csv: `same` contradicts the people of index.csv; run `dvc repro` again.")
    a, b = np.unique(people[rows], return_inverse=True)[1].reshape(rows.shape).T
    count = int(max(a.max(), b.max())) + 1
    by_person, by_pair = dyadic_signs(count, len(same), draws, seed, stratum)
    scale = round(1 / SPREAD)  # whole numbers: rates do not depend on the unit of the weights
    weights = np.full((1 + 2 * draws, len(same)), scale, dtype=np.int8)
    weights[1 : 1 + draws] += by_person[:, a] + by_person[:, b] * ~same
    weights[1 + draws :] += by_pair * ~same
    fold = np.unique(table.official_fold, return_inverse=True)[1]
    return OfficialPairs(rows[:, 0], rows[:, 1], same, fold, count, weights.astype(np.uint8))


def official_accuracy(pairs: OfficialPairs, distances: NDArray[np.float64]) -> NDArray[np.float64]:
    """Accuracy (1 + 2 draws,) of squared distances (p,).

    The list fixes how many pairs of each kind a fold has. So a draw weighs the pairs within fold and kind, and the
    rates are averaged by these numbers.
    """
    folds = int(pairs.fold.max()) + 1
    thresholds = ten_fold_accuracy(distances, pairs.same, "exact", folds).thresholds
    right = (distances <= thresholds[pairs.fold]) == pairs.same
    total = np.zeros(len(pairs.weights))
    for fold, kind in product(range(folds), (False, True)):
        members = np.flatnonzero((pairs.fold == fold) & (pairs.same == kind))
        weights = pairs.weights[:, members].astype(np.float64)
        if len(members):
            with np.errstate(invalid="ignore"):  # sum_i w_i right_i / sum_i w_i, as often as there are pairs
                total += len(members) * (weights @ right[members]) / weights.sum(1)
    return total / len(distances)


def official_metrics(pairs: OfficialPairs, gallery: NDArray, probes: NDArray) -> dict[str, NDArray[np.float64]]:
    """Accuracy, EER and AUC (1 + 2 draws,); gallery, probes: float (n, d), rows of the first and second photographs."""
    distances = ((gallery[pairs.first] - probes[pairs.second]) ** 2).sum(1)
    rates = weighted_verification(-distances, pairs.same, pairs.weights, None, ())
    return {"accuracy": official_accuracy(pairs, distances)} | rates
