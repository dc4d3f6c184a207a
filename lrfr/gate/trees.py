"""What the readers of benchmark sets share: image files of one role, counts next to published ones, and checks of names."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lrfr.errors import UserError
from lrfr.gate.images import read_image
from lrfr.progress import bar

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".pgm", ".ppm", ".webp"}  # of the sets that we read, and of copies of them
# Files that systems leave in folders; what is not listed here is either an image or a reason to stop.
LITTER = {"thumbs.db", "desktop.ini"}


class Count(NamedTuple):
    """One number of a set: what is counted, how many there are here, and how many its authors name (None: nobody says)."""

    what: str
    observed: int
    published: int | None


@dataclass(frozen=True)
class Faces:
    """Image files of one role of a set, in the set's order.

    folder: where they are. names: (N,) file names, with a subfolder and "/" where the set has one. ids: int64 (N,), the
    identities; what negative numbers mean is said by the reader.
    """

    folder: Path
    names: tuple[str, ...]
    ids: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.names)

    @property
    def keys(self) -> list[tuple[str, str]]:
        """(folder, name) of every image: a name alone is not unique, sets use one name in several roles."""
        return [(self.folder.name, name) for name in self.names]

    def read(self, i: int) -> NDArray[np.uint8]:
        """The pixels of image i, uint8 (H, W, 3) RGB; UserError if they cannot be read."""
        return read_image(self.folder / self.names[i])


def shown(name: str) -> str:
    """A name for messages: bytes that are no UTF-8, and control characters, are escaped."""
    return repr(name.encode("utf-8", "backslashreplace").decode("utf-8"))


def check_name(name: str, where: str | Path) -> None:
    """UserError for the name of a file that would lead elsewhere, or that could not be written into a table."""
    reason = None
    if "/" in name or "\\" in name or name in ("", ".", ".."):
        reason = "is not the name of a file in this set's folder"
    elif not name.isprintable():  # surrogates, which stand for bytes that are no UTF-8, are not printable either
        reason = "has bytes that are no UTF-8, or control characters"
    if reason:
        raise UserError(f"{where}: the name {shown(name)} {reason}; fetch the set again.")


def entries(folder: Path) -> tuple[list[str], list[str]]:
    """Names of the subfolders and of the files in a folder, each sorted; without hidden files and what systems leave behind.

    Raises
    ------
    UserError
        if the folder cannot be read, or holds a name that `check_name` refuses or something that is neither file nor folder.
    """
    folders, files = [], []
    try:
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
            if entry.name.startswith(".") or entry.name.lower() in LITTER:
                continue
            check_name(entry.name, folder)
            if not (entry.is_dir() or entry.is_file()):
                raise UserError(f"{folder / entry.name}: neither a file nor a folder; remove it.")
            (folders if entry.is_dir() else files).append(entry.name)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{folder}: cannot be read as a folder ({type(error).__name__}); give the set's folder."
        ) from None
    return folders, files


def is_image(name: str) -> bool:
    """Whether a name ends like that of an image."""
    return os.path.splitext(name)[1].lower() in SUFFIXES


def images_in(folder: Path) -> list[str]:
    """Sorted names of the images in a folder that holds nothing else; UserError naming the first other thing, or if empty."""
    folders, files = entries(folder)
    for name in [*folders, *(name for name in files if not is_image(name))]:
        raise UserError(f"{folder / name}: not an image, and the set has only images there; remove it.")
    if not files:
        raise UserError(f"{folder}: no image there; unpack the set again.")
    return files


def locate(root: Path, name: str, inside: str) -> Path:
    """The folder of a set: `root` or `root/name`, whichever has the folder `inside`; UserError if none has."""
    for folder in (root, root / name):
        if (folder / inside).is_dir():
            return folder
    if root.is_file():
        raise UserError(f"{root}: a file; unpack it first, a zip archive for instance with lrfr.gate.zips.unpack.")
    raise UserError(f"{root}: no folder {inside} there or in {name}; give the folder into which the set was unpacked.")


def same_names(listed: list[str], there: list[str], source: Path, folder: Path) -> None:
    """UserError unless a list names every file of a folder, each once, and nothing else."""
    seen: set[str] = set()
    for row, name in enumerate(listed, start=1):
        if name in seen:
            raise UserError(f"{source}, entry {row}: {shown(name)} is listed twice; fetch the list again.")
        seen.add(name)
    missing, additional = sorted(seen.difference(there)), sorted(set(there) - seen)
    if missing:
        row = listed.index(missing[0]) + 1
        raise UserError(
            f"{source}, entry {row}: {shown(missing[0])} and {len(missing) - 1} others are not in {folder}; unpack the set again."
        )
    if additional:
        raise UserError(
            f"{folder / additional[0]}: this file and {len(additional) - 1} others are not in {source}; remove them."
        )


def prefix_number(name: str, where: str | Path) -> int:
    """The whole number before the first "_" of a file's name; UserError if there is none."""
    start = name.split("_", 1)[0]
    if "_" not in name or not (start.isascii() and start.isdecimal() and len(start) <= 9):
        raise UserError(
            f"{where}: the name {shown(name)} does not start with a person's number and '_'; fetch the set again."
        )
    return int(start)


def identical(first: Faces, second: Faces, description: str) -> int:
    """How many images of `first` have the same bytes as one of `second`.

    The same bytes under the same name are no coincidence but a file in two roles, which makes every score worthless: UserError.
    """

    def digests(faces: Faces, of: Iterable[int]) -> dict[bytes, set[str]]:
        found: dict[bytes, set[str]] = {}
        for i in of:
            try:
                data = (faces.folder / faces.names[i]).read_bytes()
            except OSError as error:
                place = faces.folder / faces.names[i]
                raise UserError(f"{place}: cannot be read ({error.strerror}); unpack the set again.") from None
            found.setdefault(hashlib.sha256(data).digest(), set()).add(faces.names[i])
        return found

    known = digests(first, bar(range(len(first)), description))
    shared = 0
    for digest, names in digests(second, bar(range(len(second)), description)).items():
        both = known.get(digest, set()) & names
        if both:
            places = f"{first.folder.name} and {second.folder.name}"
            raise UserError(f"{first.folder / min(both)}: the same file is in {places}; unpack the set again.")
        shared += len(known.get(digest, ()))
    return shared
