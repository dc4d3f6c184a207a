"""TinyFace: closed-set search among distractors for native small faces (about 20 x 16 pixels), brought by the user.

Cheng, Zhu and Gong, "Low-resolution face recognition", ACCV 2018; its files: docs/benchmarks/tinyface.md. The rules are
those of the set's own MATLAB code (test_face_identification.m, compute_AP.m): the gallery is Gallery_Match and all of
Gallery_Distractor; a probe is a hit at rank k if any of its mates is among the k nearest; average precision by
trapezoids. That code takes the features as submitted and leaves ties to the sort. Here features are brought to length 1
(so distance and cosine rank alike) and ties are pessimistic; what an optimistic sort would give is printed beside.

A failed acquisition stays in: a probe that failed, or whose every mate failed, is a miss with average precision 0; with
other mates left, the failed mate ranks last.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from numpy.typing import ArrayLike

from lrfr.benchmarks.outcomes import Opened, Outcome, Protocol, draw_probes, failures, images_of, mean_of
from lrfr.benchmarks.search import average_precisions, checked_embeddings, hits, optimistic, require_mates, search
from lrfr.errors import UserError
from lrfr.gate.matlab import read_ids, read_names
from lrfr.gate.trees import Count, Faces, identical, images_in, locate, prefix_number, same_names

NAME, TEST, LISTS = "tinyface", "Testing_Set", "Face_Identification_Evaluation"
DISTRACTOR = -100  # the official code's identity of every distractor
RANKS = (1, 5, 10, 20, 50)  # 1, 20, 50 in the paper; 1, 5, 20 in AdaFace and its descendants; 10 is a step between


def read_roles(folder: Path, roles: Mapping[str, str], everybody: Sequence[str]) -> tuple[list[Faces], set[int]]:
    """Faces of subfolders in the order of their .mat lists, as QMUL's two sets have them, and their people's numbers.

    roles: subfolder -> what the variables of its list begin with: file names in `<...>_set`, identities in `<...>_ids`.
    Lists lie in the folder or in LISTS beside it. UserError, naming list and entry, unless a list names every file
    once, numbers in names and identities go together one to one, and the roles in `everybody` have each person.
    """
    found, identity, number_of = {}, {}, {}
    for role, variable in roles.items():
        name = f"{role.lower()}_img_ID_pairs.mat"
        other = folder.with_name(LISTS) / name
        source = other if other.is_file() and not (folder / name).is_file() else folder / name
        names = [name for (name,) in read_names(source, f"{variable}_set", columns=1)]
        same_names(names, images_in(folder / role), source, folder / role)
        ids = read_ids(source, f"{variable}_ids", len(names))
        for row, (name, person) in enumerate(zip(names, ids.tolist(), strict=True), start=1):
            number = prefix_number(name, where := f"{source}, entry {row}")
            if identity.setdefault(number, person) != person or number_of.setdefault(person, number) != number:
                raise UserError(f"{where}: {name!r} has identity {person}, others contradict; fetch the list again.")
        found[role] = Faces(folder / role, tuple(names), ids), source
    for (faces, source), (others, other) in product(found.values(), (found[role] for role in everybody)):
        if len(missing := np.flatnonzero(~np.isin(faces.ids, others.ids))):
            where = f"{source}, entry {missing[0] + 1}"
            raise UserError(f"{where}: identity {faces.ids[missing[0]]} is not in {other}; fetch both again.")
    return [faces for faces, _ in found.values()], set(identity)


def read_tinyface(root: Path) -> SimpleNamespace:
    """gallery, probes and distractors (Faces; distractors have id -100), counts, of the folder `tinyface` or around it.

    All files' bytes are read once. UserError, naming file and entry, like `read_roles`, for a probe without a mate, or
    for one file in gallery and probes.
    """
    root = locate(root, NAME, TEST)
    (gallery, probes), _ = read_roles(root / TEST, {"Gallery_Match": "gallery", "Probe": "probe"}, ["Gallery_Match"])
    names = images_in(folder := root / TEST / "Gallery_Distractor")
    distractors = Faces(folder, tuple(names), np.full(len(names), DISTRACTOR, np.int64))
    mates = Counter(gallery.ids.tolist())
    counts = (  # published: the readme in the archive; of the pairs, one audit's number
        Count("probes", len(probes), 3_728),
        Count("gallery images with a mate", len(gallery), 4_443),
        Count("distractors", len(distractors), 153_428),
        Count("people among the probes", len(np.unique(probes.ids)), 2_569),
        Count("people in the gallery", len(mates), 2_569),
        Count("genuine pairs", sum(mates[person] for person in probes.ids.tolist()), 12_308),
        Count("gallery images identical to a probe", identical(gallery, probes, "gallery against probes"), None),
        Count("distractors identical to a probe", identical(distractors, probes, "distractors against probes"), None),
    )
    return SimpleNamespace(gallery=gallery, probes=probes, distractors=distractors, counts=counts)


def evaluate(
    probes: ArrayLike, probe_labels: ArrayLike, gallery: ArrayLike, gallery_labels: ArrayLike, distractors: ArrayLike
) -> Outcome:
    """Rank-k rates and mean average precision; decisions and weights go by probe.

    probes (p, D), gallery (g, D), distractors (d, D): float, mirror images already added (the official code has none),
    NaN row = failed acquisition. Labels: one per row, of one type. Metrics: rank1 ... rank50, map, rank1_optimistic,
    map_optimistic. Raises ValueError if a probe has no mate in the gallery, or like `search.search`.
    """
    parts = {"probes": probes, "gallery": gallery, "distractors": distractors}
    (probes, gallery, distractors), failed = zip(*map(checked_embeddings, parts.values(), parts), strict=True)
    if gallery.shape[1] != distractors.shape[1]:
        raise ValueError(f"gallery {gallery.shape} and distractors {distractors.shape} need the same dimensions.")
    people, number = np.unique(np.concatenate([probe_labels, gallery_labels]), return_inverse=True)
    own, others = np.split(number, [len(probe_labels)])
    nobody = np.full(len(distractors), len(people))  # a label that no probe has
    found = search(probes, np.concatenate([gallery, distractors]), own, np.concatenate([others, nobody]))
    require_mates(found)
    decisions = {f"rank{k}": hits(found, k) for k in RANKS} | {"rank1_optimistic": hits(optimistic(found), 1)}
    values = decisions | {"map": average_precisions(found), "map_optimistic": average_precisions(optimistic(found))}
    metrics = {metric: float(np.mean(value)) for metric, value in values.items()}
    statistics = {metric: mean_of(value) for metric, value in values.items()}
    return Outcome(len(probes), metrics, failures(dict(zip(parts, failed, strict=True))), decisions, statistics)


def open_tinyface(root: Path) -> Opened:
    """Read the set at a root; UserError like `read_tinyface`."""
    data = read_tinyface(root)
    probes, gallery = data.probes.ids, data.gallery.ids
    draw = partial(draw_probes, identities=probes, strata=np.zeros(len(probes)))
    protocol = Protocol(lambda x: evaluate(x["probes"], probes, x["gallery"], gallery, x["distractors"]), draw)
    images = {role: images_of(getattr(data, role)) for role in ("probes", "gallery", "distractors")}
    return Opened("tinyface", images, data.counts, {"identification": protocol}, ("whole", "detect"))
