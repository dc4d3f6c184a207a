"""Open-set identification: is the person in the gallery at all, and if so, who is it?"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from lrfr.evaluate.identification import checked_search, mate_ranks


def tpir_at_fpir(similarity: ArrayLike, probe_labels: ArrayLike, gallery_labels: ArrayLike, fpir: float, rank: int = 20) -> float:
    """True positive identification rate in [0, 1] at a false positive identification rate.

    similarity: float (probes, gallery), higher = more similar; a row of NaN is a failed acquisition: a miss if mated, never a
    false alarm if not, and in the denominator either way. Probes whose label is not in the gallery are the non-mated ones.
    The threshold is the lowest whose realised FPIR <= fpir: accept if score > the highest top score of a non-mated probe that
    must be rejected. A mated probe counts if its own mate's best score is accepted and ranks <= rank (ties pessimistic); that a
    stranger's score passes is no success (QMUL-SurvFace's definition, with the exact quantile in place of its grid).

    Raises
    ------
    ValueError
        if fpir is not in (0, 1), rank < 1, mated or non-mated probes are missing, or like `identification.checked_search`.
    """
    if not 0 < fpir < 1:
        raise ValueError(f"fpir must lie between 0 and 1, not be {fpir}.")
    if rank < 1:
        raise ValueError(f"rank must be at least 1, not {rank}.")
    similarity, mates, failed = checked_search(similarity, probe_labels, gallery_labels)
    mated = mates.any(axis=1)
    for kind, chosen in (("mated", mated), ("non-mated", ~mated)):
        if not chosen.any():
            raise ValueError(f"there are no {kind} probes, so the open-set rates are not defined.")
    tops = np.sort(similarity[~mated].max(axis=1))[::-1]
    allowed = int(np.floor(fpir * len(tops) + 1e-9))  # 0.29 * 100 is 28.999999999999996 in floats
    own = np.where(mates, similarity, -np.inf).max(axis=1)
    found = (own > tops[allowed]) & (mate_ranks(similarity, mates) <= rank) & ~failed
    return float(np.mean(found[mated]))
