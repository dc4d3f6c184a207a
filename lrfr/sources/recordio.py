"""A training set of aligned faces in InsightFace's RecordIO that the user brings (CASIA-WebFace, MS1MV2).

Which set it is, nobody here can know. So `lrfr study paper --root PATH` writes a manifest of it, on which the study
depends: with another set, or another version of it, everything is computed again. The manifest holds numbers and
hashes, no pixel, and stays with the user. Names are the keys of records, persons their labels.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from lrfr.data.photographs import Source, make_manifest
from lrfr.errors import UserError
from lrfr.gate.insightface_bin import ARCFACE, SIDE
from lrfr.gate.recordio import RecordSet
from lrfr.progress import bar
from lrfr.sources.places import Chosen, Place

MANIFEST = Path("data/recordio.csv")  # ignored by git; no part of data.dvc, whose manifests are the same for everybody
PLACE = Place("recordio", "the training set", "lrfr study paper --root PATH")
WHOLE = (0, 0, SIDE, SIDE)  # left, top, right, bottom; never used, since the landmarks of every face are known


class Photographs:
    """The faces of the set at a root (the known one, by default). UserError if there is none, or of another size."""

    def __init__(self, root: Path | None = None) -> None:
        self.records = RecordSet(PLACE.find() if root is None else root)
        if self.records.size != [SIDE, SIDE]:
            faces = "faces of {1} x {0} pixels".format(*self.records.size)
            raise UserError(f"{self.records.path}: {faces}; {SIDE} x {SIDE}, aligned, are needed.")

    def read(self, name: str) -> bytes:
        """The encoded bytes of one face, decoded once to check its size; UserError if it is missing or damaged."""
        keys = self.records.keys
        row = int(np.searchsorted(keys, int(name))) if name.isdecimal() else len(keys)
        if name != "".join(map(str, keys[row : row + 1])):
            raise UserError(f"record {name}: missing from {self.records.path}; run `{PLACE.command}` again.")
        self.records.read(row)
        return self.records.face(row)[1]

    def faces(self) -> Iterator[tuple[str, str, bytes]]:
        """(name, person, encoded bytes) of every face in the order of the set."""
        for i, key in enumerate(bar(self.records.keys.tolist(), "faces")):
            label, data = self.records.face(i)
            yield str(key), str(label), data


def choose_root(given: Path | None) -> Chosen:
    """Read the set that a user gives, or the known one: its manifest, its place if it is new, and what there is."""
    root, files = PLACE.choose(given)
    photographs = Photographs(root)
    return Chosen(files | {MANIFEST: make_manifest(photographs.faces())}, photographs.records.counts)


SOURCE = Source(MANIFEST, WHOLE, ARCFACE, Photographs, choose_root)
