"""From embeddings to scores, and the one error that may choose anything: how well validation people are told apart."""

import numpy as np
from numpy.typing import NDArray

from lrfr.evaluate.verification import equal_error_rate


def unit(x: NDArray) -> NDArray[np.float64]:
    """Rows (n, d) at length 1; a zero row stays zero.

    >>> unit(np.array([[3, 4], [0, 0]])).tolist()
    [[0.6, 0.8], [0.0, 0.0]]
    """
    x = x.astype(np.float64)
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), np.finfo(float).tiny)


def similarity(a: NDArray, b: NDArray) -> NDArray[np.float64]:
    """Negative L2 distances (n, m) of rows (n, d) and (m, d). By einsum, not BLAS, whose sums depend on its threads.

    >>> similarity(np.array([[0.0, 0.0]]), np.array([[3.0, 4.0], [0.0, 1.0]])).tolist()
    [[-5.0, -1.0]]
    """
    # |a - b|^2 = |a|^2 + |b|^2 - 2 a.b
    squared = (a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * np.einsum("id,jd->ij", a, b, optimize=False)
    return -np.sqrt(np.maximum(squared, 0))


def pair_error(embedding: NDArray, people: NDArray[np.int64]) -> float:
    """Equal error rate of all pairs by L2 distance: float (n, D), in the space in which that decides; int (n,).

    >>> pair_error(np.array([[0.0], [1.0], [5.0], [7.0]]), np.array([0, 0, 1, 1]))  # distances 1, 2 against 4 ... 7
    0.0
    """
    x = embedding.astype(np.float64)
    first, second = np.triu_indices(len(x), 1)
    squared = (x**2).sum(1)[:, None] + (x**2).sum(1) - 2 * x @ x.T
    return equal_error_rate(-np.maximum(squared[first, second], 0), people[first] == people[second])
