"""TinyFace: closed-set search among distractors for native small faces (about 20 x 16 pixels), brought by the user.

Cheng, Zhu and Gong, "Low-resolution face recognition", ACCV 2018. No explicit licence, research use. The files:

    tinyface/Training_Set/<person>/<person>_<image>.jpg
    tinyface/Testing_Set/{Probe,Gallery_Match,Gallery_Distractor}/*.jpg
    tinyface/Testing_Set/{probe,gallery_match}_img_ID_pairs.mat     or both in tinyface/Face_Identification_Evaluation

The rules are those of the set's own MATLAB code (test_face_identification.m, compute_AP.m): the gallery is
Gallery_Match and all of Gallery_Distractor; a probe is a hit at rank k if any of its mates is among the k nearest;
average precision by trapezoids. That code ranks by the Euclidean distance of the features as submitted and leaves ties
to the sort. Here features are brought to length 1 (so distance and cosine rank alike) and ties are pessimistic; what an
optimistic sort would give is printed beside.

A failed acquisition stays in: a probe that failed, or whose every mate failed, is a miss with average precision 0. Of a
probe with other mates left, the failed mate ranks last.
"""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from lrfr.benchmarks.outcomes import Opened, Outcome, Protocol, draw_probes, images_of, mean_of
from lrfr.benchmarks.search import average_precisions, checked_embeddings, hits, optimistic, require_mates, search
from lrfr.errors import UserError
from lrfr.gate.matlab import read_ids, read_names
from lrfr.gate.trees import Count, Faces, Folders, identical, images_in, locate, prefix_number, read_folders, same_names

NAME, TEST, TRAINING = "tinyface", "Testing_Set", "Training_Set"
LISTS = (TEST, "Face_Identification_Evaluation")
DISTRACTOR = -100  # the official code's identity of every distractor
PEOPLE, TRAINING_IMAGES, TRAINING_PEOPLE = 2_569, 7_804, 2_570  # published: the readme in the archive, as below
RANKS = (1, 5, 10, 20, 50)  # 1, 20, 50 in the paper; 1, 5, 20 in AdaFace and its descendants; 10 is a step between


class TinyFace(NamedTuple):
    """Probes are searched in gallery and distractors together. Distractors have id -100; every probe has a mate.

    counts: observed numbers next to published ones; `identical` ones have the same bytes in two roles under two names.
    """

    gallery: Faces
    probes: Faces
    distractors: Faces
    counts: tuple[Count, ...]


def read_role(folder: Path, places: tuple[Path, ...], list_name: str, variable: str) -> tuple[Faces, Path]:
    """Faces of a folder in the order of its .mat list, as QMUL's two sets have them, and the list's path.

    places: the folders where archives have the list; the first that has it counts. The list has the file names in
    `<variable>_set` and the identities in `<variable>_ids`, and must name every file once, else UserError.
    """
    source = next((place / list_name for place in places if (place / list_name).is_file()), places[0] / list_name)
    names = [name for (name,) in read_names(source, f"{variable}_set", columns=1)]
    same_names(names, images_in(folder), source, folder)
    return Faces(folder, tuple(names), read_ids(source, f"{variable}_ids", len(names))), source


def person_numbers(roles: list[tuple[Faces, Path]]) -> dict[int, int]:
    """Number at the start of the file names -> identity in the lists; UserError unless they go together one to one."""
    identity: dict[int, int] = {}
    number_of: dict[int, int] = {}
    for faces, source in roles:
        for row, (name, person) in enumerate(zip(faces.names, faces.ids.tolist(), strict=True), start=1):
            where = f"{source}, entry {row}"
            number = prefix_number(name, where)
            if identity.setdefault(number, person) != person or number_of.setdefault(person, number) != number:
                raise UserError(f"{where}: {name!r} has identity {person}, others contradict; fetch the list again.")
    return identity


def read_tinyface(root: Path) -> TinyFace:
    """Read the test part at a root, the folder `tinyface` or the one that holds it. All files' bytes are read once.

    Raises UserError naming the file and entry that is wrong: folders and lists that differ, names or numbers that
    cannot be, a person with two identities, a probe without a mate, or one file in the gallery and among the probes.
    """
    root = locate(root, NAME, TEST)
    places, test = tuple(root / folder for folder in LISTS), root / TEST
    probes, probe_list = read_role(test / "Probe", places, "probe_img_ID_pairs.mat", "probe")
    gallery, gallery_list = read_role(test / "Gallery_Match", places, "gallery_match_img_ID_pairs.mat", "gallery")
    names = images_in(test / "Gallery_Distractor")
    distractors = Faces(test / "Gallery_Distractor", tuple(names), np.full(len(names), DISTRACTOR, np.int64))
    person_numbers([(gallery, gallery_list), (probes, probe_list)])
    mates = Counter(gallery.ids.tolist())
    for row, person in enumerate(probes.ids.tolist(), start=1):
        if person not in mates:
            raise UserError(f"{probe_list}, entry {row}: identity {person} is not in the gallery; fetch both again.")
    counts = (
        Count("probes", len(probes), 3_728),
        Count("gallery images with a mate", len(gallery), 4_443),
        Count("distractors", len(distractors), 153_428),
        Count("people among the probes", len(np.unique(probes.ids)), PEOPLE),
        Count("people in the gallery", len(mates), PEOPLE),
        Count(
            "genuine pairs", sum(mates[person] for person in probes.ids.tolist()), 12_308
        ),  # one audit's, not the authors'
        Count("gallery images identical to a probe", identical(gallery, probes, "gallery against probes"), None),
        Count("distractors identical to a probe", identical(distractors, probes, "distractors against probes"), None),
    )
    return TinyFace(gallery, probes, distractors, counts)


def read_training(root: Path) -> Folders:
    """The training part at the same root; UserError like `trees.read_folders`."""
    return read_folders(locate(root, NAME, TRAINING) / TRAINING, TRAINING_IMAGES, TRAINING_PEOPLE, numbered=True)


def evaluate(
    probes: ArrayLike, probe_labels: ArrayLike, gallery: ArrayLike, gallery_labels: ArrayLike, distractors: ArrayLike
) -> Outcome:
    """Rank-k rates and mean average precision; decisions and weights go by probe.

    probes (p, D), gallery (g, D), distractors (d, D): float, images and their mirror images already fused (the official
    code takes one feature per image; insightface and AdaFace add the two), NaN row = failed acquisition. Labels: one
    per row, of one type, the same person the same label; distractors have none. Metrics: rank1 ... rank50, map,
    rank1_optimistic, map_optimistic. Raises ValueError if a probe has no mate in the gallery, or like `search.search`.
    """
    given = {"probes": probes, "gallery": gallery, "distractors": distractors}
    parts = {name: checked_embeddings(x, name) for name, x in given.items()}
    probes, gallery, distractors = (x for x, _ in parts.values())
    if gallery.shape[1] != distractors.shape[1]:
        raise ValueError(f"gallery {gallery.shape} and distractors {distractors.shape} need the same dimensions.")
    labels = [np.asarray(probe_labels), np.asarray(gallery_labels)]
    people, number = np.unique(np.concatenate(labels), return_inverse=True)
    own, others = np.split(number, [len(labels[0])])
    nobody = np.full(len(distractors), len(people))  # a label that no probe has
    found = search(probes, np.concatenate([gallery, distractors]), own, np.concatenate([others, nobody]))
    require_mates(found)
    decisions = {f"rank{k}": hits(found, k) for k in RANKS} | {"rank1_optimistic": hits(optimistic(found), 1)}
    precisions = {"map": average_precisions(found), "map_optimistic": average_precisions(optimistic(found))}
    values = decisions | precisions
    counts = {name: len(failed) for name, (_, failed) in parts.items()}
    counts |= {f"fta_{name}": int(failed.sum()) for name, (_, failed) in parts.items()}
    metrics = {metric: float(np.mean(value)) for metric, value in values.items()}
    statistics = {metric: mean_of(value) for metric, value in values.items()}
    return Outcome(len(probes), metrics, counts, decisions, statistics)


def open_tinyface(root: Path) -> Opened:
    """Read the set at a root, with its training part if that is there; UserError like the readers."""
    data = read_tinyface(root)
    probes, gallery = data.probes.ids, data.gallery.ids
    protocol = Protocol(
        lambda x: evaluate(x["probes"], probes, x["gallery"], gallery, x["distractors"]),
        partial(draw_probes, identities=probes, strata=np.zeros(len(probes))),
    )
    images = {role: images_of(getattr(data, role)) for role in ("probes", "gallery", "distractors")}
    there = any((folder / TRAINING).is_dir() for folder in (root, root / NAME))
    counts = data.counts + (read_training(root).counts if there else ())
    return Opened("tinyface", images, counts, {"identification": protocol}, ("whole", "detect"))
