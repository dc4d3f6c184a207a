"""All bootstrap draws of a pair list at once, some hundred times faster than `identity_bootstrap` on the same draws.

The weight of a pair in a draw is w_a for genuine, w_a * w_b for impostor pairs. The pairs are sorted by score once, and
a rate is a sum of the first weights in that order: of whole numbers, hence exact, in any order and on any threads.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from lrfr.evaluate.identification import mate_ranks
from lrfr.evaluate.statistics import drawn_people
from lrfr.evaluate.verification import ROUNDING
from lrfr.streams import philox

CHUNK = 128  # draws at a time; no influence on the numbers
LINEARISED, FIXED_RANKS = "identity bootstrap, linearised", "identity bootstrap, fixed ranks"  # of `agreement`


def _first_true(condition: Callable[[NDArray], NDArray], last: int, size: int) -> NDArray[np.int64]:
    """Per draw, the smallest index in 1 ... last where a condition that never turns false again is true; false at 0."""
    low, high = np.zeros(size, dtype=np.int64), np.full(size, last)
    while (high - low > 1).any():
        middle = (low + high) // 2
        true = condition(middle)
        low, high = np.where(true, low, middle), np.where(true, middle, high)
    return high


def weighted_verification(
    scores: NDArray[np.float64],
    same: NDArray[np.bool_],
    weights: NDArray,
    threshold: float | None,
    fars: Sequence[float],
) -> dict[str, NDArray[np.float64]]:
    """Balanced accuracy at `threshold` (unless None), EER, AUC and TAR at each FAR: (draws,) each.

    scores: (pairs,), without NaN. same: bool (pairs,). weights: whole numbers (draws, pairs). The rules are those of
    `verification`. A draw without genuine or without impostor pairs is NaN.

    >>> weights = np.array([[1, 1, 1, 1], [1, 0, 1, 2]])  # the second draw lacks the genuine pair that fails
    >>> weighted_verification(np.array([0.9, 0.4, 0.5, 0.1]), np.array([True, True, False, False]), weights, None, ())
    {'eer': array([0.5, 0. ]), 'auc': array([0.75, 1.  ])}
    """
    levels, level = np.unique(-scores, return_inverse=True)  # 0 = the most similar
    chosen = None if threshold is None else int(np.searchsorted(levels, -threshold, side="right"))
    orders = [np.flatnonzero(kind)[np.argsort(level[kind], kind="stable")] for kind in (same, ~same)]
    # how many pairs of either kind the t most similar levels hold, t = 0 ... levels
    held = [np.searchsorted(level[order], np.arange(len(levels) + 1)) for order in orders]
    exact = np.promote_types(np.uint32, np.min_scalar_type(2 * weights.shape[1] * int(weights.max())))  # for two sums
    tables, parts = [np.zeros((CHUNK, len(order) + 1), exact) for order in orders], []
    for start in range(0, len(weights), CHUNK):
        some = weights[start : start + CHUNK]
        for table, order in zip(tables, orders, strict=True):  # table[d, n]: the sum of the n first weights in draw d
            np.cumsum(np.take(some, order, axis=1), axis=1, dtype=exact, out=table[: len(some), 1:])
        own = some[:, orders[0]], level[orders[0]]
        with np.errstate(invalid="ignore", divide="ignore"):
            parts.append(_metrics(*own, [table[: len(some)] for table in tables], held, chosen, fars))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _metrics(
    genuine: NDArray, own: NDArray, sums: list[NDArray], held: list[NDArray], chosen: int | None, fars: Sequence[float]
) -> dict[str, NDArray[np.float64]]:
    """`weighted_verification` of a few draws; genuine, own: weights and levels of the genuine pairs."""
    draws, total, metrics = np.arange(len(genuine)), [table[:, -1].astype(np.float64) for table in sums], {}
    # TAR(t) = sum_i w_i [s_i >= t] / sum_i w_i over genuine pairs i, in each draw; FMR over impostor pairs
    tar, fmr = (lambda index, kind=kind: sums[kind][draws, held[kind][index]] / total[kind] for kind in (0, 1))
    last = len(held[0]) - 1
    if chosen is not None:
        at = np.full(len(draws), chosen)
        metrics["accuracy"] = (tar(at) + 1 - fmr(at)) / 2
    after = _first_true(lambda index: fmr(index) >= 1 - tar(index), last, len(draws))
    gaps = [1 - tar(index) - fmr(index) for index in (after - 1, after)]  # FNMR - FMR = 0 between these
    metrics["eer"] = fmr(after - 1) + gaps[0] / (gaps[0] - gaps[1]) * (fmr(after) - fmr(after - 1))
    # AUC = sum_g w_g (W - sum_{s_i > s_g} w_i - sum_{s_i = s_g} w_i / 2) / (sum_g w_g W), W = sum_i w_i of impostors i
    below = total[1][:, None] - (sums[1][:, held[1][own]] + sums[1][:, held[1][own + 1]]) / 2
    metrics["auc"] = np.einsum("dg,dg->d", genuine, below) / (total[0] * total[1])
    for far in fars:
        limit = far * (1 + ROUNDING)
        above = _first_true(lambda index: fmr(index) > limit, last, len(draws))  # noqa: B023 - called at once
        metrics[f"tar@far={far:g}"] = tar(above - 1)
    return {name: np.where(total[0] * total[1] == 0, np.nan, values) for name, values in metrics.items()}


def _mid_ranks(position: NDArray[np.int64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """The weight of smaller values and half that of equal ones (n,); position: each value's place in np.unique."""
    group = np.bincount(position, weights)
    return (np.cumsum(group) - group / 2)[position]


def _rank_correlation(position_a: NDArray, position_b: NDArray, weights: NDArray) -> float:
    """Spearman's correlation, -1 ... 1: Pearson's, weighted, of mid-ranks. NaN if a side is constant."""
    ranks = [_mid_ranks(position, weights) for position in (position_a, position_b)]
    a, b = (rank - np.average(rank, weights=weights) for rank in ranks)
    with np.errstate(invalid="ignore"):
        return float(np.sum(weights * a * b) / np.sqrt(np.sum(weights * a * a) * np.sum(weights * b * b)))


class Pairs:
    """Pairs of n photographs, and how often each person occurs in each draw.

    All genuine pairs, and all impostor pairs or an even sample of them. A first draw in which everybody counts once is
    put in front: row 0 of every result is that of the data themselves.

    labels: int (n,), person 0 ... p-1 of each photograph, none missing. counts: (draws, p) from `identity_counts`.
    impostors: size of the sample, which depends on (labels, impostors, seed, stratum) alone; None for all pairs.
    Attributes: first, second: int (pairs,), first < second; same: bool (pairs,); weights: (1 + draws, pairs).

    >>> pairs = Pairs(np.array([0, 0, 1, 1]), counts=np.array([[1, 1], [2, 0]]))
    >>> pairs.weights.tolist()  # a genuine pair of person 0 first; in the last draw person 1 is missing
    [[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1], [2, 0, 0, 0, 0, 0]]
    """

    def __init__(
        self, labels: NDArray[np.int64], counts: NDArray, impostors: int | None = None, seed: int = 0, stratum: int = 0
    ) -> None:
        first, second = np.triu_indices(len(labels), 1)
        different = np.flatnonzero(labels[first] != labels[second])
        lot = philox("impostors", seed, stratum).random_raw(len(different))  # raw bits: stable across releases of numpy
        sample = different[np.argsort(lot, kind="stable")[:impostors]]
        chosen = np.union1d(np.flatnonzero(labels[first] == labels[second]), sample)
        self.labels, self.first, self.second = labels, first[chosen], second[chosen]
        self.sampled = impostors is not None
        self.counts = np.vstack([np.ones(counts.shape[1]), counts])
        small = self.counts.astype(np.min_scalar_type(int(self.counts.max()) ** 2))
        a, b = labels[self.first], labels[self.second]
        self.same = a == b
        self.weights = np.take(small, a, axis=1)  # C order, unlike small[:, a]
        self.weights[:, ~self.same] *= small[:, b[~self.same]]

    def scores(self, similarity: NDArray) -> NDArray:
        """(n, n) similarities of first and second photographs -> (pairs,)."""
        return similarity[self.first, self.second]

    def verification(self, scores: NDArray, threshold: float | None, fars: Sequence[float]) -> dict[str, NDArray]:
        """`weighted_verification` of scores (pairs,): (1 + draws,) by metric."""
        return weighted_verification(scores, self.same, self.weights, threshold, fars)

    def identification(self, similarity: NDArray[np.float64], rank: int = 1) -> NDArray[np.float64]:
        """Rank-`rank` rate (1 + draws,) with one gallery photograph per person, averaged over the galleries.

        similarity: (n, n), gallery photographs in rows, probes in columns. In the g-th search the g-th photograph of
        everybody is the gallery and all others are probes. There are as many galleries as everybody has photographs.
        Draws weigh the people searched for; the gallery stays.
        """
        people = self.counts.shape[1]
        photographs = [np.flatnonzero(self.labels == person) for person in range(people)]
        hits, searches = np.zeros((2, people))
        for g in range(min(map(len, photographs))):
            gallery = np.array([images[g] for images in photographs])
            probes = np.setdiff1d(np.arange(len(self.labels)), gallery)
            mates = self.labels[probes][:, None] == self.labels[gallery]
            hit = mate_ranks(similarity[np.ix_(gallery, probes)].T, mates) <= rank
            hits += np.bincount(self.labels[probes], hit, people)
            searches += np.bincount(self.labels[probes], minlength=people)
        with np.errstate(invalid="ignore"):
            return (self.counts @ hits) / (self.counts @ searches)

    def agreement(self, student: NDArray[np.float64], teacher: NDArray[np.float64]) -> NDArray[np.float64]:
        """Spearman's correlation (1 + draws,) of the scores (pairs,) of student and teacher: are pairs ordered alike?

        Ranks would have to be found anew in every draw. Of all pairs of a few people the draws are linearised: they add
        up influences of leaving each person out (Davison and Hinkley 1997, section 2.7). A sample has too many people
        for that, so there a draw weighs fixed ranks.
        """
        positions = np.unique(student, return_inverse=True)[1], np.unique(teacher, return_inverse=True)[1]
        if self.sampled:
            return self._fixed_ranks(*positions)
        people, a, b = self.counts.shape[1], self.labels[self.first], self.labels[self.second]
        point = _rank_correlation(*positions, np.ones(len(a)))
        if people < 3:  # leaving one of two people out leaves no impostor pair
            return np.append(point, np.full(len(self.counts) - 1, np.nan))
        left = (((a != person) & (b != person)).astype(float) for person in range(people))
        without = np.array([_rank_correlation(*positions, weights) for weights in left])
        influence = (people - 1) * (without.mean() - without)
        return np.append(point, point + self.counts[1:] @ influence / drawn_people(people))

    def _fixed_ranks(self, *positions: NDArray[np.int64]) -> NDArray[np.float64]:
        """Pearson's correlation of the whole list's ranks, weighted by the draw, which would move the ranks too."""
        x, y = (_mid_ranks(position, np.ones(len(position))) - len(position) / 2 for position in positions)
        table = np.stack([np.ones(len(x)), x, y, x * x, y * y, x * y])
        chunks = (self.weights[start : start + CHUNK] for start in range(0, len(self.weights), CHUNK))
        # sums of quarters, below 2^53: exact, in any order
        n, sx, sy, sxx, syy, sxy = np.concatenate([chunk.astype(np.float64) @ table.T for chunk in chunks]).T
        with np.errstate(invalid="ignore"):
            return (n * sxy - sx * sy) / np.sqrt((n * sxx - sx * sx) * (n * syy - sy * sy))
