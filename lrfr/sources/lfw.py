"""Labeled Faces in the Wild, deep-funneled: 13,233 photographs of 5,749 people, 250 x 250 pixels, brought by the user.

Huang, Ramesh, Berg and Learned-Miller, "Labeled faces in the wild", 2007; Huang, Mattar, Lee and Learned-Miller,
"Learning to align from scratch", 2012. Research use only: the repository has names and hashes, no pixel. The
photographs stay where the user keeps them; that place (the root) is no parameter and enters no result, since every byte
is checked against the manifest.
"""

import hashlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pandas as pd

from lrfr.data.photographs import COMMITTED, LISTS, MANIFESTS, Source, read_manifest
from lrfr.errors import UserError
from lrfr.gate.archives import read_members
from lrfr.gate.images import read_regular
from lrfr.progress import bar
from lrfr.sources.places import Kept, Place, checked

NAME = "lfw-deepfunneled"  # of the folder in the archive
ARCHIVE, PAIRS = f"{NAME}.tgz", "pairs.txt"
# of View 2 as published at vis-www.cs.umass.edu/lfw/pairs.txt
PAIRS_SHA256 = "ea42330c62c92989f9d7c03237ed5d591365e89b3e649747777b70e692dc1592"
FALLBACK = (67, 77, 185, 195)  # left, top, right, bottom in pixels: about what alignment gives for a face in the middle
PLACE = Place("lfw", "LFW", "lrfr study STUDY --lfw PATH")
# of the published lists: the test of the first fold, and what is left for training and validation
# fmt: off
FIRST_FOLD = {
    "test people": 844, "pairs": 1200, "other people": 4905, "their photographs": 10_845, "with two or more": 1358,
}  # fmt: on


def locate(root: Path) -> tuple[Path, Path]:
    """(the archive, or the folder into which it was unpacked; pairs.txt) at a root; UserError if they are not there.

    root: the archive, a folder with the archive or with the unpacked folder, or the unpacked folder, which may have
    another name. pairs.txt lies beside the archive or the unpacked folder, or inside it.
    """
    for found in (root / ARCHIVE, root / NAME, root):
        if found.is_file() or any(found.glob("*/*_0001.jpg")):
            for pairs in (found.parent / PAIRS, found / PAIRS):
                if pairs.is_file():
                    return found, pairs
            raise UserError(f"{found.parent / PAIRS}: no such file; put LFW's list of View 2 beside the photographs.")
    raise UserError(f"{root}: neither {ARCHIVE} nor a folder {NAME} is there; give the place where you keep LFW.")


class Photographs:
    """The photographs at a root (the known one, by default). An archive is read into memory: 250 MB, two seconds.

    names: every file at the root, as `Name/Name_0001.jpg`.
    """

    def __init__(self, root: Path | None = None) -> None:
        self.root = PLACE.find() if root is None else root
        self.place, _ = locate(self.root)
        if self.place.is_file():
            self.members = {name.removeprefix(f"{NAME}/"): data for name, data in read_members(self.place).items()}
            self.names = set(self.members)
        else:
            files = {path.relative_to(self.place).as_posix() for path in self.place.rglob("*") if path.is_file()}
            self.members, self.names = None, files - {PAIRS}

    def read(self, name: str) -> bytes:
        """The encoded bytes of one photograph; UserError if it is missing."""
        return Kept(PLACE, self.root, self.place, self.members).read(name)

    def faces(self) -> Iterator[tuple[str, str, bytes]]:
        """(name, person, encoded bytes) of every photograph, sorted by name."""
        for name in sorted(self.names):
            yield name, name.split("/")[0], self.read(name)


def check(root: Path, manifest: Path = COMMITTED / "lfw.csv") -> None:
    """UserError unless a root has the files of the manifest, byte for byte, nothing else, and the published pairs."""
    table, photographs = read_manifest(manifest), Photographs(root)
    listed = dict(zip(table["name"], table["sha256"], strict=True))
    there = dict.fromkeys(photographs.names)
    for name in bar(sorted(listed.keys() & there), "check"):
        there[name] = hashlib.sha256(photographs.read(name)).hexdigest()
    if wrong := sorted({name for name in listed.keys() | there if listed.get(name, "") != there.get(name)}):
        what = f"{len(wrong)} files are missing, additional or changed (first {wrong[0]!r})"
        raise UserError(f"{root}: not LFW deep-funneled, {what}; fetch {ARCHIVE} again.")
    read_pairs(locate(root)[1])


def read_pairs(path: str | Path) -> pd.DataFrame:
    """View 2: list ("official"), fold (int, from 0), name_a, name_b (as in the manifest), same (0 or 1), in its order.

    First come the numbers of folds and of pairs of each kind in a fold; then, fold by fold, lines "name i j" of one
    person and lines "name i name j" of two. UserError if the file is not the published one.
    """
    data = read_regular(Path(path), 1 << 20)
    if hashlib.sha256(data).hexdigest() != PAIRS_SHA256:
        raise UserError(f"{path}: not the published View 2 (its sha256 differs); fetch pairs.txt of LFW again.")
    (_, each), *lines = (line.split("\t") for line in data.decode().splitlines())
    rows = []
    for number, (a, i, *other) in enumerate(lines):
        b, j = other if len(other) == 2 else (a, *other)
        names = (f"{person}/{person}_{int(k):04d}.jpg" for person, k in ((a, i), (b, j)))
        rows.append(("official", number // (2 * int(each)), *names, int(a == b)))
    return pd.DataFrame(rows, columns=LISTS)


def lists() -> pd.DataFrame:
    """`read_pairs` at the known root."""
    return read_pairs(locate(PLACE.find())[1])


SOURCE = Source(MANIFESTS / "lfw.csv", FALLBACK, None, Photographs, partial(checked, PLACE, check), lists, FIRST_FOLD)
