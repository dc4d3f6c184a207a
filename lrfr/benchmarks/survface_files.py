"""QMUL-SurvFace: faces from surveillance cameras (about 24 x 20 pixels), verification and open-set search, brought by the user.

Cheng, Zhu and Gong, "Surveillance face recognition challenge", arXiv 1804.09691, 2018. Research use; a part of the videos from
which it was cut was withdrawn by their owners later. The files:

    QMUL-SurvFace/training_set/<person>/<person>_cam<c>_<n>.jpg
    QMUL-SurvFace/Face_Identification_Test_Set/{gallery,mated_probe,unmated_probe}/*.jpg
    QMUL-SurvFace/Face_Identification_Test_Set/{gallery,mated_probe}_img_ID_pairs.mat   or in Face_Identification_Evaluation
    QMUL-SurvFace/Face_Verification_Test_Set/{verification_images/*.jpg,positive_pairs_names.mat,negative_pairs_names.mat}
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lrfr.benchmarks.listed import person_numbers, read_role
from lrfr.errors import UserError
from lrfr.gate.matlab import read_names
from lrfr.gate.trees import Count, Faces, Folders, identical, images_in, locate, prefix_number, read_folders

NAME = "QMUL-SurvFace"
SEARCH, SEARCH_CODE, PAIRED = (
    "Face_Identification_Test_Set",
    "Face_Identification_Evaluation",
    "Face_Verification_Test_Set",
)
STRANGER = -1  # an unmated probe whose file has no person's number: distractors_<n>.jpg
# Published by the set's page: the training images, and 3,000 people enrolled. The rest is what one audit of the archive found;
# it also found 220,888 training images and 2,965 people enrolled.
GALLERY, MATED, UNMATED, ENROLLED, PAIRS, PAIRED_IMAGES = 60_294, 60_423, 121_736, 3_000, 5_320, 10_051
TRAINING_IMAGES, TRAINING_PEOPLE = 220_890, 5_319


class Search(NamedTuple):
    """Open-set identification. A template is made of all gallery images of one id; unmated probes never enter the gallery.

    gallery, mated: ids are the lists' identities. unmated: ids are the numbers in the file names, -1 where there is none; they
    count persons differently from the lists and say only who is the same among them.
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


def read_search(root: Path) -> Search:
    """Read the identification part at a root, the folder QMUL-SurvFace or the one that holds it. All bytes are read once.

    Raises
    ------
    UserError
        naming the file and entry that is wrong: folders and lists that differ, a person with two identities, different people in
        gallery and mated probes, an unmated probe of an enrolled person, or one file in the gallery and among the probes.
    """
    root = locate(root, NAME, SEARCH)
    places = (root / SEARCH, root / SEARCH_CODE)
    roles = [
        read_role(root / SEARCH / role, places, f"{role}_img_ID_pairs.mat", role) for role in ("gallery", "mated_probe")
    ]
    (gallery, gallery_list), (mated, mated_list) = roles
    enrolled = person_numbers(roles)
    for (one, source), other in zip(roles, (mated, gallery), strict=True):
        alone = np.flatnonzero(~np.isin(one.ids, other.ids))
        if len(alone):
            missing = mated_list if one is gallery else gallery_list
            raise UserError(
                f"{source}, entry {alone[0] + 1}: identity {one.ids[alone[0]]} is not in {missing}; fetch them again."
            )
    folder = root / SEARCH / "unmated_probe"
    names = images_in(folder)
    numbers = [STRANGER if name.startswith("distractors_") else prefix_number(name, folder) for name in names]
    for name, number in zip(names, numbers, strict=True):
        if number in enrolled:
            raise UserError(
                f"{folder / name}: person {number} is in the gallery, so the probe is mated; unpack the set again."
            )
    unmated = Faces(folder, tuple(names), np.array(numbers, np.int64))
    counts = (
        Count("gallery images", len(gallery), GALLERY),
        Count("mated probes", len(mated), MATED),
        Count("unmated probes", len(unmated), UNMATED),
        Count("unmated probes without a person's number", numbers.count(STRANGER), None),
        Count("people in the gallery", len(np.unique(gallery.ids)), ENROLLED),
        Count("gallery images identical to a mated probe", identical(gallery, mated, "gallery against mated"), None),
        Count(
            "gallery images identical to an unmated probe", identical(gallery, unmated, "gallery against unmated"), None
        ),
    )
    return Search(gallery, mated, unmated, counts)


def read_verification(root: Path) -> Verification:
    """Read the verification part at a root.

    Raises
    ------
    UserError
        naming the list and entry that is wrong: a name that is not there, a positive pair of two people or a negative pair of
        one, or lists of different length.
    """
    root = locate(root, NAME, PAIRED)
    folder = root / PAIRED / "verification_images"
    names = images_in(folder)
    numbers = np.array([prefix_number(name, folder) for name in names], np.int64)
    place = {name: i for i, name in enumerate(names)}
    rows: list[tuple[int, int]] = []
    lengths = []
    for kind, positive in (("positive", True), ("negative", False)):
        source = root / PAIRED / f"{kind}_pairs_names.mat"
        pairs = read_names(source, f"{kind}_pairs_names", columns=2)
        for row, pair in enumerate(pairs, start=1):
            unknown = [name for name in pair if name not in place]
            if unknown:
                raise UserError(f"{source}, entry {row}: {unknown[0]!r} is not in {folder}; unpack the set again.")
            a, b = (place[name] for name in pair)
            if (numbers[a] == numbers[b]) != positive:
                people = "two people" if positive else "one person"
                raise UserError(f"{source}, entry {row}: a {kind} pair of {people}; fetch the list again.")
            rows.append((a, b))
        lengths.append(len(pairs))
    if lengths[0] != lengths[1]:
        raise UserError(
            f"{root / PAIRED}: {lengths[0]} positive and {lengths[1]} negative pairs; fetch the lists again."
        )
    same = np.arange(len(rows)) < lengths[0]
    counts = (
        Count("positive pairs", lengths[0], PAIRS),
        Count("negative pairs", lengths[1], PAIRS),
        Count("images to be verified", len(names), PAIRED_IMAGES),
    )
    return Verification(Faces(folder, tuple(names), numbers), np.array(rows, np.int64), same, counts)


def read_training(root: Path) -> Folders:
    """The training part at the same root; UserError like `read_folders`, or if a test person's number is among its folders."""
    root = locate(root, NAME, "training_set")
    training = read_folders(root / "training_set", TRAINING_IMAGES, TRAINING_PEOPLE, numbered=True)
    people = {int(person) for person in training.people}
    for role in ("gallery", "mated_probe", "unmated_probe"):
        folder = root / SEARCH / role
        for name in images_in(folder) if folder.is_dir() else ():
            if not name.startswith("distractors_") and prefix_number(name, folder) in people:
                raise UserError(f"{folder / name}: its person is in {root / 'training_set'} too; unpack the set again.")
    return training
