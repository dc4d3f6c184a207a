"""Open-set identification: is the person in the gallery at all, and if so, who is it?"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lrfr.evaluate.identification import checked_search, mate_ranks
from lrfr.evaluate.verification import ROUNDING


def threshold_at_fpir(tops: NDArray, fpir: float, weights: NDArray | None = None) -> float:
    """The lowest threshold whose realised FPIR <= fpir, if scores above it are accepted.

    tops: (n,) best scores of non-mated probes, descending; weights: non-negative (n,), None for all one, not all zero.

    >>> threshold_at_fpir(np.array([0.9, 0.6, 0.5, 0.2]), 0.25)  # one false alarm in four may pass: 0.9
    0.6
    """
    total = np.arange(1, len(tops) + 1) if weights is None else np.cumsum(weights)
    allowed = fpir * total[-1] * (1 + ROUNDING)  # 0.29 * 100 is below 29
    return float(tops[np.searchsorted(total, allowed, side="right")])


def tpir_at_fpir(
    similarity: ArrayLike, probe_labels: ArrayLike, gallery_labels: ArrayLike, fpir: float, rank: int = 20
) -> float:
    """True positive identification rate in [0, 1] at a false positive identification rate.

    similarity: float (probes, gallery), higher = more similar; a row of NaN is a failed acquisition: a miss if mated,
    never a false alarm if not, and in the denominator either way. Probes whose label is not in the gallery are the
    non-mated ones. The threshold is that of `threshold_at_fpir`. A mated probe counts if its own mate's best score is
    accepted and ranks <= rank (ties pessimistic); that a stranger's score passes is no success (QMUL-SurvFace's
    definition, with the exact quantile in place of its grid). Raises ValueError if fpir is not in (0, 1), rank < 1,
    mated or non-mated probes are missing, or like `identification.checked_search`.

    >>> similarity = [[0.9, 0.2], [0.3, 0.4], [0.6, 0.1], [0.2, 0.1]]  # the last two are strangers
    >>> [tpir_at_fpir(similarity, ["ann", "bob", "?", "?"], ["ann", "bob"], fpir) for fpir in (0.1, 0.5)]
    [0.5, 1.0]
    """
    similarity, mates, failed = checked_search(similarity, probe_labels, gallery_labels)
    mated = mates.any(axis=1)
    if not (0 < fpir < 1 and rank >= 1):
        raise ValueError(f"fpir must lie between 0 and 1, and rank be at least 1: not {fpir}, {rank}.")
    for kind, chosen in (("mated", mated), ("non-mated", ~mated)):
        if not chosen.any():
            raise ValueError(f"there are no {kind} probes, so the open-set rates are not defined.")
    threshold = threshold_at_fpir(np.sort(similarity[~mated].max(axis=1))[::-1], fpir)
    own = np.where(mates, similarity, -np.inf).max(axis=1)
    found = (mate_ranks(similarity, mates) <= rank) & (own > threshold) & ~failed
    return float(np.mean(found[mated]))
