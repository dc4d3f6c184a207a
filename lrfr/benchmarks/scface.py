"""SCface: rank-1 of 130 people with a mugshot each, seen by five surveillance cameras at three distances.

Grgic, Delac and Grgic, "SCface - surveillance cameras face database", Multimedia Tools and Applications 51, 2011. A
release form signed by staff of an institution is needed. Names are subject_camera_distance; distance 1 is the farthest
(4.20 m), then 2.60 m and 1.00 m. Cameras 6 to 8 are infrared and not read. The files:

    mugshot_frontal_cropped_all/001_frontal.JPG            or mugshot_frontal_original_all
    surveillance_cameras_distance_1/cam_1/001_cam1_1.jpg   or all of them in surveillance_cameras_all
    scface_annotations.txt                                 where present: eyes, nose and mouth

Papers on low-resolution faces take the frontal mugshots as the gallery and either all 130 people (650 probes a
distance) or, after fine-tuning on 50 people, the other 80 (400 probes). No official list of the 50 exists, so papers
differ by their draw: the splits of `tested_subjects` are ours, several draws, the same on every machine. A model
fine-tuned on the 50 of one split may be tested on the 80 of that split only.

The denominator is fixed: a probe in which no face was found is a NaN row, a miss, and counted (fta). Ties lose.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lrfr.benchmarks.outcomes import Opened, Outcome, Protocol, Vectors, draw_probes, images_of, mean_of
from lrfr.benchmarks.search import checked_embeddings, hits, optimistic, search
from lrfr.errors import UserError
from lrfr.gate.images import read_regular
from lrfr.gate.trees import Count, Faces, entries, images_in
from lrfr.streams import philox

NAME = "SCface_database"
MUGSHOTS = ("mugshot_frontal_cropped_all", "mugshot_frontal_original_all")
ALL, BY_DISTANCE = "surveillance_cameras_all", "surveillance_cameras_distance_{}"
ANNOTATIONS = "scface_annotations.txt"
CAMERAS, DISTANCES = (1, 2, 3, 4, 5), (1, 2, 3)
ANNOTATION_BYTES = 1 << 22  # our choice; 4,160 lines of about 60 bytes are known
MUGSHOT, SHOT = re.compile(r"(\d{3})_frontal\.jpe?g", re.I), re.compile(r"(\d{3})_cam([1-8])(?:_([123]))?\.jpe?g", re.I)
NUMBER = re.compile(r"\d{1,5}(\.\d{1,6})?", re.ASCII)
SUBJECTS, TEST = 130, 80  # of the set; tested after fine-tuning on the other 50
SPLITS = 5  # our choice: enough to see how much a draw of 50 people matters


class SCface(NamedTuple):
    """One mugshot a subject, and the probes by distance: {1: far, 2: middle, 3: near}. ids are the subjects' numbers.

    probes: five a subject and distance, by subject, then camera: none may be missing, since the number of probes is the
    denominator. landmarks: name of a file without its suffix -> float64 (4, 2), pixels (x, y): the eye to the left in
    the image, the other eye, nose, mouth; empty where there are no annotations.
    """

    gallery: Faces
    probes: dict[int, Faces]
    landmarks: dict[str, NDArray[np.float64]]
    counts: tuple[Count, ...]


def matched(pattern: re.Pattern, folder: Path, name: str, like: str) -> re.Match:
    """A file's name taken apart; UserError if it is of another kind than `like`."""
    match = pattern.fullmatch(name.rsplit("/", 1)[-1])
    if not match:
        raise UserError(f"{folder / name}: not a name like {like}; remove the file or unpack the set again.")
    return match


def read_mugshots(root: Path) -> Faces:
    """One mugshot a subject, cropped ones if both are there; UserError for another name or a subject twice."""
    folder = next((root / name for name in MUGSHOTS if (root / name).is_dir()), None)
    if folder is None:
        raise UserError(f"{root}: neither {MUGSHOTS[0]} nor {MUGSHOTS[1]} is there; give the folder with SCface.")
    found: dict[int, str] = {}
    for name in images_in(folder):
        subject = int(matched(MUGSHOT, folder, name, "001_frontal.jpg")[1])
        if found.setdefault(subject, name) != name:
            raise UserError(f"{folder / name}: a second mugshot of subject {subject:03d}; remove one.")
    subjects = sorted(found)
    return Faces(folder, tuple(found[subject] for subject in subjects), np.array(subjects, np.int64))


def list_shots(root: Path) -> list[tuple[Path, str]]:
    """(folder, name) of all surveillance images, names with a camera's folder where there is one."""
    if (root / ALL).is_dir():
        return [(root / ALL, name) for name in images_in(root / ALL)]
    shots = []
    for distance in DISTANCES:
        folder = root / BY_DISTANCE.format(distance)
        cameras, files = entries(folder)
        if files or not cameras:
            raise UserError(f"{folder}: not one folder a camera; unpack the set again.")
        shots += [(folder, f"{camera}/{name}") for camera in cameras for name in images_in(folder / camera)]
    return shots


def read_probes(root: Path, subjects: NDArray[np.int64]) -> dict[int, Faces]:
    """Images of cameras 1 to 5 by distance; UserError for another name, a contradicting place, a missing image."""
    found: dict[tuple[int, int, int], tuple[Path, str]] = {}
    for folder, name in list_shots(root):
        match = matched(SHOT, folder, name, "001_cam1_1.jpg")
        subject, camera, distance = int(match[1]), int(match[2]), int(match[3] or 0)
        if camera not in CAMERAS:
            continue  # infrared
        place = (folder.name[-1], name.split("/")[0].replace("_", ""))
        if folder.name != ALL and place != (str(distance), f"cam{camera}"):
            raise UserError(f"{folder / name}: in the folder of another camera or distance; unpack the set again.")
        if found.setdefault((distance, subject, camera), (folder, name)) != (folder, name):
            raise UserError(f"{folder / name}: a second image of this subject, camera and distance; remove one.")
    for (distance, subject, _), (folder, name) in found.items():
        if distance == 0 or subject not in subjects:
            reason = "has no distance in its name" if distance == 0 else "is of a subject without a mugshot"
            raise UserError(f"{folder / name}: {reason}; unpack the set again.")
    probes = {}
    for distance in DISTANCES:
        wanted = [(distance, subject, camera) for subject in subjects.tolist() for camera in CAMERAS]
        missing = ["{1:03d}_cam{2}_{0}.jpg".format(*key) for key in wanted if key not in found]
        if missing:
            others = f"{len(missing) - 1} others of distance {distance}"
            raise UserError(f"{root}: {missing[0]} and {others} are missing; unpack it again.")
        names = tuple(found[key][1] for key in wanted)
        probes[distance] = Faces(found[wanted[0]][0], names, np.repeat(subjects, len(CAMERAS)))
    return probes


def read_landmarks(path: Path) -> dict[str, NDArray[np.float64]]:
    """Lines "name x y x y x y x y": eyes, nose, mouth; empty lines and lines with # are left out.

    Nothing depends on which eye comes first, or nose before mouth: eyes are ordered by x, nose and mouth by y. Where a
    mouth is not below both eyes, the columns are others than we think, and the line is refused.
    """
    lines = read_regular(path, ANNOTATION_BYTES).decode("utf-8", "replace").splitlines()
    found: dict[str, NDArray[np.float64]] = {}
    for number, line in enumerate(lines, start=1):
        fields = line.split()
        if not fields or fields[0].startswith("#"):
            continue
        name, reason = Path(fields[0]).stem, None
        if len(fields) != 9 or not all(map(NUMBER.fullmatch, fields[1:])):
            reason = "not a name and eight numbers"
        elif name in found:
            reason = "the name comes twice"
        else:
            points = np.array(fields[1:], np.float64).reshape(4, 2)
            eyes, rest = np.argsort(points[:2, 0], kind="stable"), 2 + np.argsort(points[2:, 1], kind="stable")
            found[name] = points = points[[*eyes, *rest]]
            if not points[3, 1] > points[:2, 1].max():
                reason = "the mouth is not below the eyes"
        if reason:
            raise UserError(f"{path}, line {number}: {reason}; fetch the annotations again.")
    return found


def read_scface(root: Path) -> SCface:
    """Read the set at a root, the folder with the mugshots or the one that holds SCface_database.

    Raises UserError naming the file or line that is wrong, the first missing image, or an image without landmarks.
    """
    root = root / NAME if (root / NAME).is_dir() else root
    gallery = read_mugshots(root)
    probes = read_probes(root, gallery.ids)
    landmarks = read_landmarks(root / ANNOTATIONS) if (root / ANNOTATIONS).is_file() else {}
    for faces in (gallery, *probes.values()):
        for name in faces.names if landmarks else ():
            if Path(name).stem not in landmarks:
                raise UserError(f"{root / ANNOTATIONS}: no line for {Path(name).stem}; fetch the annotations again.")
    counts = (
        Count("subjects", len(gallery), SUBJECTS),
        *(Count(f"probes at distance {d}", len(probes[d]), SUBJECTS * len(CAMERAS)) for d in DISTANCES),
        Count("images with landmarks", len(landmarks), None),
    )
    return SCface(gallery, probes, landmarks, counts)


def tested_subjects(subjects: ArrayLike, split: int) -> NDArray:
    """The subjects, sorted, that a split tests: 80 of 130, and in proportion of any other number."""
    subjects = np.unique(subjects)
    lot = philox("scface", split).random_raw(len(subjects))  # raw bits: stable across releases of NumPy
    order = np.argsort(lot, kind="stable")
    return np.sort(subjects[order[: round(len(subjects) * TEST / SUBJECTS)]])


def check_structure(gallery_subjects: NDArray, probe_subjects: NDArray, distances: NDArray) -> None:
    """Raise ValueError unless everybody has one gallery image and as many probes at each distance as everybody else."""
    subjects, images = np.unique(gallery_subjects, return_counts=True)
    if (images > 1).any():
        raise ValueError(f"subject {subjects[images > 1][0]} has several gallery images; one mugshot each is needed.")
    unknown = probe_subjects[~np.isin(probe_subjects, subjects)]
    if len(unknown):
        raise ValueError(f"subject {unknown[0]} has probes but no gallery image.")
    for distance in np.unique(distances):
        number = np.bincount(np.searchsorted(subjects, probe_subjects[distances == distance]), minlength=len(subjects))
        if (number != number.max()).any():
            who = f"subject {subjects[np.argmin(number)]} has {number.min()} probes at distance {distance}"
            raise ValueError(f"{who}, others {number.max()}; without a face they are rows of NaN, never left out.")


def evaluate(
    gallery: ArrayLike, gallery_subjects: ArrayLike, probes: ArrayLike, probe_subjects: ArrayLike, distances: ArrayLike
) -> Outcome:
    """Rank-1 of all people given, at each distance; weights go by probe.

    gallery (s, D), probes (p, D): float, images and mirror images already fused, NaN row = failed acquisition;
    subjects: numbers, one per row; distances: int (p,), 1 ... 3. Metrics: rank1@d1 ..., rank1@d1_optimistic ...;
    decisions: rank1@d1 ..., of the probes at that distance. Raises ValueError like `check_structure`.
    """
    (gallery, gallery_failed), (probes, probe_failed) = (
        checked_embeddings(x, name) for x, name in ((gallery, "gallery"), (probes, "probes"))
    )
    gallery_subjects, probe_subjects, distances = (np.asarray(x) for x in (gallery_subjects, probe_subjects, distances))
    if distances.shape != probes.shape[:1]:
        raise ValueError(f"probes {probes.shape} need one distance per row, not distances of shape {distances.shape}.")
    found = search(probes, gallery, probe_subjects, gallery_subjects)
    check_structure(gallery_subjects, probe_subjects, distances)
    right = {"": hits(found, 1), "_optimistic": hits(optimistic(found), 1)}
    counts = {"subjects": len(gallery), "fta_gallery": int(gallery_failed.sum())}
    metrics, statistics, decisions = {}, {}, {}
    for distance in np.unique(distances):
        chosen = distances == distance
        counts |= {f"probes@d{distance}": int(chosen.sum()), f"fta@d{distance}": int(probe_failed[chosen].sum())}
        for ending, hit in right.items():
            metric = f"rank1@d{distance}{ending}"
            metrics[metric] = float(np.mean(hit[chosen]))
            statistics[metric] = mean_of(hit[chosen], chosen)
        decisions[f"rank1@d{distance}"] = right[""][chosen]
    return Outcome(len(probes), metrics, counts, decisions, statistics)


def evaluate_splits(
    gallery: ArrayLike, gallery_subjects: ArrayLike, probes: ArrayLike, probe_subjects: ArrayLike, distances: ArrayLike
) -> Outcome:
    """The same with each split's test subjects only: means over splits, and standard deviations (_sd, n-1).

    Counts are those of the first split; a failed image is counted in each split that tests it (fta... is of the first).
    There are no decisions, since splits share probes. Raises ValueError like `evaluate`.
    """
    given = tuple(np.asarray(x) for x in (gallery, gallery_subjects, probes, probe_subjects, distances))
    outcomes, chosen = [], []
    for split in range(SPLITS):
        tested = tested_subjects(given[1], split)
        mugshots, rows = np.isin(given[1], tested), np.isin(given[3], tested)
        outcomes.append(evaluate(*(x[mugshots] for x in given[:2]), *(x[rows] for x in given[2:])))
        chosen.append(rows)
    metrics, statistics = {}, {}
    for metric in outcomes[0].metrics:
        values = [outcome.metrics[metric] for outcome in outcomes]
        metrics |= {metric: float(np.mean(values)), f"{metric}_sd": float(np.std(values, ddof=1))}
        parts = [(outcome.statistics[metric], rows) for outcome, rows in zip(outcomes, chosen, strict=True)]
        statistics[metric] = lambda w, parts=parts: float(np.mean([statistic(w[rows]) for statistic, rows in parts]))
    return Outcome(len(given[2]), metrics, {"splits": SPLITS} | outcomes[0].counts, {}, statistics)


def open_scface(root: Path) -> Opened:
    """Everybody, and the mean over the published splits; with the annotations' landmarks where there are any."""
    data = read_scface(root)
    roles = {f"distance {distance}": data.probes[distance] for distance in DISTANCES}
    subjects = np.concatenate([faces.ids for faces in roles.values()])
    distances = np.repeat(DISTANCES, [len(faces) for faces in roles.values()])

    def protocol(rule: Callable[..., Outcome]) -> Protocol:
        def scored(x: Vectors) -> Outcome:
            probes = np.concatenate([x[role] for role in roles])
            return rule(x["gallery"], data.gallery.ids, probes, subjects, distances)

        return Protocol(scored, partial(draw_probes, identities=subjects, strata=np.zeros(len(subjects))))

    images = {role: images_of(faces, data.landmarks) for role, faces in {"gallery": data.gallery, **roles}.items()}
    protocols = {"all subjects": protocol(evaluate), "test subjects of the splits": protocol(evaluate_splits)}
    policies = ("landmarks", "detect", "whole") if data.landmarks else ("detect", "whole")
    return Opened("scface", images, data.counts, protocols, policies)
