"""All bootstrap draws of a dense pair list at once.

The weight of a pair in a draw depends only on who is in it: w_a for genuine, w_a * w_b for impostor pairs. So the weight above
a threshold is a product of (draws x groups) weights and (groups) counts, where a group is a person or a pair of people; nothing
of size draws x pairs is ever formed. The results are those of `identity_bootstrap` with the functions of `verification` on the
same draws, some hundred times faster. Sums are of whole numbers, hence exact and independent of threads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from lrfr.evaluate.agreement import rank_correlation
from lrfr.evaluate.identification import mate_ranks
from lrfr.evaluate.statistics import drawn_people
from lrfr.evaluate.verification import ROUNDING


def first_true(condition: Callable[[NDArray[np.int64]], NDArray[np.bool_]], last: int, size: int) -> NDArray[np.int64]:
    """Per draw, the smallest index in 1 ... last where a condition that never turns false again is true; false at 0."""
    low, high = np.zeros(size, dtype=np.int64), np.full(size, last)
    while (high - low > 1).any():
        middle = (low + high) // 2
        true = condition(middle)
        low, high = np.where(true, low, middle), np.where(true, middle, high)
    return high


def read_off(
    tar: Callable[[NDArray[np.int64]], NDArray],
    fmr: Callable[[NDArray[np.int64]], NDArray],
    last: int,
    size: int,
    chosen: int | None,
    fars: Sequence[float],
    auc: NDArray[np.float64],
) -> dict[str, NDArray[np.float64]]:
    """Metrics (size,) by name, from the rates in each draw if the 0 ... last most similar levels are accepted.

    tar, fmr: levels accepted in each draw (size,) -> the rates there. chosen: levels accepted at the threshold of the accuracy,
    None for no accuracy. auc: joins the others in its place.
    """
    after = first_true(lambda index: fmr(index) >= 1 - tar(index), last, size)
    before = after - 1
    gaps = [1 - tar(index) - fmr(index) for index in (before, after)]
    metrics = {}
    if chosen is not None:
        at = np.full(size, chosen)
        metrics["accuracy"] = (tar(at) + 1 - fmr(at)) / 2
    metrics["eer"] = fmr(before) + gaps[0] / (gaps[0] - gaps[1]) * (fmr(after) - fmr(before))
    metrics["auc"] = auc
    for far in fars:
        allowed = first_true(lambda index, far=far: fmr(index) > far * (1 + ROUNDING), last, size) - 1
        metrics[f"tar@far={far:g}"] = tar(allowed)
    return metrics


class Pairs:
    """Pairs of n photographs, and how often each person occurs in each draw; the kinds of pair lists add the pairs' weights.

    labels: int (n,), person 0 ... p-1 of each photograph, none missing. first, second: int (pairs,), first < second. counts:
    (draws, p) from `identity_counts`. A first draw in which everybody counts once is put in front, so that row 0 of every
    result is the statistic of the data themselves.
    """

    ranks: tuple[int, ...]  # of identification
    agreement_interval: str  # by the name that tables print

    def __init__(
        self, labels: NDArray[np.int64], first: NDArray[np.int64], second: NDArray[np.int64], counts: NDArray
    ) -> None:
        self.labels, self.first, self.second = labels, first, second
        self.counts = np.vstack([np.ones(counts.shape[1]), counts])
        self.same = labels[first] == labels[second]

    def scores(self, similarity: NDArray) -> NDArray:
        """(n, n) similarities of first and second photographs -> (pairs,)."""
        return similarity[self.first, self.second]

    def identification(self, similarity: NDArray[np.float64], rank: int = 1) -> NDArray[np.float64]:
        """Rank-`rank` rate (1 + draws,) with one gallery photograph per person, averaged over the galleries.

        similarity: (n, n), gallery photographs in rows, probes in columns. In the g-th of the searches the g-th photograph of
        everybody is the gallery and all other photographs are probes: nobody is searched among photographs that include the
        probe itself. There are as many galleries as everybody has photographs. Draws weigh the people searched for; the
        gallery stays.
        """
        people = self.counts.shape[1]
        photographs = [np.flatnonzero(self.labels == person) for person in range(people)]
        hits, searches = np.zeros(people), np.zeros(people)
        for g in range(min(map(len, photographs))):
            gallery = np.array([images[g] for images in photographs])
            probes = np.setdiff1d(np.arange(len(self.labels)), gallery)
            mates = self.labels[probes][:, None] == self.labels[gallery]
            hit = mate_ranks(similarity[np.ix_(gallery, probes)].T, mates) <= rank
            hits += np.bincount(self.labels[probes], hit, people)
            searches += np.bincount(self.labels[probes], minlength=people)
        with np.errstate(invalid="ignore"):
            return (self.counts @ hits) / (self.counts @ searches)


class DensePairs(Pairs):
    """All pairs first < second of n photographs."""

    ranks = (1,)  # among ten people rank 5 says little
    agreement_interval = "identity bootstrap, linearised"

    def __init__(self, labels: NDArray[np.int64], counts: NDArray[np.int64]) -> None:
        super().__init__(labels, *np.triu_indices(len(labels), 1), counts)
        people = counts.shape[1]
        a, b = np.sort([labels[self.first], labels[self.second]], axis=0)
        one, other = np.triu_indices(people, 1)
        number = np.zeros((people, people), dtype=np.int64)
        number[one, other] = np.arange(len(one))
        self.genuine_group, self.impostor_group = a[self.same], number[a, b][~self.same]
        self.genuine_weights, self.impostor_weights = self.counts, self.counts[:, one] * self.counts[:, other]

    def verification(
        self, scores: NDArray[np.float64], threshold: float | None, fars: Sequence[float]
    ) -> dict[str, NDArray[np.float64]]:
        """Balanced accuracy at `threshold` (unless None), EER, AUC and TAR at each FAR: (1 + draws,), NaN in degenerate draws.

        scores: (pairs,), without NaN, in the order of `self.first`, `self.second`.
        """
        levels, level = np.unique(-scores, return_inverse=True)  # 0 = the most similar
        genuine, impostor = (
            self._accepted(level[kind], group, weights.shape[1], len(levels))
            for kind, group, weights in (
                (self.same, self.genuine_group, self.genuine_weights),
                (~self.same, self.impostor_group, self.impostor_weights),
            )
        )
        with np.errstate(invalid="ignore"):

            def tar(index: NDArray[np.int64]) -> NDArray[np.float64]:
                return np.einsum("dg,dg->d", self.genuine_weights, genuine[index]) / (
                    self.genuine_weights @ genuine[-1]
                )

            def fmr(index: NDArray[np.int64]) -> NDArray[np.float64]:
                return np.einsum("dg,dg->d", self.impostor_weights, impostor[index]) / (
                    self.impostor_weights @ impostor[-1]
                )

            # for each group of impostors and each person, how often the genuine pair wins, a tie being half
            wins = impostor[-1] - (impostor[1:] + impostor[:-1])[level[self.same]] / 2
            by_person = np.zeros((self.counts.shape[1], wins.shape[1]))
            np.add.at(by_person, self.genuine_group, wins)
            total = (self.genuine_weights @ genuine[-1]) * (self.impostor_weights @ impostor[-1])
            auc = np.einsum("dg,dg->d", self.genuine_weights @ by_person, self.impostor_weights) / total
            chosen = None if threshold is None else int(np.searchsorted(levels, -threshold, side="right"))
            return read_off(tar, fmr, len(levels), len(self.counts), chosen, fars, auc)

    @staticmethod
    def _accepted(level: NDArray, group: NDArray, groups: int, levels: int) -> NDArray[np.float64]:
        """Pairs of each group that are accepted with the t most similar levels: (levels + 1, groups), row 0 is zero."""
        table = np.bincount((level + 1) * groups + group, minlength=(levels + 1) * groups).reshape(levels + 1, groups)
        return np.cumsum(table, axis=0, dtype=np.float64)

    def agreement(self, student: NDArray[np.float64], teacher: NDArray[np.float64]) -> NDArray[np.float64]:
        """Spearman's correlation (1 + draws,) of the scores (pairs,) of student and teacher over all pairs.

        Ranks would have to be found anew in every draw, so the draws are linearised: each person's influence is taken from
        leaving the person out (jackknife), and a draw adds up the influences (Davison and Hinkley 1997, section 2.7).
        """
        people = self.counts.shape[1]
        positions = [np.unique(scores, return_inverse=True)[1] for scores in (student, teacher)]
        a, b = self.labels[self.first], self.labels[self.second]
        point = rank_correlation(*positions, np.ones(len(a)))
        if people < 3:  # leaving one of two people out leaves no impostor pair
            return np.append(point, np.full(len(self.counts) - 1, np.nan))
        without = np.array(
            [rank_correlation(*positions, ((a != person) & (b != person)).astype(float)) for person in range(people)]
        )
        influence = (people - 1) * (without.mean() - without)
        return np.append(point, point + self.counts[1:] @ influence / drawn_people(people))
