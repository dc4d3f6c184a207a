"""Invented photographs in the form of LFW."""

import hashlib
import io
import tarfile

import numpy as np
from PIL import Image

from lrfr.data.photographs import make_manifest
from lrfr.sources import lfw


def invented(number):
    """A JPEG of coarse random patches, 60 x 60."""
    rng = np.random.Generator(np.random.Philox(key=number))
    patches = rng.integers(0, 256, (12, 12, 3), dtype=np.uint8).repeat(5, axis=0).repeat(5, axis=1)
    file = io.BytesIO()
    Image.fromarray(patches).save(file, "JPEG", quality=90)
    return file.getvalue()


class SmallLfw:
    """Eight people with one to three photographs, two folds of one pair of each kind, as archive and as folder."""

    def __init__(self, folder):
        self.root = folder
        people = {f"{letter}_Person": 1 + i % 3 for i, letter in enumerate("ABCDEFGH")}
        names = [f"{person}/{person}_{i:04d}.jpg" for person, count in people.items() for i in range(1, count + 1)]
        self.photographs = {name: invented(i) for i, name in enumerate(names)}
        self.pairs = "2\t1\nB_Person\t1\t2\nA_Person\t1\tC_Person\t3\nE_Person\t2\t1\nD_Person\t1\tF_Person\t1\n"
        folder.mkdir()
        self.write()
        (folder / lfw.PAIRS).write_text(self.pairs)

    def write(self):
        with tarfile.open(self.root / lfw.ARCHIVE, "w:gz") as archive:
            for name, data in self.photographs.items():
                member = tarfile.TarInfo(f"{lfw.NAME}/{name}")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))

    def write_manifest(self):
        self.manifest.write_bytes(make_manifest(lfw.Photographs(self.root).faces()))

    def unpack(self):
        """The same as a folder instead of an archive; returns the folder."""
        for name, data in self.photographs.items():
            path = self.root / lfw.NAME / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        (self.root / lfw.ARCHIVE).unlink()
        return self.root / lfw.NAME


def make_small_lfw(tmp_path, monkeypatch):
    """A small LFW with a manifest of its own (`small.csv`); the known place of the real one is forgotten."""
    small = SmallLfw(tmp_path / "lfw")
    monkeypatch.delenv("LRFR_LFW_ROOT", raising=False)
    monkeypatch.setenv("LRFR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(lfw, "PAIRS_SHA256", hashlib.sha256(small.pairs.encode()).hexdigest())
    small.manifest = tmp_path / "small.csv"
    small.write_manifest()
    return small
