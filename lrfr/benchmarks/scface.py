"""SCface: rank-1 of 130 people with a mugshot each, seen by five surveillance cameras at three distances.

Grgic, Delac and Grgic, "SCface - surveillance cameras face database", Multimedia Tools and Applications 51, 2011; its
files: docs/benchmarks/scface.md. Distances 1 to 3 are 4.20, 2.60 and 1.00 m. Infrared cameras (6 to 8) are not read.

Papers on low-resolution faces take the frontal mugshots as the gallery and either all 130 people (650 probes a
distance) or, after fine-tuning on 50 people, the other 80 (400 probes). No official list of the 50 exists: the splits
of `tested_subjects` are ours. A model fine-tuned on the 50 of one split may be tested on the 80 of that split only.

The denominator is fixed: a probe in which no face was found is a NaN row, a miss, and counted (fta). Ties lose.
"""

import re
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lrfr.benchmarks.outcomes import Opened, Outcome, Protocol, draw_probes, images_of, mean_of
from lrfr.benchmarks.search import checked_embeddings, hits, optimistic, search
from lrfr.errors import UserError
from lrfr.gate.images import read_regular
from lrfr.gate.trees import Count, Faces, files_below
from lrfr.streams import philox

NAME, ANNOTATIONS = "SCface_database", "scface_annotations.txt"
MUGSHOTS = ("mugshot_frontal_cropped_all", "mugshot_frontal_original_all")
ALL, BY_DISTANCE = "surveillance_cameras_all", "surveillance_cameras_distance_{}"
CAMERAS, DISTANCES = (1, 2, 3, 4, 5), (1, 2, 3)
ANNOTATION_BYTES = 1 << 22  # our choice; 4,160 lines of about 60 bytes are known
FILE = re.compile(r"(\d{3})_(?:frontal|cam([1-8])(?:_([123]))?)\.jpe?g", re.I)
NUMBER = re.compile(r"\d{1,5}(\.\d{1,6})?", re.ASCII)
SUBJECTS, TEST = 130, 80  # of the set; tested after fine-tuning on the other 50
SPLITS = 5  # our choice: enough to see how much a draw of 50 people matters


def read_files(folder: Path) -> dict[tuple[int, int, int], str]:
    """(distance, subject, camera) -> name of an image below a folder; mugshots have distance and camera 0.

    Infrared images are left out. UserError for another name, the folder of another camera, or the second of one key.
    """
    found, mugshots = {}, folder.name in MUGSHOTS
    for path in files_below(folder):
        match, reason = FILE.fullmatch(path.name), None
        subject, camera, distance = (int(part or 0) for part in match.groups()) if match else (0, 0, 0)
        if camera > max(CAMERAS):
            continue
        place = folder.name, path.parent.name.replace("_", "")
        if not match or {camera == 0, distance == 0} != {mugshots}:
            reason = f"not a name like {'001_frontal' if mugshots else '001_cam1_1'}.jpg"
        elif folder.name not in (ALL, *MUGSHOTS) and place != (BY_DISTANCE.format(distance), f"cam{camera}"):
            reason = "in the folder of another camera or distance"
        elif found.setdefault((distance, subject, camera), name := path.relative_to(folder).as_posix()) != name:
            reason = "a second image of this subject, camera and distance, or a second mugshot"
        if reason:
            raise UserError(f"{path}: {reason}; remove the file or unpack the set again.")
    return found


def read_landmarks(path: Path) -> dict[str, NDArray[np.float64]]:
    """Name without suffix -> float64 (4, 2), pixels (x, y): eyes, ordered by x, then nose and mouth, ordered by y.

    Lines are "name x y x y x y x y"; empty ones and those with # are left out. A mouth that is not below both eyes is
    refused: the columns are others than we think.
    """
    found: dict[str, NDArray[np.float64]] = {}
    lines = read_regular(path, ANNOTATION_BYTES).decode("utf-8", "replace").splitlines()
    for number, line in enumerate(lines, start=1):
        name, *fields = line.split() or "#"
        if name.startswith("#"):
            continue
        stem, reason = Path(name).stem, "not a name and eight numbers"
        if len(fields) == 8 and all(map(NUMBER.fullmatch, fields)):
            eyes, others = np.array(fields, np.float64).reshape(2, 2, 2)
            points = np.array([*sorted(eyes, key=lambda x: x[0]), *sorted(others, key=lambda x: x[1])])
            reason = "the name comes twice" if stem in found else "the mouth is not below the eyes"
            if stem not in found and points[3, 1] > points[:2, 1].max():
                found[stem] = points
                continue
        raise UserError(f"{path}, line {number}: {reason}; fetch the annotations again.")
    return found


def read_scface(root: Path) -> SimpleNamespace:
    """gallery (Faces; cropped mugshots if both kinds are there), probes (distance -> Faces), landmarks, and counts.

    root: the folder with the mugshots or the one that holds SCface_database. ids are the subjects' numbers. probes:
    five a subject, by subject, then camera; none may be missing. UserError names the wrong file or missing image.
    """
    root = root / NAME if (root / NAME).is_dir() else root
    folder = next((root / name for name in MUGSHOTS if (root / name).is_dir()), None)
    mugshots = {subject: name for (_, subject, _), name in sorted(read_files(folder).items())} if folder else {}
    if not mugshots:
        raise UserError(f"{root}: neither {MUGSHOTS[0]} nor {MUGSHOTS[1]} has images; give the folder with SCface.")
    gallery, probes = Faces(folder, tuple(mugshots.values()), np.array([*mugshots], np.int64)), {}
    for distance in DISTANCES:
        folder = root / ALL if (root / ALL).is_dir() else root / BY_DISTANCE.format(distance)
        found = {key: name for key, name in read_files(folder).items() if key[0] == distance}
        if strangers := [subject for _, subject, _ in found if subject not in mugshots]:
            raise UserError(f"{folder}: an image of subject {strangers[0]:03d}, without a mugshot; unpack it again.")
        wanted = [(distance, subject, camera) for subject in mugshots for camera in CAMERAS]
        if missing := ["{1:03d}_cam{2}_{0}.jpg".format(*key) for key in wanted if key not in found]:
            others = f"{len(missing) - 1} others of distance {distance}"
            raise UserError(f"{root}: {missing[0]} and {others} are missing; unpack it again.")
        probes[distance] = Faces(folder, tuple(found[key] for key in wanted), np.repeat(gallery.ids, len(CAMERAS)))
    landmarks = read_landmarks(root / ANNOTATIONS) if (root / ANNOTATIONS).is_file() else {}
    stems = [Path(name).stem for faces in (gallery, *probes.values()) for name in faces.names]
    if landmarks and (bare := [stem for stem in stems if stem not in landmarks]):
        raise UserError(f"{root / ANNOTATIONS}: no line for {bare[0]}; fetch the annotations again.")
    counts = (
        Count("subjects", len(gallery), SUBJECTS),
        *(Count(f"probes at distance {d}", len(probes[d]), SUBJECTS * len(CAMERAS)) for d in DISTANCES),
        Count("images with landmarks", len(landmarks), None),
    )
    return SimpleNamespace(gallery=gallery, probes=probes, landmarks=landmarks, counts=counts)


def tested_subjects(subjects: ArrayLike, split: int) -> NDArray:
    """The subjects, sorted, that a split tests: 80 of 130, and in proportion of any other number."""
    subjects = np.unique(subjects)
    lot = philox("scface", split).random_raw(len(subjects))  # raw bits: stable across releases of NumPy
    return np.sort(subjects[np.argsort(lot, kind="stable")[: round(len(subjects) * TEST / SUBJECTS)]])


def evaluate(
    gallery: ArrayLike, gallery_subjects: ArrayLike, probes: ArrayLike, probe_subjects: ArrayLike, distances: ArrayLike
) -> Outcome:
    """Rank-1 of all people given, at each distance; weights go by probe.

    gallery (s, D), probes (p, D): float, mirror images already added, NaN row = failed acquisition; subjects: one per
    row; distances: int (p,), 1 ... 3. Metrics: rank1@d1 ..., rank1@d1_optimistic ...; decisions: rank1@d1 ..., of the
    probes there. Raises ValueError unless everybody has one gallery image and equally many probes at each distance.
    """
    gallery, gallery_failed = checked_embeddings(gallery, "gallery")
    probes, probe_failed = checked_embeddings(probes, "probes")
    probe_subjects, distances = np.asarray(probe_subjects), np.asarray(distances)
    if distances.shape != probes.shape[:1]:
        raise ValueError(f"probes {probes.shape} need one distance per row, not distances of shape {distances.shape}.")
    found = search(probes, gallery, probe_subjects, gallery_subjects)
    right = {"": hits(found, 1), "_optimistic": hits(optimistic(found), 1)}
    counts = {"subjects": len(gallery), "fta_gallery": int(gallery_failed.sum())}
    statistics, decisions = {}, {}
    for distance in np.unique(distances):
        chosen = distances == distance
        subjects, number = np.unique(probe_subjects[chosen], return_counts=True)
        if not np.array_equal(subjects, np.sort(gallery_subjects)) or len(set(number)) > 1:
            rule = "one mugshot, and as many probes as everybody else; without a face they are rows of NaN"
            raise ValueError(f"distance {distance}: every subject needs {rule}, never left out.")
        counts |= {f"probes@d{distance}": int(chosen.sum()), f"fta@d{distance}": int(probe_failed[chosen].sum())}
        statistics |= {f"rank1@d{distance}{ending}": mean_of(hit[chosen], chosen) for ending, hit in right.items()}
        decisions[f"rank1@d{distance}"] = right[""][chosen]
    metrics = {metric: statistic(np.ones(len(probes))) for metric, statistic in statistics.items()}
    return Outcome(len(probes), metrics, counts, decisions, statistics)


def evaluate_splits(
    gallery: ArrayLike, gallery_subjects: ArrayLike, probes: ArrayLike, probe_subjects: ArrayLike, distances: ArrayLike
) -> Outcome:
    """The same with each split's test subjects only: means over splits, and standard deviations (_sd, n-1).

    Counts are those of the first split. No decisions, since splits share probes. Raises ValueError like `evaluate`.
    """
    enrolled = [np.asarray(x) for x in (gallery, gallery_subjects)]
    shown = [np.asarray(x) for x in (probes, probe_subjects, distances)]
    splits = []  # outcome, and which probes were in it
    for split in range(SPLITS):
        tested = tested_subjects(gallery_subjects, split)
        mugshots, rows = np.isin(gallery_subjects, tested), np.isin(probe_subjects, tested)
        splits.append((evaluate(*(x[mugshots] for x in enrolled), *(x[rows] for x in shown)), rows))
    metrics, statistics = {}, {}
    for metric in splits[0][0].metrics:
        values = [outcome.metrics[metric] for outcome, _ in splits]
        metrics |= {metric: float(np.mean(values)), f"{metric}_sd": float(np.std(values, ddof=1))}
        parts = [(outcome.statistics[metric], rows) for outcome, rows in splits]
        statistics[metric] = lambda w, parts=parts: float(np.mean([statistic(w[rows]) for statistic, rows in parts]))
    return Outcome(len(shown[0]), metrics, {"splits": SPLITS} | splits[0][0].counts, {}, statistics)


def open_scface(root: Path) -> Opened:
    """Everybody, and the mean over the published splits; with the annotations' landmarks where there are any."""
    data = read_scface(root)
    roles = {f"distance {distance}": faces for distance, faces in data.probes.items()}
    subjects = np.concatenate([faces.ids for faces in roles.values()])
    distances = np.repeat(DISTANCES, [len(faces) for faces in roles.values()])
    draw = partial(draw_probes, identities=subjects, strata=np.zeros(len(subjects)))
    protocols = {}
    for name, rule in (("all subjects", evaluate), ("test subjects of the splits", evaluate_splits)):
        score = partial(rule, gallery_subjects=data.gallery.ids, probe_subjects=subjects, distances=distances)
        protocols[name] = Protocol(
            lambda x, score=score: score(x["gallery"], probes=np.concatenate([x[role] for role in roles])), draw
        )
    images = {role: images_of(faces, data.landmarks) for role, faces in {"gallery": data.gallery, **roles}.items()}
    policies = ("landmarks", "detect", "whole") if data.landmarks else ("detect", "whole")
    return Opened("scface", images, data.counts, protocols, policies)
