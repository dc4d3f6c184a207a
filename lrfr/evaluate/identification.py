"""Closed-set identification: whose face is it, if the person is known to be in the gallery?

`similarity` is float (probes, gallery), higher = more similar; labels are vectors of person labels (a distractor has
any label that no probe has). A row that is NaN throughout is a probe whose face could not be acquired: it stays in the
denominator and counts as a miss. A gallery image that failed must be given -inf, so that it never matches.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def checked_search(similarity: ArrayLike, probe_labels: ArrayLike, gallery_labels: ArrayLike) -> tuple[NDArray, ...]:
    """Similarity float64 (p, g) with failed rows as -inf, mates bool (p, g), failed bool (p,).

    Raises ValueError if shapes do not fit, there are no probes or no gallery, or a row is NaN in part.

    >>> checked_search([[0.9, 0.2], [np.nan, np.nan]], ["ann", "bob"], ["ann", "bob"])[2].tolist()
    [False, True]
    """
    similarity = np.asarray(similarity, dtype=np.float64)
    probe_labels, gallery_labels = np.asarray(probe_labels), np.asarray(gallery_labels)
    shape = (probe_labels.size, gallery_labels.size)
    if similarity.ndim != 2 or similarity.shape != shape or not similarity.size:
        raise ValueError(f"similarity must be (probes, gallery) = {shape} and not empty, not {similarity.shape}.")
    nan = np.isnan(similarity)
    failed = nan.all(axis=1)
    if (broken := nan.any(axis=1) & ~failed).any():
        raise ValueError(f"row {np.argmax(broken)} of similarity is NaN in part; a failed probe is NaN throughout.")
    return np.where(failed[:, None], -np.inf, similarity), probe_labels[:, None] == gallery_labels[None, :], failed


def require_mates(mates: NDArray) -> None:
    """Raise ValueError if a probe (row) has no mate in the gallery.

    >>> require_mates(np.array([[True, False], [False, False]]))
    Traceback (most recent call last):
    ValueError: probe 1 has no mate in the gallery; closed-set identification needs one.
    """
    if not (mated := mates.any(axis=1)).all():
        raise ValueError(f"probe {np.argmin(mated)} has no mate in the gallery; closed-set identification needs one.")


def mate_ranks(similarity: NDArray, mates: NDArray) -> NDArray[np.int64]:
    """Rank of each probe's best mate, 1 = first; pessimistic: it stands behind every non-mate of equal similarity. (p,)

    >>> mate_ranks(np.array([[0.9, 0.5], [0.7, 0.7]]), np.array([[True, False], [True, False]])).tolist()
    [1, 2]
    """
    best = np.where(mates, similarity, -np.inf).max(axis=1)
    return 1 + np.sum(~mates & (similarity >= best[:, None]), axis=1)


def rank_k(similarity: ArrayLike, probe_labels: ArrayLike, gallery_labels: ArrayLike, k: int) -> float:
    """Share in [0, 1] of probes with a mate among the k most similar gallery images (CMC at k); ties are pessimistic.

    Raises ValueError if k < 1, a probe has no mate in the gallery, or like `checked_search`.

    >>> similarity = [[0.9, 0.2, 0.1], [0.8, 0.7, 0.1]]  # the second probe looks more like ann than like bob
    >>> [rank_k(similarity, ["ann", "bob"], ["ann", "bob", "eve"], k) for k in (1, 2)]
    [0.5, 1.0]
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, not {k}.")
    similarity, mates, failed = checked_search(similarity, probe_labels, gallery_labels)
    require_mates(mates)
    return float(np.mean((mate_ranks(similarity, mates) <= k) & ~failed))


def _average_precision(similarity: NDArray, mates: NDArray, rule: str) -> float:
    """Average precision of one probe (g,); equal similarities are ranked pessimistically, non-mates first."""
    hits = np.flatnonzero(mates[np.lexsort((mates, -similarity))])  # 0-based positions
    found = np.arange(len(hits))
    precision = (found + 1) / (hits + 1)  # of the ranks up to each hit, share that are hits
    if rule == "standard":
        return float(np.mean(precision))
    before = np.where(hits > 0, found / np.maximum(hits, 1), 1.0)  # precision one position earlier, 1 at the start
    return float(np.mean((before + precision) / 2))


def mean_average_precision(
    similarity: ArrayLike, probe_labels: ArrayLike, gallery_labels: ArrayLike, rule: str = "trapezoid"
) -> float:
    """Mean over probes of the average precision, in [0, 1]; a NaN row counts 0; ties are pessimistic.

    rule: "trapezoid" = TinyFace's official code (compute_AP of Market-1501, after the Oxford buildings code): the area
    under the precision-recall curve with the precision before each hit averaged in; "standard" = the mean precision at
    the hits. Raises ValueError if the rule is unknown, a probe has no mate in the gallery, or like `checked_search`.

    >>> [mean_average_precision([[0.9, 0.8, 0.7]], [2], [1, 2, 3], rule) for rule in ("standard", "trapezoid")]
    [0.5, 0.25]
    """
    if rule not in ("trapezoid", "standard"):
        raise ValueError(f"rule must be 'trapezoid' or 'standard', not '{rule}'.")
    similarity, mates, failed = checked_search(similarity, probe_labels, gallery_labels)
    require_mates(mates)
    found = [_average_precision(row, mate, rule) for row, mate in zip(similarity, mates, strict=True)]
    return float(np.mean(np.where(failed, 0.0, found)))
