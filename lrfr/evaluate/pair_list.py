"""All bootstrap draws of an explicit pair list at once, where `resampling.DensePairs` would need too many pairs of people.

The pairs are sorted by score once, and their weights, whole numbers (pairs x draws), with them. Metrics are read off the sums
of the first weights in that order, of which only every BLOCK-th is kept. Results are those of `identity_bootstrap` with the
functions of `verification` on the same draws.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lrfr.evaluate.agreement import weighted_ranks
from lrfr.evaluate.bootstrap import Pairs, read_off

BLOCK = 64  # pairs; no influence on the numbers
STREAM = 5  # of the counter-based generator; every use of the seed has its own


class Accumulated:
    """Sums, in each draw, of the first weights of a sorted list. weights: whole numbers (pairs, draws). order: int (pairs,)."""

    def __init__(self, weights: NDArray, order: NDArray[np.int64]) -> None:
        self.weights = weights[order]
        blocks, draws = len(order) // BLOCK, weights.shape[1]
        small = np.uint16 if weights.dtype == np.uint8 else np.int64  # sums of a block; 255 BLOCK fit
        sums = self.weights[: blocks * BLOCK].reshape(blocks, BLOCK, draws).sum(1, dtype=small)
        self.blocks = np.zeros((blocks + 1, draws), dtype=np.int64)
        np.cumsum(sums, axis=0, dtype=np.int64, out=self.blocks[1:])
        self.total = self.at(len(order))

    def at(self, number: int) -> NDArray[np.int64]:
        """Sums (draws,) of the first `number` weights."""
        block = number // BLOCK
        return self.blocks[block] + self.weights[block * BLOCK : number].sum(0, dtype=np.int64)

    def per_draw(self, number: NDArray[np.int64]) -> NDArray[np.int64]:
        """The same with a number for each draw, int (draws,)."""
        draw, block = np.arange(len(number)), number // BLOCK
        if not len(self.weights):
            return self.blocks[block, draw]
        places = block * BLOCK + np.arange(BLOCK)[:, None]
        rest = self.weights[np.minimum(places, len(self.weights) - 1), draw]
        return self.blocks[block, draw] + np.where(places < number, rest, 0).sum(0, dtype=np.int64)


def weighted_verification(
    scores: NDArray[np.float64],
    same: NDArray[np.bool_],
    genuine: NDArray,
    impostor: NDArray,
    threshold: float | None,
    fars: Sequence[float],
) -> dict[str, NDArray[np.float64]]:
    """Balanced accuracy at `threshold` (unless None), EER, AUC and TAR at each FAR: (draws,) each, NaN in degenerate draws.

    scores: (pairs,), without NaN. genuine, impostor: whole numbers (..., draws), the weights of the pairs of each kind.
    """
    levels, level = np.unique(-scores, return_inverse=True)  # 0 = the most similar
    orders = [np.argsort(level[kind], kind="stable") for kind in (same, ~same)]
    # how many pairs of each kind the t most similar levels hold, t = 0 ... levels
    held = [
        np.searchsorted(level[kind][o], np.arange(len(levels) + 1))
        for kind, o in zip((same, ~same), orders, strict=True)
    ]
    sums = [Accumulated(weights, order) for weights, order in zip((genuine, impostor), orders, strict=True)]
    chosen = None if threshold is None else int(np.searchsorted(levels, -threshold, side="right"))
    with np.errstate(invalid="ignore", divide="ignore"):
        # a genuine pair wins against the impostors below it, and by half against those level with it
        own = level[same]
        numbers, place = np.unique(held[1][np.concatenate([own, own + 1])], return_inverse=True)
        above = np.array([sums[1].at(number) for number in numbers])[place].reshape(2, len(own), -1).sum(0)
        wins = sums[1].total - above / 2
        auc = np.einsum("gd,gd->d", genuine, wins) / (sums[0].total.astype(np.float64) * sums[1].total)
        tar, fmr = (
            lambda index, kind=kind: sums[kind].per_draw(held[kind][index]) / sums[kind].total for kind in range(2)
        )
        metrics = read_off(tar, fmr, len(levels), genuine.shape[1], chosen, fars, auc)
    undefined = (sums[0].total == 0) | (sums[1].total == 0)
    return {name: np.where(undefined, np.nan, values) for name, values in metrics.items()}


class SampledPairs(Pairs):
    """All genuine pairs of n photographs, and a sample of their impostor pairs.

    labels, counts: as for `Pairs`. impostors: size of the sample; all, if there are fewer. The sample depends on
    (labels, impostors, seed, stratum) alone, so every model meets the same pairs.
    """

    ranks = (1, 5)
    agreement_interval = "identity bootstrap, fixed ranks"

    def __init__(
        self, labels: NDArray[np.int64], counts: NDArray[np.int64], impostors: int, seed: int, stratum: int
    ) -> None:
        first, second = np.triu_indices(len(labels), 1)
        different = np.flatnonzero(labels[first] != labels[second])
        # raw bits, because numpy promises their stability across releases
        lot = np.random.Philox(key=[seed, (STREAM << 32) + stratum]).random_raw(len(different))
        sample = different[np.argsort(lot, kind="stable")[:impostors]]
        chosen = np.union1d(np.flatnonzero(labels[first] == labels[second]), sample)
        super().__init__(labels, first[chosen], second[chosen], counts)
        small = self.counts.T.astype(np.min_scalar_type(int(self.counts.max()) ** 2), order="C")
        a, b = labels[self.first], labels[self.second]
        self.genuine_weights = small[a[self.same]]
        self.impostor_weights = small[a[~self.same]] * small[b[~self.same]]

    def verification(
        self, scores: NDArray[np.float64], threshold: float | None, fars: Sequence[float]
    ) -> dict[str, NDArray[np.float64]]:
        """As `DensePairs.verification`."""
        return weighted_verification(scores, self.same, self.genuine_weights, self.impostor_weights, threshold, fars)

    def agreement(self, student: NDArray[np.float64], teacher: NDArray[np.float64]) -> NDArray[np.float64]:
        """Spearman's correlation (1 + draws,) of the scores (pairs,) of student and teacher.

        The ranks are those of the whole list in every draw: a draw weighs the pairs in Pearson's correlation of fixed ranks,
        which leaves out how a draw would move the ranks themselves.
        """
        middle = len(student) / 2
        x, y = (
            weighted_ranks(np.unique(scores, return_inverse=True)[1], np.ones(len(scores))) - middle
            for scores in (student, teacher)
        )
        table = np.stack([np.ones(len(x)), x, y, x * x, y * y, x * y])
        sums = np.zeros((6, len(self.counts)))  # of quarters, below 2^53: exact, in any order
        for kind, weights in ((self.same, self.genuine_weights), (~self.same, self.impostor_weights)):
            columns = table[:, kind]
            for start in range(0, len(weights), BLOCK):
                sums += columns[:, start : start + BLOCK] @ weights[start : start + BLOCK].astype(np.float64)
        n, sx, sy, sxx, syy, sxy = sums
        with np.errstate(invalid="ignore"):
            return (n * sxy - sx * sy) / np.sqrt((n * sxx - sx * sx) * (n * syy - sy * sy))
