"""Folders of images that nobody has checked, and what every reader of a set shares: counts, and checks of names."""

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lrfr.errors import UserError
from lrfr.gate.images import SUFFIXES, read_pixels, refusing
from lrfr.progress import bar

LITTER = {"thumbs.db", "desktop.ini"}  # what systems leave in folders; anything else is an image or a reason to stop


class Count(NamedTuple):
    """What is counted in a set, how many there are here, and how many its authors name (None: nobody says)."""

    what: str
    observed: int
    published: int | None


@dataclass(frozen=True)
class Faces:
    """Image files of one role of a set, in the set's order.

    folder: where they are. names: (N,) file names, with a subfolder and "/" where the set has one. ids: int64 (N,),
    identities; what negative numbers mean is said by the reader.
    """

    folder: Path
    names: tuple[str, ...]
    ids: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.names)

    def read(self, i: int) -> NDArray[np.uint8]:
        """The pixels of image i, uint8 (H, W, 3) RGB; UserError if they cannot be read."""
        return read_pixels(self.folder / self.names[i])


class Folders(NamedTuple):
    """Faces with names "person/file" and ids 0, 1, 2, ... in the order of `people`, the sorted names of the folders."""

    faces: Faces
    people: tuple[str, ...]
    counts: tuple[Count, ...]


def is_plain(name: str) -> bool:
    """Whether this names a file in a folder and can be written into a table; bytes that are no UTF-8 cannot."""
    return name not in ("", ".", "..") and not {"/", "\\"} & set(name) and name.isprintable()


def check_name(name: str, where: str | Path) -> None:
    """UserError for a name that is not plain."""
    if not is_plain(name):
        reason = "is not the name of a file, or has bytes that are no UTF-8, or control characters"
        raise UserError(f"{where}: the name {name!r} {reason}; fetch the set again.")


def prefix_number(name: str, where: str | Path) -> int:
    """The whole number before the first "_" of a file's name; UserError if there is none."""
    if match := re.match(r"(\d{1,9})_", name, re.ASCII):
        return int(match[1])
    raise UserError(f"{where}: the name {name!r} does not start with a person's number and '_'; fetch the set again.")


def entries(folder: Path) -> tuple[list[str], list[str]]:
    """Names of the subfolders and of the files in a folder, each sorted, without hidden ones and what systems leave.

    Raises UserError if it cannot be read, or holds a name that `check_name` refuses, or neither a file nor a folder.
    """
    folders, files = [], []
    with refusing(folder, "a folder", "give the set's folder"):
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
            if entry.name.startswith(".") or entry.name.lower() in LITTER:
                continue
            check_name(entry.name, folder)
            if not (entry.is_dir() or entry.is_file()):
                raise UserError(f"{folder / entry.name}: neither a file nor a folder; remove it.")
            (folders if entry.is_dir() else files).append(entry.name)
    return folders, files


def images_in(folder: Path) -> list[str]:
    """Sorted names of the images in a folder that holds nothing else; UserError if it does, or is empty."""
    folders, files = entries(folder)
    if others := [*folders, *(name for name in files if Path(name).suffix.lower() not in SUFFIXES)]:
        raise UserError(f"{folder / others[0]}: not an image, and the set has only images there; remove it.")
    if not files:
        raise UserError(f"{folder}: no image there; unpack the set again.")
    return files


def locate(root: Path, name: str, inside: str) -> Path:
    """The folder of a set: `root` or `root/name`, whichever has the folder `inside`; UserError if none has."""
    for folder in (root, root / name):
        if (folder / inside).is_dir():
            return folder
    raise UserError(
        f"{root}: no folder {inside} there or in {name}; unpack it first (`lrfr unpack`), or give its folder."
    )


def read_folders(root: Path, images: int | None = None, people: int | None = None, numbered: bool = False) -> Folders:
    """Read a tree of one folder a person (CASIA-WebFace, VGGFace2, the training parts of TinyFace and QMUL-SurvFace).

    images, people: published numbers, for the counts only. numbered: whether every file must be called N_..., where N
    is the number that is its folder's name (QMUL's sets). Other files beside the folders (lists, notes) are left alone.
    Raises UserError naming the first image outside of a person's folder, or what does not belong into one.
    """
    folders, files = entries(root)
    for name in files:
        if Path(name).suffix.lower() in SUFFIXES:
            raise UserError(f"{root / name}: an image outside of a person's folder; put it into one or remove it.")
    if not folders:
        raise UserError(f"{root}: no folder there; give a folder that has one folder a person.")
    names: list[str] = []
    ids: list[int] = []
    for label, person in enumerate(bar(folders, root.name)):
        for name in images_in(root / person):
            if numbered and prefix_number(name, root / person) != (int(person) if person.isdecimal() else None):
                reason = f"belongs to another person than {person}"
                raise UserError(f"{root / person / name}: {reason}; unpack the set again.")
            names.append(f"{person}/{name}")
            ids.append(label)
    counts = Count("training images", len(names), images), Count("training people", len(folders), people)
    return Folders(Faces(root, tuple(names), np.array(ids, np.int64)), tuple(folders), counts)


def same_names(listed: list[str], there: list[str], source: Path, folder: Path) -> None:
    """UserError unless a list names every file of a folder, each once, and nothing else."""
    left = set(there)
    for row, name in enumerate(listed, start=1):
        if name not in left:
            reason = "is listed twice" if name in there else f"is not in {folder}"
            raise UserError(f"{source}, entry {row}: {name!r} {reason}; fetch list and set again.")
        left.remove(name)
    if left:
        what = f"this file and {len(left) - 1} others are not in {source}"
        raise UserError(f"{folder / min(left)}: {what}; remove them.")


def digest(path: Path) -> str:
    """The sha256 of a file; UserError if it cannot be read."""
    with refusing(path, "a file", "unpack the set again"), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def identical(first: Faces, second: Faces, description: str) -> int:
    """How many images of `first` have the bytes of one of `second`; UserError if one has its name too."""
    found = [[(digest(faces.folder / n), n) for n in bar(faces.names, description)] for faces in (first, second)]
    if both := set(found[0]) & set(found[1]):
        name, places = min(name for _, name in both), f"{first.folder.name} and {second.folder.name}"
        raise UserError(f"{first.folder / name}: the same file is in {places}; unpack the set again.")
    other = {data for data, _ in found[1]}
    return sum(data in other for data, _ in found[0])


def files_below(folder: Path) -> list[Path]:
    """All files in a folder and in the folders below, without hidden ones and what systems leave behind."""
    folders, files = entries(folder)
    below = [folder / name for name in files]
    for name in folders:
        if (folder / name).is_symlink():
            raise UserError(f"{folder / name}: a link to a folder, which may lead anywhere; put it there itself.")
        below += files_below(folder / name)
    return below


def make_listing(place: Path) -> bytes:
    """Which bytes a set, a folder or one file, consists of, since results depend on it: CSV with name and sha256."""
    base, paths = (place, sorted(files_below(place))) if place.is_dir() else (place.parent, [place])
    rows = [(path.relative_to(base).as_posix(), digest(path)) for path in bar(paths, place.name)]
    return pd.DataFrame(rows, columns=["name", "sha256"]).to_csv(index=False, lineterminator="\n").encode()


def check_listing(place: Path, listing: Path, command: str) -> None:
    """UserError unless the set is, byte for byte, the one of a listing; command: that writes it."""
    if make_listing(place) != (listing.read_bytes() if listing.is_file() else None):
        what = f"its files are not those in {listing}, or that list is missing"
        raise UserError(f"{place}: {what}; restore them, or run `{command}` again.")
