"""One-to-one verification: are two photographs of the same person?

Throughout, `scores` is float (n,), higher = more similar; `same` is bool (n,), True for a genuine pair; `weights` is
None (all one) or non-negative (n,): 2 means the same as listing the pair twice, 0 the same as leaving it out. A pair is
accepted if its score >= threshold. Thresholds are exact: the operating points of a finite list, never a grid.

FMR = weight of accepted impostor pairs / weight of impostor pairs; FNMR = weight of rejected genuine pairs / weight of
genuine pairs; TAR = 1 - FNMR (ISO/IEC 19795-1 names; the metric names `tar`, `far` are the field's).
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

FOLDS = 10  # LFW View 2
GRID = np.arange(0, 4, 0.01)  # insightface's, of squared distances of unit vectors; see `ten_fold_accuracy`
ROUNDING = 1e-12  # relative: float weights such as 0.1 must not lose an operating point to the last bit of a sum


class FoldAccuracy(NamedTuple):
    """Ten-fold accuracy: mean and population std over folds, and each fold's, at the threshold chosen on the others."""

    mean: float
    std: float  # as the toolkit prints; it is not a standard error
    per_fold: NDArray[np.float64]  # (folds,)
    thresholds: NDArray[np.float64]  # (folds,)


class OperatingPoints(NamedTuple):
    """From "accept nothing" to "accept everything", equal scores grouped: float (t + 1,) each, t distinct scores."""

    false_match: NDArray[np.float64]  # 0 ... 1, never decreasing
    false_non_match: NDArray[np.float64]  # 1 ... 0, never increasing
    threshold: NDArray[np.float64]  # accept if score >= threshold; the first is infinite


def checked(scores: ArrayLike, same: ArrayLike, weights: ArrayLike | None = None) -> tuple[NDArray, NDArray, NDArray]:
    """Scores float64 (n,), same bool (n,), weights float64 (n,).

    Raises ValueError if lengths differ, a score is NaN, `same` is not boolean, a weight is negative, or a kind of pair
    has no weight.

    >>> checked([2, 1], [1, 0])
    (array([2., 1.]), array([ True, False]), array([1., 1.]))
    """
    scores, same = np.asarray(scores, dtype=np.float64), np.asarray(same)
    if scores.ndim != 1 or scores.shape != same.shape:
        raise ValueError(f"scores and same must be vectors of one length, not of shapes {scores.shape}, {same.shape}.")
    if not np.isin(same, (0, 1)).all():
        raise ValueError("same must hold True for genuine and False for impostor pairs, nothing else.")
    if (missing := np.isnan(scores).sum()) > 0:
        raise ValueError(f"{missing} scores are NaN; a pair without a score must be counted, as -inf, not hidden.")
    weights = np.ones(len(scores)) if weights is None else np.asarray(weights, dtype=np.float64)
    if weights.shape != scores.shape:
        raise ValueError(f"weights must have one value per score, not shape {weights.shape} for {len(scores)} scores.")
    if not (np.isfinite(weights) & (weights >= 0)).all():
        raise ValueError("weights must be finite and not negative.")
    same = same.astype(bool)
    for kind, chosen in (("genuine", same), ("impostor", ~same)):
        if not weights[chosen].any():
            raise ValueError(f"there are no {kind} pairs (or all of them weigh 0), so no error rate is defined.")
    return scores, same, weights


def operating_points(scores: ArrayLike, same: ArrayLike, weights: ArrayLike | None = None) -> OperatingPoints:
    """All error rates that a threshold can reach (for ROC and DET curves too). Raises ValueError like `checked`.

    >>> operating_points([0.9, 0.8, 0.3], [True, False, True]).false_non_match.tolist()
    [1.0, 0.5, 0.5, 0.0]
    """
    scores, same, weights = checked(scores, same, weights)
    order = np.argsort(-scores, kind="stable")
    scores, same, weights = scores[order], same[order], weights[order]
    last = np.flatnonzero(np.append(scores[1:] != scores[:-1], True))  # the last of each group of equal scores
    genuine = np.append(0.0, np.cumsum(weights * same)[last])  # sum_i w_i [s_i >= t], i over genuine pairs
    impostor = np.append(0.0, np.cumsum(weights * ~same)[last])
    return OperatingPoints(impostor / impostor[-1], 1 - genuine / genuine[-1], np.append(np.inf, scores[last]))


def equal_error_rate(scores: ArrayLike, same: ArrayLike, weights: ArrayLike | None = None) -> float:
    """Error rate in [0, 1] where FMR = FNMR, linear between the two neighbouring operating points.

    Raises ValueError like `checked`. One genuine pair in four scores below one impostor pair in four:

    >>> equal_error_rate([0.9, 0.8, 0.7, 0.4, 0.5, 0.3, 0.2, 0.1], [1, 1, 1, 1, 0, 0, 0, 0])
    0.25
    """
    points = operating_points(scores, same, weights)
    gap = points.false_non_match - points.false_match  # 1 ... -1, never increasing
    after = int(np.argmax(gap <= 0))
    step = gap[after - 1] / (gap[after - 1] - gap[after])  # FNMR - FMR = 0 between the points
    return float(points.false_match[after - 1] + step * (points.false_match[after] - points.false_match[after - 1]))


def tar_at_far(scores: ArrayLike, same: ArrayLike, far: float, weights: ArrayLike | None = None) -> float:
    """Largest TAR in [0, 1] whose empirical FAR <= far: no point is invented between two operating points.

    Raises ValueError if far is not in (0, 1), or like `checked`.

    >>> scores, same = [0.9, 0.7, 0.4, 0.6, 0.2], [1, 1, 1, 0, 0]
    >>> [round(tar_at_far(scores, same, far), 2) for far in (0.49, 0.5)]  # one of two impostors is FAR 0.5
    [0.67, 1.0]
    """
    if not 0 < far < 1:
        raise ValueError(f"far must lie between 0 and 1, not be {far}.")
    points = operating_points(scores, same, weights)
    return float(1 - points.false_non_match[points.false_match <= far * (1 + ROUNDING)][-1])


def area_under_roc(scores: ArrayLike, same: ArrayLike, weights: ArrayLike | None = None) -> float:
    """Probability in [0, 1] that a genuine pair scores above an impostor pair; a tie is half. Raises like `checked`.

    >>> area_under_roc([0.9, 0.5, 0.5, 0.1], [1, 1, 0, 0])  # three wins and a tie in four
    0.875
    """
    points = operating_points(scores, same, weights)
    tar = 1 - points.false_non_match
    return float(np.sum(np.diff(points.false_match) * (tar[1:] + tar[:-1]) / 2))


def balanced_accuracy(scores: ArrayLike, same: ArrayLike, threshold: float, weights: ArrayLike | None = None) -> float:
    """1 - (FMR + FNMR) / 2 in [0, 1] at a given threshold (accept if score >= threshold). Raises like `checked`.

    >>> balanced_accuracy([0.9, 0.2, 0.3, 0.1, 0.1], [1, 1, 0, 0, 0], 0.5)  # 1/2 of the genuine, all impostors
    0.75
    """
    scores, same, weights = checked(scores, same, weights)
    right = (scores >= threshold) == same
    return float(sum(np.sum(weights[kind] * right[kind]) / np.sum(weights[kind]) for kind in (same, ~same)) / 2)


def midpoints(values: NDArray) -> NDArray[np.float64]:
    """Halfway between neighbouring distinct values, ascending; the value itself if there is only one.

    >>> midpoints(np.array([3.0, 1.0, 3.0, 2.0])).tolist()
    [1.5, 2.5]
    """
    distinct = np.unique(values)
    return (distinct[1:] + distinct[:-1]) / 2 if len(distinct) > 1 else distinct


def balanced_threshold(scores: ArrayLike, same: ArrayLike) -> float:
    """The threshold for `balanced_accuracy` on other people: the median of the midpoints that maximise it here.

    Midpoints, because a threshold on a score would be tuned to that pair; the median, because the first of several
    maximisers is always the laxest or the strictest. Raises ValueError like `checked`.

    >>> balanced_threshold([4, 3, 1, 0], [1, 1, 0, 0])
    2.0
    """
    scores, same, _ = checked(scores, same)
    candidates, genuine, impostor = midpoints(scores), np.sort(scores[same]), np.sort(scores[~same])
    accepted = (len(genuine) - np.searchsorted(genuine, candidates)) * len(impostor)
    rejected = np.searchsorted(impostor, candidates) * len(genuine)
    right = accepted + rejected  # whole numbers, so that equally good thresholds are equal
    return float(np.median(candidates[right == right.max()]))


def correct_at(distances: NDArray, same: NDArray, thresholds: NDArray) -> NDArray[np.int64]:
    """How many of n pairs are right at each threshold if "same" is said for smaller distances.

    >>> correct_at(np.array([0.5, 1.5, 2.0]), np.array([True, False, True]), np.array([1.0, 3.0])).tolist()
    [2, 2]
    """
    genuine, impostor = np.sort(distances[same]), np.sort(distances[~same])
    return np.searchsorted(genuine, thresholds) + len(impostor) - np.searchsorted(impostor, thresholds)


def ten_fold_accuracy(
    distances: ArrayLike, same: ArrayLike, rule: str = "insightface", folds: int = 10
) -> FoldAccuracy:
    """LFW's accuracy: ten contiguous folds, each scored at the threshold that is best on the other nine.

    distances: float (n,), squared L2, n >= folds; same: bool (n,). folds: a part of View 2 may have fewer. rule:
    "insightface" = the grid 0, 0.01 ... 3.99 and its first maximiser, "same" is said for distance < threshold
    (recognition/arcface_torch/eval/verification.py), for unit vectors only, whose distances lie in 0 ... 4; "exact" =
    the median of the midpoints that maximise the accuracy, "same" is said for distance <= threshold (our choice: no
    grid, no bias towards strict thresholds), for any vectors. Raises ValueError if there are fewer pairs than folds, a
    distance is negative or too large for the grid, the rule is unknown, or like `checked`.

    >>> ten_fold_accuracy([0.5, 1.5, 1.2, 1.4], [1, 0, 1, 0], "exact", folds=2).per_fold.tolist()
    [1.0, 0.5]
    """
    distances, same, _ = checked(distances, same)
    if rule not in ("insightface", "exact"):
        raise ValueError(f"rule must be 'insightface' or 'exact', not '{rule}'.")
    if len(distances) < folds:
        raise ValueError(f"{folds} folds need at least as many pairs, not {len(distances)}.")
    if distances.min() < -1e-5:  # the slack of float32 dot products
        raise ValueError("distances must be squared, hence not negative.")
    if (grid := rule == "insightface") and distances.max() > 4 + 1e-5:
        raise ValueError(
            "the grid is for squared distances between 0 and 4, of unit vectors; take rule 'exact' for others."
        )
    accuracies, thresholds = [], []
    for fold in np.array_split(np.arange(len(distances)), folds):
        train = np.setdiff1d(np.arange(len(distances)), fold)
        candidates = GRID if grid else midpoints(distances[train])
        correct = correct_at(distances[train], same[train], candidates)
        best = candidates[correct == correct.max()]
        threshold = best[0] if grid else np.median(best)
        accepted = distances[fold] < threshold if grid else distances[fold] <= threshold
        thresholds.append(threshold)
        accuracies.append(np.mean(accepted == same[fold]))
    per_fold = np.array(accuracies)
    return FoldAccuracy(float(np.mean(per_fold)), float(np.std(per_fold)), per_fold, np.array(thresholds))
