"""TinyFace: closed-set identification among native small faces (about 20 x 16 pixels), brought by the user.

Cheng, Zhu and Gong, "Low-resolution face recognition", ACCV 2018. No explicit licence, research use. The files:

    tinyface/Training_Set/<person>/<person>_<image>.jpg
    tinyface/Testing_Set/{Probe,Gallery_Match,Gallery_Distractor}/*.jpg
    tinyface/Testing_Set/{probe,gallery_match}_img_ID_pairs.mat     or both in tinyface/Face_Identification_Evaluation
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lrfr.benchmarks.listed import person_numbers, read_role
from lrfr.errors import UserError
from lrfr.gate.trees import Count, Faces, Folders, identical, images_in, locate, read_folders

NAME, TEST, LISTS = "tinyface", "Testing_Set", ("Testing_Set", "Face_Identification_Evaluation")
DISTRACTOR = -100  # the official code's identity of every distractor
# Published: the readme in the archive. The genuine pairs are one audit's count, the authors name none.
PROBES, MATCHES, DISTRACTORS, PEOPLE, PAIRS = 3_728, 4_443, 153_428, 2_569, 12_308
TRAINING_IMAGES, TRAINING_PEOPLE = 7_804, 2_570


class TinyFace(NamedTuple):
    """Probes are searched in gallery and distractors together. Distractors have id -100; every probe has a mate.

    counts: observed numbers next to published ones; `identical` ones have the same bytes in two roles under two names.
    """

    gallery: Faces
    probes: Faces
    distractors: Faces
    counts: tuple[Count, ...]


def read_tinyface(root: Path) -> TinyFace:
    """Read the test part at a root, the folder `tinyface` or the one that holds it. All files' bytes are read once.

    Raises
    ------
    UserError
        naming the file and entry that is wrong: folders and lists that differ, names or numbers that cannot be, a person with
        two identities, a probe without a mate, or one file in the gallery and among the probes.
    """
    root = locate(root, NAME, TEST)
    places = tuple(root / folder for folder in LISTS)
    probes, probe_list = read_role(root / TEST / "Probe", places, "probe_img_ID_pairs.mat", "probe")
    gallery, gallery_list = read_role(
        root / TEST / "Gallery_Match", places, "gallery_match_img_ID_pairs.mat", "gallery"
    )
    names = images_in(root / TEST / "Gallery_Distractor")
    distractors = Faces(root / TEST / "Gallery_Distractor", tuple(names), np.full(len(names), DISTRACTOR, np.int64))
    person_numbers([(gallery, gallery_list), (probes, probe_list)])
    mates = Counter(gallery.ids.tolist())
    for row, person in enumerate(probes.ids.tolist(), start=1):
        if person not in mates:
            raise UserError(
                f"{probe_list}, entry {row}: identity {person} is not in the gallery; fetch the lists again."
            )
    counts = (
        Count("probes", len(probes), PROBES),
        Count("gallery images with a mate", len(gallery), MATCHES),
        Count("distractors", len(distractors), DISTRACTORS),
        Count("people among the probes", len(np.unique(probes.ids)), PEOPLE),
        Count("people in the gallery", len(mates), PEOPLE),
        Count("genuine pairs", sum(mates[person] for person in probes.ids.tolist()), PAIRS),
        Count("gallery images identical to a probe", identical(gallery, probes, "gallery against probes"), None),
        Count("distractors identical to a probe", identical(distractors, probes, "distractors against probes"), None),
    )
    return TinyFace(gallery, probes, distractors, counts)


def read_training(root: Path) -> Folders:
    """The training part at the same root; UserError like `folders.read_folders`."""
    return read_folders(
        locate(root, NAME, "Training_Set") / "Training_Set", TRAINING_IMAGES, TRAINING_PEOPLE, numbered=True
    )
