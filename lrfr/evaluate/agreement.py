"""Does the student order pairs of faces as its teacher does?"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def weighted_ranks(position: NDArray[np.int64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mid-ranks: the weight of smaller values plus half the weight of equal ones. (n,)

    position: for each value its place among the distinct values, as `np.unique(values, return_inverse=True)` gives it.
    """
    group = np.bincount(position, weights)
    return (np.cumsum(group) - group / 2)[position]


def rank_correlation(
    position_a: NDArray[np.int64], position_b: NDArray[np.int64], weights: NDArray[np.float64]
) -> float:
    """Weighted Pearson correlation of mid-ranks, -1 ... 1; arguments as in `weighted_ranks`. NaN if a side is constant."""
    ranks = [weighted_ranks(position, weights) for position in (position_a, position_b)]
    a, b = (rank - np.average(rank, weights=weights) for rank in ranks)
    with np.errstate(invalid="ignore"):
        return float(np.sum(weights * a * b) / np.sqrt(np.sum(weights * a * a) * np.sum(weights * b * b)))


def spearman(a: ArrayLike, b: ArrayLike, weights: ArrayLike | None = None) -> float:
    """Spearman's rank correlation of two similarity lists, float (n,) each, in -1 ... 1; ties get mid-ranks.

    weights: non-negative (n,); a weight of 2 means the same as listing the pair twice.

    Raises
    ------
    ValueError
        if lengths differ, a value is NaN, or a list is constant.
    """
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    weights = np.ones(a.shape) if weights is None else np.asarray(weights, dtype=np.float64)
    if a.ndim != 1 or a.shape != b.shape or a.shape != weights.shape:
        raise ValueError(
            f"both lists and the weights must be vectors of one length, not of shapes {a.shape}, {b.shape}, {weights.shape}."
        )
    if np.isnan(a).any() or np.isnan(b).any():
        raise ValueError("a similarity is NaN; leave a pair without a score out of both lists.")
    result = rank_correlation(np.unique(a, return_inverse=True)[1], np.unique(b, return_inverse=True)[1], weights)
    if np.isnan(result):
        raise ValueError("a constant list of similarities has no rank correlation.")
    return result
