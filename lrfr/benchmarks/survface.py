"""QMUL-SurvFace: faces from surveillance cameras (about 24 x 20 pixels), verification and open-set search.

Cheng, Zhu and Gong, "Surveillance face recognition challenge", arXiv 1804.09691, 2018; its files and its status are
described in docs/benchmarks/survface.md.

Verification follows the set's own MATLAB code (test_face_verification.m): a pair is accepted if the Euclidean distance
of its unit vectors is < t, t = 0.200, 0.201 ... 2.000; TAR is interpolated linearly between the points of that ROC, the
area under it is taken by trapezoids, and the accuracy is the mean over ten folds, each at the first t that is best on
the other nine. Interpolation invents operating points below one impostor in the list, so the conservative TAR is added.

Identification follows the public ports of the open-set protocol: the template of a person is the mean of the features
of its gallery images. FPIR = share of unmated probes with any template above the threshold; TPIR20 = share of mated
probes whose own template is above it and ranks <= 20. The ports take the nearest of 1000 thresholds; here it is exact.

Failed acquisitions (NaN rows): a pair with one is never accepted, a failed probe is a miss or no alarm, a failed
gallery image is left out of its template, and a person without any other has a template that never matches. All count.
"""

from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lrfr.benchmarks import outcomes
from lrfr.benchmarks.outcomes import Opened, Outcome, Protocol, images_of, mean_of
from lrfr.benchmarks.search import best_mates, checked_embeddings, hits, require_mates, search
from lrfr.benchmarks.tinyface import read_roles
from lrfr.errors import UserError
from lrfr.evaluate.open_set import threshold_at_fpir
from lrfr.evaluate.scores import unit
from lrfr.evaluate.verification import FOLDS, correct_at, tar_at_far
from lrfr.gate.matlab import read_names
from lrfr.gate.trees import Count, Faces, identical, images_in, locate, prefix_number

NAME, PAIRED, SEARCH = "QMUL-SurvFace", "Face_Verification_Test_Set", "Face_Identification_Test_Set"
STRANGER = -1  # an unmated probe whose file has no person's number: distractors_<n>.jpg
GRID = np.arange(200, 2001) / 1000  # distances of unit vectors; test_face_verification.m
RATES = (0.3, 0.1, 0.01, 0.001)  # FAR of the paper's verification table
FPIRS = (0.3, 0.2, 0.1, 0.01)  # of its identification table
RANK = 20  # TPIR20


def read_survface(root: Path) -> SimpleNamespace:
    """verification, gallery, mated, unmated (Faces), pairs, same and counts, of the folder QMUL-SurvFace or around it.

    pairs: int64 (P, 2), rows of `verification`, positive pairs first, then as many negative ones; same: bool (P,). ids
    of gallery and mated are the lists' identities; others are the numbers in the file names, which count persons
    differently, -1 where there is none. UserError, naming file and entry, like `read_roles`, for a pair of the other
    kind, for an unmated probe of an enrolled person, or for one file in gallery and probes.
    """
    folder = locate(root, NAME, PAIRED) / PAIRED
    images = folder / "verification_images"
    names = images_in(images)
    people = np.array([prefix_number(name, images) for name in names], np.int64)
    place = {name: i for i, name in enumerate(names)}
    listed: list[list[list[int]]] = []
    for kind, contrary in (("positive", "two people"), ("negative", "one person")):
        listed.append([])
        source = folder / f"{kind}_pairs_names.mat"
        for row, pair in enumerate(read_names(source, f"{kind}_pairs_names", columns=2), start=1):
            if unknown := [name for name in pair if name not in place]:
                raise UserError(f"{source}, entry {row}: {unknown[0]!r} is not in {images}; unpack the set again.")
            a, b = (place[name] for name in pair)
            if (people[a] == people[b]) != (kind == "positive"):
                raise UserError(f"{source}, entry {row}: a {kind} pair of {contrary}; fetch the list again.")
            listed[-1].append([a, b])
    positive, negative = map(len, listed)
    if positive != negative:
        raise UserError(f"{folder}: {positive} positive and {negative} negative pairs; fetch both again.")
    found = SimpleNamespace(verification=Faces(images, tuple(names), people), pairs=np.concatenate(listed))
    found.same = np.repeat([True, False], positive)
    folder, roles = locate(root, NAME, SEARCH) / SEARCH, ("gallery", "mated_probe")
    (found.gallery, found.mated), enrolled = read_roles(folder, dict(zip(roles, roles, strict=True)), roles)
    names, numbers = images_in(folder := folder / "unmated_probe"), []
    for name in names:
        numbers.append(STRANGER if name.startswith("distractors_") else prefix_number(name, folder))
        if numbers[-1] in enrolled:
            raise UserError(f"{folder / name}: person {numbers[-1]} is in the gallery; unpack the set again.")
    found.unmated = Faces(folder, tuple(names), np.array(numbers, np.int64))
    shared = [identical(found.gallery, x, f"gallery against {x.folder.name}") for x in (found.mated, found.unmated)]
    found.counts = (  # what one audit found, except for the people: the set's page has 3,000, the audit 2,965
        Count("positive pairs", positive, 5_320),
        Count("negative pairs", negative, 5_320),
        Count("images to be verified", len(found.verification), 10_051),
        Count("gallery images", len(found.gallery), 60_294),
        Count("mated probes", len(found.mated), 60_423),
        Count("unmated probes", len(found.unmated), 121_736),
        Count("unmated probes without a person's number", numbers.count(STRANGER), None),
        Count("people in the gallery", len(np.unique(found.gallery.ids)), 3_000),
        Count("gallery images identical to a mated probe", shared[0], None),
        Count("gallery images identical to an unmated probe", shared[1], None),
    )
    return found


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
    right, accuracies = np.zeros(len(same), dtype=bool), []
    tenths = [np.array_split(np.flatnonzero(kind), FOLDS) for kind in (same, ~same)]
    for fold in map(np.concatenate, zip(*tenths, strict=True)):  # of each kind a tenth, as the MATLAB code has it
        train = np.setdiff1d(np.arange(len(same)), fold)
        threshold = GRID[np.argmax(correct_at(distances[train], same[train], GRID))]  # the first of the best
        right[fold] = (distances[fold] < threshold) == same[fold]
        accuracies.append(np.mean(right[fold]))

    def roc(
        weights: NDArray,
    ) -> list[NDArray[np.float64]]:  # FAR and TAR at GRID; (0, 0) and (1, 1) are for failed pairs
        rates = []
        for kind in (~same, same):
            order = np.argsort(distances[kind])
            total = np.append(0.0, np.cumsum(weights[kind][order]))
            rates.append(np.r_[0.0, total[np.searchsorted(distances[kind][order], GRID)] / total[-1], 1.0])
        return rates

    def interpolated_tar(weights: NDArray, rate: float) -> float:  # linear between the largest TAR at each FAR
        far, tar = roc(weights)
        last = np.append(far[1:] != far[:-1], True)
        return float(np.interp(rate, far[last], tar[last]))

    statistics = {}
    for rate in RATES:
        statistics[f"tar_interpolated@far={rate:g}"] = partial(interpolated_tar, rate=rate)
        statistics[f"tar@far={rate:g}"] = lambda w, rate=rate: tar_at_far(-distances, same, rate, w)
    statistics["auc"] = lambda w: float(np.trapezoid(*reversed(roc(w))))
    metrics = {metric: statistic(np.ones(len(same))) for metric, statistic in statistics.items()}
    metrics |= {"accuracy": float(np.mean(accuracies)), "accuracy_std": float(np.std(accuracies))}
    statistics["accuracy"] = outcomes.accuracy_of(right, same)
    counts = {"genuine": genuine, "impostor": impostor}
    counts |= {"fta_images": int(failed.sum()), "fta_pairs": int(np.isinf(distances).sum())}
    return Outcome(len(same), metrics, counts, {"accuracy": right}, statistics)


def identification(
    gallery: ArrayLike, gallery_labels: ArrayLike, mated: ArrayLike, mated_labels: ArrayLike, unmated: ArrayLike
) -> Outcome:
    """TPIR20 at each FPIR, the area under that curve, and closed-set rank 1 and 20 of the mated probes.

    gallery (g, D), mated (m, D), unmated (u, D): float, mirror images already added, NaN row = failed acquisition.
    Labels: one per row, of one type. Weights go by probe, mated ones first; decisions by mated probe. Metrics:
    tpir20@fpir=..., tpir20_auc, rank1, rank20. Raises ValueError if a mated probe is of nobody in the gallery.
    """
    gallery, failed = checked_embeddings(gallery, "gallery")
    people, own = np.unique(gallery_labels, return_inverse=True)
    if own.shape != failed.shape:
        raise ValueError(f"the gallery {gallery.shape} needs one label per row, not labels of shape {own.shape}.")
    means = np.full((len(people), gallery.shape[1]), np.nan)  # the templates; NaN if all images of a person failed
    for person in np.unique(own[~failed]):
        means[person] = gallery[(own == person) & ~failed].mean(axis=0, dtype=np.float64)
    known = search(mated, means, mated_labels, people)
    require_mates(known)
    strangers = search(unmated, means, np.full(len(unmated), len(people)), np.arange(len(people)))
    decisions = {f"rank{k}": hits(known, k) for k in (1, RANK)}
    scores = np.where(decisions[f"rank{RANK}"], best_mates(known)[0], -np.inf)
    order = np.argsort(-strangers.top, kind="stable")
    tops, size = strangers.top[order], len(scores) + len(strangers.top)
    beaten = [np.searchsorted(-tops, -scores, side) for side in ("right", "left")]  # strangers at or above each score

    def tpir(weights: NDArray, fpir: float | None) -> float:  # None: the area under the curve
        of_mated, of_unmated = weights[: len(scores)], weights[len(scores) :][order]
        if not of_unmated.any():
            return np.nan
        if fpir is not None:
            return mean_of(scores > threshold_at_fpir(tops, fpir, of_unmated))(of_mated)
        total = np.append(0.0, np.cumsum(of_unmated))
        won = 1 - (total[beaten[0]] + total[beaten[1]]) / (2 * total[-1])  # a tie is half
        return mean_of(np.where(np.isneginf(scores), 0.0, won))(of_mated)

    statistics = {f"tpir{RANK}@fpir={fpir:g}": partial(tpir, fpir=fpir) for fpir in FPIRS}
    statistics[f"tpir{RANK}_auc"] = partial(tpir, fpir=None)
    statistics |= {metric: mean_of(right, slice(len(scores))) for metric, right in decisions.items()}
    metrics = {metric: statistic(np.ones(size)) for metric, statistic in statistics.items()}
    lost = {"gallery": gallery, "templates": means, "mated": mated, "unmated": unmated}
    counts = outcomes.failures({part: np.isnan(x).all(axis=1) for part, x in lost.items()})
    return Outcome(size, metrics, counts, decisions, statistics)


def open_survface(root: Path) -> Opened:
    """Read both parts at a root; UserError like `read_survface`."""
    data = read_survface(root)
    positive, negative = data.pairs[data.same], data.pairs[~data.same]
    first, second = data.verification.ids[data.pairs].T
    gallery, mated, numbers = data.gallery.ids, data.mated.ids, data.unmated.ids
    strangers = np.where(numbers == STRANGER, -1 - np.arange(len(numbers)), numbers)  # each a person of its own
    strata = np.repeat([0, 1], [len(mated), len(strangers)])
    by_pair = partial(outcomes.draw_pairs, same=data.same, a=first, b=second)
    by_probe = partial(outcomes.draw_probes, identities=np.concatenate([mated, strangers]), strata=strata)
    verified = Protocol(lambda x: verification(x["verification"], positive, negative), by_pair)
    identified = Protocol(lambda x: identification(x["gallery"], gallery, x["mated"], mated, x["unmated"]), by_probe)
    images = {role: images_of(getattr(data, role)) for role in ("verification", "gallery", "mated", "unmated")}
    protocols = {"verification": verified, "identification": identified}
    return Opened("survface", images, data.counts, protocols, ("whole", "detect"))
