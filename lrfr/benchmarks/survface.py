"""QMUL-SurvFace (Cheng, Zhu and Gong, arXiv 1804.09691): verification, and open-set identification with templates.

Verification follows the set's own MATLAB code (test_face_verification.m): a pair is accepted if the Euclidean distance of its
unit vectors is < t, t = 0.200, 0.201 ... 2.000; TAR is interpolated linearly between the points of that ROC, the area under it
is taken by trapezoids, and the accuracy is the mean over ten folds, each at the first t that is best on the other nine.
Interpolation invents operating points below one impostor in the list, so the conservative TAR stands beside it.

Identification follows the public ports of the open-set protocol: the template of a person is the mean of the features of its
gallery images, brought to length 1. FPIR = share of unmated probes with any template above the threshold; TPIR20 = share of
mated probes whose own template is above it and ranks <= 20. The ports take the nearest of 1000 thresholds; here the threshold
is exact. Unmated probes are probes and never join the gallery.

Failed acquisitions (NaN rows): a pair with one is never accepted, a failed probe is a miss or no alarm, a failed gallery image
is left out of its template, and a person without any other has a template that never matches. All stay in the denominators.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lrfr.benchmarks.outcome import Outcome, Statistic, accuracy_of, mean_of
from lrfr.benchmarks.streaming import BLOCK, best_mates, checked_embeddings, hits, search
from lrfr.evaluate.identification import require_mates
from lrfr.evaluate.open_set import threshold_at_fpir
from lrfr.evaluate.scores import unit
from lrfr.evaluate.verification import FOLDS, FoldAccuracy, correct_at, tar_at_far

GRID = np.arange(200, 2001) / 1000  # distances of unit vectors; test_face_verification.m
RATES = (0.3, 0.1, 0.01, 0.001)  # FAR of the paper's verification table
FPIRS = (0.3, 0.2, 0.1, 0.01)  # of its identification table
RANK = 20  # TPIR20


def accepted_share(distances: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weighted share of distances (n,) below each threshold of the grid."""
    order = np.argsort(distances)
    total = np.append(0.0, np.cumsum(weights[order]))
    return total[np.searchsorted(distances[order], GRID)] / total[-1]


def grid_roc(
    distances: NDArray, same: NDArray[np.bool_], weights: NDArray
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """FAR and TAR, ascending, at the thresholds of the grid; the ends (0, 0) and (1, 1) are ours, for lists with failed pairs."""
    far, tar = (np.r_[0.0, accepted_share(distances[kind], weights[kind]), 1.0] for kind in (~same, same))
    return far, tar


def grid_area(distances: NDArray, same: NDArray[np.bool_], weights: NDArray) -> float:
    """Area under `grid_roc` by trapezoids."""
    far, tar = grid_roc(distances, same, weights)
    return float(np.sum(np.diff(far) * (tar[1:] + tar[:-1]) / 2))


def interpolated_tar(distances: NDArray, same: NDArray[np.bool_], weights: NDArray, rate: float) -> float:
    """TAR where FAR = rate, linear between the largest TAR at each FAR of the grid."""
    far, tar = grid_roc(distances, same, weights)
    last = np.append(far[1:] != far[:-1], True)
    return float(np.interp(rate, far[last], tar[last]))


def fold_accuracy(distances: NDArray[np.float64], same: NDArray[np.bool_]) -> tuple[FoldAccuracy, NDArray[np.bool_]]:
    """Ten-fold accuracy, and which pairs (n,) were right.

    distances: float (n,), inf = failed. Fold k holds the k-th tenth of the genuine and of the impostor pairs, as the MATLAB
    code pairs the two lists; with the full set 532 of each.
    """
    right, accuracies, thresholds = np.zeros(len(same), dtype=bool), [], []
    parts = [np.array_split(np.flatnonzero(kind), FOLDS) for kind in (same, ~same)]
    for fold in map(np.concatenate, zip(*parts, strict=True)):
        train = np.setdiff1d(np.arange(len(same)), fold)
        threshold = GRID[np.argmax(correct_at(distances[train], same[train], GRID))]  # the first of the best
        right[fold] = (distances[fold] < threshold) == same[fold]
        accuracies.append(np.mean(right[fold]))
        thresholds.append(threshold)
    result = FoldAccuracy(
        float(np.mean(accuracies)), float(np.std(accuracies)), np.array(accuracies), np.array(thresholds)
    )
    return result, right


def verification_of_distances(distances: ArrayLike, same: ArrayLike, fta_images: int = 0) -> Outcome:
    """Verification from distances (n,) of unit vectors, inf = failed, and bool (n,); decisions and weights go by pair.

    Metrics: tar_interpolated@far=..., tar@far=... (conservative: `verification.tar_at_far`), auc, accuracy, accuracy_std.

    Raises
    ------
    ValueError
        if lengths differ, a distance is NaN, or there are fewer than ten pairs of a kind.
    """
    distances, same = np.asarray(distances, dtype=np.float64), np.asarray(same).astype(bool)
    if distances.shape != same.shape or distances.ndim != 1 or np.isnan(distances).any():
        raise ValueError(
            "distances and same must be vectors of one length, and a failed pair has the distance inf, not NaN."
        )
    if min(same.sum(), (~same).sum()) < FOLDS:
        raise ValueError(
            f"{FOLDS} folds need at least {FOLDS} pairs of each kind, not {same.sum()} and {(~same).sum()}."
        )
    accuracy, right = fold_accuracy(distances, same)
    statistics: dict[str, Statistic] = {}
    for rate in RATES:
        statistics[f"tar_interpolated@far={rate:g}"] = lambda w, rate=rate: interpolated_tar(distances, same, w, rate)
        statistics[f"tar@far={rate:g}"] = lambda w, rate=rate: tar_at_far(-distances, same, rate, w)
    statistics["auc"] = lambda w: grid_area(distances, same, w)
    metrics = {metric: statistic(np.ones(len(same))) for metric, statistic in statistics.items()}
    metrics |= {"accuracy": accuracy.mean, "accuracy_std": accuracy.std}
    statistics["accuracy"] = accuracy_of(right, same)
    counts = {"genuine": int(same.sum()), "impostor": int((~same).sum())}
    counts |= {"fta_images": fta_images, "fta_pairs": int(np.isinf(distances).sum())}
    return Outcome(len(same), metrics, counts, {"accuracy": right}, statistics)


def verification(embeddings: ArrayLike, positive: ArrayLike, negative: ArrayLike) -> Outcome:
    """The same from embeddings, float (images, D), and the rows of the genuine and the impostor pairs, int (n, 2) each.

    Pairs are numbered with all genuine ones first. Raises ValueError also like `streaming.checked_embeddings`.
    """
    embeddings, failed = checked_embeddings(embeddings, "verification images")
    pairs = np.concatenate([np.asarray(pairs, dtype=np.int64).reshape(-1, 2) for pairs in (positive, negative)])
    first, second = (unit(embeddings[pairs[:, side]]) for side in (0, 1))
    distances = np.sqrt(np.sum((first - second) ** 2, axis=1))
    distances[failed[pairs].any(axis=1)] = np.inf
    return verification_of_distances(distances, np.arange(len(pairs)) < len(positive), int(failed.sum()))


def templates(gallery: ArrayLike, labels: ArrayLike) -> tuple[NDArray[np.float64], NDArray]:
    """Mean of each person's features (people, D), NaN if all failed, and the people's labels, sorted."""
    gallery, failed = checked_embeddings(gallery, "gallery")
    labels = np.asarray(labels)
    if labels.shape != gallery.shape[:1]:
        raise ValueError(f"the gallery {gallery.shape} needs one label per row, not labels of shape {labels.shape}.")
    people = np.unique(labels)
    order = np.argsort(labels, kind="stable")
    means = np.full((len(people), gallery.shape[1]), np.nan)
    for person, rows in enumerate(np.split(order, np.searchsorted(labels[order], people[1:]))):
        if not failed[rows].all():
            means[person] = gallery[rows[~failed[rows]]].mean(axis=0, dtype=np.float64)
    return means, people


def identification(
    gallery: ArrayLike,
    gallery_labels: ArrayLike,
    mated: ArrayLike,
    mated_labels: ArrayLike,
    unmated: ArrayLike,
    block: int = BLOCK,
) -> Outcome:
    """TPIR20 at each FPIR, the area under that curve, and closed-set rank 1 and 20 of the mated probes.

    gallery (g, D), mated (m, D), unmated (u, D): float, images and mirror images already fused (public evaluations average the
    two), NaN row = failed acquisition. Labels of one type for gallery and mated. Weights go by probe, mated ones first; decisions
    by mated probe. Metrics: tpir20@fpir=..., tpir20_auc, rank1, rank20.

    Raises
    ------
    ValueError
        if a mated probe's person has no gallery image, or like `streaming.search`.
    """
    means, people = templates(gallery, gallery_labels)
    gallery, gallery_failed = checked_embeddings(gallery, "gallery")
    mated, _ = checked_embeddings(mated, "mated probes")
    unmated, _ = checked_embeddings(unmated, "unmated probes")
    known = search(mated, means, mated_labels, people, block)
    strangers = search(unmated, means, np.full(len(unmated), len(people)), np.arange(len(people)), block)
    own, _, has_mate = best_mates(known)
    require_mates(has_mate[:, None])
    known = known._replace(failed=np.isneginf(own))
    decisions = {f"rank{k}": hits(known, k) for k in (1, RANK)}
    scores = np.where(decisions[f"rank{RANK}"], own, -np.inf)
    order = np.argsort(-strangers.top, kind="stable")
    tops = strangers.top[order]
    beaten = [
        np.searchsorted(-tops, -scores, side) for side in ("right", "left")
    ]  # the strangers at or above each score

    def rate(weights: NDArray, fpir: float) -> float:
        of_mated, of_unmated = weights[: len(scores)], weights[len(scores) :][order]
        if not (of_mated.any() and of_unmated.any()):
            return np.nan
        return mean_of(scores > threshold_at_fpir(tops, fpir, of_unmated))(of_mated)

    def area(weights: NDArray) -> float:
        of_mated, total = weights[: len(scores)], np.append(0.0, np.cumsum(weights[len(scores) :][order]))
        if not total[-1]:
            return np.nan
        won = 1 - (total[beaten[0]] + total[beaten[1]]) / (2 * total[-1])  # a tie is half
        return mean_of(np.where(np.isneginf(scores), 0.0, won))(of_mated)

    statistics: dict[str, Statistic] = {
        f"tpir{RANK}@fpir={fpir:g}": lambda w, fpir=fpir: rate(w, fpir) for fpir in FPIRS
    }
    statistics[f"tpir{RANK}_auc"] = area
    statistics |= {metric: mean_of(right, slice(len(scores))) for metric, right in decisions.items()}
    counts = {"gallery": len(gallery), "templates": len(people), "mated": len(mated), "unmated": len(unmated)}
    counts |= {"fta_gallery": int(gallery_failed.sum()), "fta_templates": int(np.isnan(means).all(axis=1).sum())}
    counts |= {"fta_mated": int(np.isnan(mated).all(axis=1).sum()), "fta_unmated": int(strangers.failed.sum())}
    metrics = {metric: statistic(np.ones(len(scores) + len(tops))) for metric, statistic in statistics.items()}
    return Outcome(len(scores) + len(tops), metrics, counts, decisions, statistics)
