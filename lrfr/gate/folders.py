"""A folder for each person, images inside: CASIA-WebFace, VGGFace2, and the training parts of TinyFace and QMUL-SurvFace."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from lrfr.errors import UserError
from lrfr.gate.trees import Count, Faces, entries, images_in, is_image, prefix_number
from lrfr.progress import bar


class Folders(NamedTuple):
    """Faces with names "person/file" and ids 0, 1, 2, ... in the order of `people`, the sorted names of the folders."""

    faces: Faces
    people: tuple[str, ...]
    counts: tuple[Count, ...]


def read_folders(root: Path, images: int | None = None, people: int | None = None, numbered: bool = False) -> Folders:
    """Read a tree of one folder a person.

    images, people: published numbers, for the counts only. numbered: whether every file must be called N_..., where N is the
    number that is its folder's name (TinyFace, QMUL-SurvFace). Other files beside the folders (lists, notes) are left alone.

    Raises
    ------
    UserError
        naming the first image outside of a person's folder, empty folder, folder inside a person's folder, file that is no
        image, name that cannot be used, or file of another person's number.
    """
    folders, files = entries(root)
    for name in files:
        if is_image(name):
            raise UserError(f"{root / name}: an image outside of a person's folder; put it into one or remove it.")
    if not folders:
        raise UserError(f"{root}: no folder there; give a folder that has one folder a person.")
    names: list[str] = []
    ids: list[int] = []
    for label, person in enumerate(bar(folders, root.name)):
        inside = images_in(root / person)
        for name in inside if numbered else ():
            number = prefix_number(name, root / person)
            if not person.isdecimal() or int(person) != number:
                raise UserError(
                    f"{root / person / name}: belongs to person {number}, not {person}; unpack the set again."
                )
        names += [f"{person}/{name}" for name in inside]
        ids += [label] * len(inside)
    counts = Count("training images", len(names), images), Count("training people", len(folders), people)
    return Folders(Faces(root, tuple(names), np.array(ids, np.int64)), tuple(folders), counts)
