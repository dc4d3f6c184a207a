"""QMUL-SurvFace: faces from surveillance cameras (about 24 x 20 pixels), verification and open-set search.

Cheng, Zhu and Gong, "Surveillance face recognition challenge", arXiv 1804.09691, 2018. Research use; a part of the
videos from which it was cut was withdrawn by their owners later. The files:

    training_set/<person>/<person>_cam<c>_<n>.jpg
    Face_Identification_Test_Set/{gallery,mated_probe,unmated_probe}/*.jpg
    Face_Identification_Test_Set/{gallery,mated_probe}_img_ID_pairs.mat     or in Face_Identification_Evaluation
    Face_Verification_Test_Set/{verification_images/*.jpg,positive_pairs_names.mat,negative_pairs_names.mat}

Verification follows the set's own MATLAB code (test_face_verification.m): a pair is accepted if the Euclidean distance
of its unit vectors is < t, t = 0.200, 0.201 ... 2.000; TAR is interpolated linearly between the points of that ROC, the
area under it is taken by trapezoids, and the accuracy is the mean over ten folds, each at the first t that is best on
the other nine. Interpolation invents operating points below one impostor in the list, so the conservative TAR is added.

Identification follows the public ports of the open-set protocol: the template of a person is the mean of the features
of its gallery images, brought to length 1. FPIR = share of unmated probes with any template above the threshold; TPIR20
= share of mated probes whose own template is above it and ranks <= 20. The ports take the nearest of 1000 thresholds;
here the threshold is exact. Unmated probes are probes and never join the gallery.

Failed acquisitions (NaN rows): a pair with one is never accepted, a failed probe is a miss or no alarm, a failed
gallery image is left out of its template, and a person without any other has a template that never matches. All count.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lrfr.benchmarks.outcomes import Opened, Outcome, Protocol, accuracy_of, draw_pairs, draw_probes, images_of, mean_of
from lrfr.benchmarks.search import best_mates, checked_embeddings, hits, require_mates, search
from lrfr.benchmarks.tinyface import person_numbers, read_role  # both sets come with the same kind of lists
from lrfr.errors import UserError
from lrfr.evaluate.open_set import threshold_at_fpir
from lrfr.evaluate.scores import unit
from lrfr.evaluate.verification import FOLDS, FoldAccuracy, correct_at, tar_at_far
from lrfr.gate.matlab import read_names
from lrfr.gate.trees import Count, Faces, Folders, identical, images_in, locate, prefix_number, read_folders

NAME, TRAINING = "QMUL-SurvFace", "training_set"
SEARCH, SEARCH_CODE = "Face_Identification_Test_Set", "Face_Identification_Evaluation"
PAIRED = "Face_Verification_Test_Set"
STRANGER = -1  # an unmated probe whose file has no person's number: distractors_<n>.jpg
# Published by the set's page: the training images, and 3,000 people enrolled. The other counts below are what one audit
# of the archive found; it also found 220,888 training images and 2,965 people enrolled.
PAIRS, TRAINING_IMAGES, TRAINING_PEOPLE = 5_320, 220_890, 5_319
GRID = np.arange(200, 2001) / 1000  # distances of unit vectors; test_face_verification.m
RATES = (0.3, 0.1, 0.01, 0.001)  # FAR of the paper's verification table
FPIRS = (0.3, 0.2, 0.1, 0.01)  # of its identification table
RANK = 20  # TPIR20


class OpenSet(NamedTuple):
    """Open-set identification. A template is made of all gallery images of one id.

    gallery, mated: ids are the lists' identities. unmated: ids are the numbers in the file names, -1 where there is
    none; they count persons differently from the lists and say only who is the same among them.
    """

    gallery: Faces
    mated: Faces
    unmated: Faces
    counts: tuple[Count, ...]


class Verification(NamedTuple):
    """Pairs to be verified: first the positive ones, then as many negative ones, both in the order of their lists.

    faces: ids are the numbers in the file names. pairs: int64 (P, 2), rows of `faces`. same: bool (P,).
    """

    faces: Faces
    pairs: NDArray[np.int64]
    same: NDArray[np.bool_]
    counts: tuple[Count, ...]


def number_of(name: str, folder: Path) -> int:
    """The person's number in the name of an unmated probe, or STRANGER."""
    return STRANGER if name.startswith("distractors_") else prefix_number(name, folder)


def read_search(root: Path) -> OpenSet:
    """Read the identification part at a root, the folder QMUL-SurvFace or the one around it. All bytes are read once.

    Raises UserError naming the file and entry that is wrong: folders and lists that differ, a person with two
    identities, different people in gallery and mated probes, an unmated probe of an enrolled person, or one file in
    both.
    """
    root = locate(root, NAME, SEARCH)
    places = (root / SEARCH, root / SEARCH_CODE)
    roles = [
        read_role(root / SEARCH / role, places, f"{role}_img_ID_pairs.mat", role) for role in ("gallery", "mated_probe")
    ]
    enrolled = person_numbers(roles)
    for (one, source), (other, missing) in (roles, roles[::-1]):
        alone = np.flatnonzero(~np.isin(one.ids, other.ids))
        if len(alone):
            where = f"{source}, entry {alone[0] + 1}"
            raise UserError(f"{where}: identity {one.ids[alone[0]]} is not in {missing}; fetch them again.")
    (gallery, _), (mated, _) = roles
    folder = root / SEARCH / "unmated_probe"
    names = images_in(folder)
    unmated = Faces(folder, tuple(names), np.array([number_of(name, folder) for name in names], np.int64))
    for name, number in zip(names, unmated.ids.tolist(), strict=True):
        if number in enrolled:
            raise UserError(f"{folder / name}: person {number} is in the gallery, not unmated; unpack the set again.")
    shared = [identical(gallery, mated, "gallery against mated")]
    shared.append(identical(gallery, unmated, "gallery against unmated"))
    counts = (
        Count("gallery images", len(gallery), 60_294),
        Count("mated probes", len(mated), 60_423),
        Count("unmated probes", len(unmated), 121_736),
        Count("unmated probes without a person's number", int(np.sum(unmated.ids == STRANGER)), None),
        Count("people in the gallery", len(np.unique(gallery.ids)), 3_000),
        Count("gallery images identical to a mated probe", shared[0], None),
        Count("gallery images identical to an unmated probe", shared[1], None),
    )
    return OpenSet(gallery, mated, unmated, counts)


def read_verification(root: Path) -> Verification:
    """Read the verification part at a root.

    Raises UserError naming the list and entry that is wrong: a name that is not there, a positive pair of two people or
    a negative pair of one, or lists of different length.
    """
    root = locate(root, NAME, PAIRED)
    folder = root / PAIRED / "verification_images"
    names = images_in(folder)
    numbers = np.array([prefix_number(name, folder) for name in names], np.int64)
    place = {name: i for i, name in enumerate(names)}
    rows: list[tuple[int, int]] = []
    lengths = []
    for kind, people in (("positive", "two people"), ("negative", "one person")):
        source = root / PAIRED / f"{kind}_pairs_names.mat"
        pairs = read_names(source, f"{kind}_pairs_names", columns=2)
        for row, pair in enumerate(pairs, start=1):
            unknown = [name for name in pair if name not in place]
            if unknown:
                raise UserError(f"{source}, entry {row}: {unknown[0]!r} is not in {folder}; unpack the set again.")
            a, b = (place[name] for name in pair)
            if (numbers[a] == numbers[b]) != (kind == "positive"):
                raise UserError(f"{source}, entry {row}: a {kind} pair of {people}; fetch the list again.")
            rows.append((a, b))
        lengths.append(len(pairs))
    if lengths[0] != lengths[1]:
        raise UserError(f"{root / PAIRED}: {lengths[0]} positive and {lengths[1]} negative pairs; fetch both again.")
    counts = (
        Count("positive pairs", lengths[0], PAIRS),
        Count("negative pairs", lengths[1], PAIRS),
        Count("images to be verified", len(names), 10_051),
    )
    same = np.arange(len(rows)) < lengths[0]
    return Verification(Faces(folder, tuple(names), numbers), np.array(rows, np.int64), same, counts)


def read_training(root: Path) -> Folders:
    """The training part at the same root; UserError like `read_folders`, or if a person of the test is in it."""
    root = locate(root, NAME, TRAINING)
    training = read_folders(root / TRAINING, TRAINING_IMAGES, TRAINING_PEOPLE, numbered=True)
    people = {int(person) for person in training.people}
    for role in ("gallery", "mated_probe", "unmated_probe"):
        folder = root / SEARCH / role
        for name in images_in(folder) if folder.is_dir() else ():
            if number_of(name, folder) in people:
                raise UserError(f"{folder / name}: its person is in {root / TRAINING} too; unpack the set again.")
    return training


def grid_roc(distances: NDArray, same: NDArray[np.bool_], weights: NDArray) -> list[NDArray[np.float64]]:
    """FAR and TAR, ascending, at the grid's thresholds; the ends (0, 0) and (1, 1) are ours, for failed pairs."""
    rates = []
    for kind in (~same, same):
        order = np.argsort(distances[kind])
        total = np.append(0.0, np.cumsum(weights[kind][order]))
        rates.append(np.r_[0.0, total[np.searchsorted(distances[kind][order], GRID)] / total[-1], 1.0])
    return rates


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

    distances: float (n,), inf = failed. Fold k holds the k-th tenth of the genuine and of the impostor pairs, as the
    MATLAB code pairs the two lists; with the full set 532 of each.
    """
    right, accuracies, thresholds = np.zeros(len(same), dtype=bool), [], []
    parts = [np.array_split(np.flatnonzero(kind), FOLDS) for kind in (same, ~same)]
    for fold in map(np.concatenate, zip(*parts, strict=True)):
        train = np.setdiff1d(np.arange(len(same)), fold)
        threshold = GRID[np.argmax(correct_at(distances[train], same[train], GRID))]  # the first of the best
        right[fold] = (distances[fold] < threshold) == same[fold]
        accuracies.append(np.mean(right[fold]))
        thresholds.append(threshold)
    mean, std = float(np.mean(accuracies)), float(np.std(accuracies))
    return FoldAccuracy(mean, std, np.array(accuracies), np.array(thresholds)), right


def verification(embeddings: ArrayLike, positive: ArrayLike, negative: ArrayLike) -> Outcome:
    """Verification of pairs; decisions and weights go by pair, all genuine ones first.

    embeddings: float (images, D), NaN row = failed acquisition; positive, negative: int (n, 2), rows of the genuine and
    of the impostor pairs. Metrics: tar_interpolated@far=..., tar@far=... (conservative: `verification.tar_at_far`),
    auc, accuracy, accuracy_std. Raises ValueError if there are fewer than ten pairs of a kind.
    """
    embeddings, failed = checked_embeddings(embeddings, "verification images")
    kinds = [np.asarray(pairs, dtype=np.int64).reshape(-1, 2) for pairs in (positive, negative)]
    genuine, impostor = map(len, kinds)
    if min(genuine, impostor) < FOLDS:
        raise ValueError(f"{FOLDS} folds need at least {FOLDS} pairs of each kind, not {genuine} and {impostor}.")
    pairs, same = np.concatenate(kinds), np.repeat([True, False], [genuine, impostor])
    first, second = (unit(embeddings[pairs[:, side]]) for side in (0, 1))
    distances = np.sqrt(np.sum((first - second) ** 2, axis=1))
    distances[failed[pairs].any(axis=1)] = np.inf
    accuracy, right = fold_accuracy(distances, same)
    statistics = {}
    for rate in RATES:
        statistics[f"tar_interpolated@far={rate:g}"] = lambda w, rate=rate: interpolated_tar(distances, same, w, rate)
        statistics[f"tar@far={rate:g}"] = lambda w, rate=rate: tar_at_far(-distances, same, rate, w)
    statistics["auc"] = lambda w: grid_area(distances, same, w)
    metrics = {metric: statistic(np.ones(len(same))) for metric, statistic in statistics.items()}
    metrics |= {"accuracy": accuracy.mean, "accuracy_std": accuracy.std}
    statistics["accuracy"] = accuracy_of(right, same)
    counts = {"genuine": genuine, "impostor": impostor}
    counts |= {"fta_images": int(failed.sum()), "fta_pairs": int(np.isinf(distances).sum())}
    return Outcome(len(same), metrics, counts, {"accuracy": right}, statistics)


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
    gallery: ArrayLike, gallery_labels: ArrayLike, mated: ArrayLike, mated_labels: ArrayLike, unmated: ArrayLike
) -> Outcome:
    """TPIR20 at each FPIR, the area under that curve, and closed-set rank 1 and 20 of the mated probes.

    gallery (g, D), mated (m, D), unmated (u, D): float, images and mirror images already fused (public evaluations
    average the two), NaN row = failed acquisition. Labels of one type for gallery and mated. Weights go by probe, mated
    ones first; decisions by mated probe. Metrics: tpir20@fpir=..., tpir20_auc, rank1, rank20. Raises ValueError if a
    mated probe's person has no gallery image, or like `search.search`.
    """
    means, people = templates(gallery, gallery_labels)
    _, gallery_failed = checked_embeddings(gallery, "gallery")
    mated, mated_failed = checked_embeddings(mated, "mated probes")
    unmated, unmated_failed = checked_embeddings(unmated, "unmated probes")
    known = search(mated, means, mated_labels, people)
    require_mates(known)
    strangers = search(unmated, means, np.full(len(unmated), len(people)), np.arange(len(people)))
    decisions = {f"rank{k}": hits(known, k) for k in (1, RANK)}
    scores = np.where(decisions[f"rank{RANK}"], best_mates(known)[0], -np.inf)
    order = np.argsort(-strangers.top, kind="stable")
    tops = strangers.top[order]
    beaten = [np.searchsorted(-tops, -scores, side) for side in ("right", "left")]  # strangers at or above each score

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

    statistics = {f"tpir{RANK}@fpir={fpir:g}": lambda w, fpir=fpir: rate(w, fpir) for fpir in FPIRS}
    statistics[f"tpir{RANK}_auc"] = area
    statistics |= {metric: mean_of(right, slice(len(scores))) for metric, right in decisions.items()}
    failures = {"gallery": gallery_failed, "templates": np.isnan(means).all(axis=1), "mated": mated_failed}
    failures["unmated"] = unmated_failed
    counts = {part: len(failed) for part, failed in failures.items()}
    counts |= {f"fta_{part}": int(failed.sum()) for part, failed in failures.items()}
    size = len(scores) + len(tops)
    metrics = {metric: statistic(np.ones(size)) for metric, statistic in statistics.items()}
    return Outcome(size, metrics, counts, decisions, statistics)


def open_survface(root: Path) -> Opened:
    """Read both parts at a root, with the training part if that is there; UserError like the readers."""
    paired, found = read_verification(root), read_search(root)
    positive, negative = paired.pairs[paired.same], paired.pairs[~paired.same]
    first, second = paired.faces.ids[paired.pairs].T
    alone = -1 - np.arange(len(found.unmated))  # every probe without a number is a person of its own
    strangers = np.where(found.unmated.ids == STRANGER, alone, found.unmated.ids)
    identities = np.concatenate([found.mated.ids, strangers])
    strata = np.repeat([0, 1], [len(found.mated), len(strangers)])
    protocols = {
        "verification": Protocol(
            lambda x: verification(x["verification"], positive, negative),
            partial(draw_pairs, same=paired.same, a=first, b=second),
        ),
        "identification": Protocol(
            lambda x: identification(x["gallery"], found.gallery.ids, x["mated"], found.mated.ids, x["unmated"]),
            partial(draw_probes, identities=identities, strata=strata),
        ),
    }
    images = {"verification": images_of(paired.faces)}
    images |= {role: images_of(getattr(found, role)) for role in ("gallery", "mated", "unmated")}
    there = any((folder / TRAINING).is_dir() for folder in (root, root / NAME))
    counts = paired.counts + found.counts + (read_training(root).counts if there else ())
    return Opened("survface", images, counts, protocols, ("whole", "detect"))
