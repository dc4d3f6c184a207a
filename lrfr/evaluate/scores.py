"""How well the validation people are told apart: the only error that may choose anything."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lrfr.evaluate.verification import equal_error_rate


def pair_error(embedding: NDArray, people: NDArray[np.int64]) -> float:
    """Equal error rate of all pairs by L2 distance: float (n, D), in the space in which that decides; int (n,)."""
    x = embedding.astype(np.float64)
    first, second = np.triu_indices(len(x), 1)
    squared = (x**2).sum(1)[:, None] + (x**2).sum(1) - 2 * x @ x.T
    return equal_error_rate(-np.maximum(squared[first, second], 0), people[first] == people[second])
