"""Where photographs come from: one entry a source, and the one way to read a photograph, its bytes checked first."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol

import pandas as pd
from PIL import Image

from lrfr.data import lfw, orl
from lrfr.data.files import read_image
from lrfr.data.manifests import MANIFESTS
from lrfr.errors import UserError


class Photographs(Protocol):
    """Opened photographs of a source."""

    def read(self, name: str) -> bytes:
        """The encoded bytes of the photograph with this name in the manifest; UserError if it is missing."""


class Source(NamedTuple):
    """One source of photographs.

    manifest: its file, as imported by data.dvc. fallback: crop (left, top, right, bottom) in pixels where no face is found.
    open: gives access to the photographs, UserError where there are none. choose_root: where the photographs are kept outside
    of the environment: takes the user's --root, checks all and returns what to store where (None: nothing); None for a source
    that needs no root. pairs: the official pairs (`lfw.read_pairs`), None if there are none. first_fold: numbers that the
    first fold must have (`splits.count_fold`), empty if nothing is known.
    """

    manifest: Path
    fallback: tuple[int, int, int, int]
    open: Callable[[], Photographs]
    choose_root: Callable[[Path | None], tuple[Path, str] | None] | None
    pairs: Callable[[], pd.DataFrame] | None
    first_fold: dict[str, int]


SOURCES = {
    "orl": Source(MANIFESTS / "orl.csv", orl.FALLBACK, orl.Photographs, None, None, {}),
    "lfw": Source(MANIFESTS / "lfw.csv", lfw.FALLBACK, lfw.Photographs, lfw.choose_root, lfw.official_pairs, lfw.FIRST_FOLD),
}


def read_bytes(photographs: Photographs, name: str, sha256: str) -> bytes:
    """The encoded bytes of one photograph; UserError if it is missing or differs from the manifest."""
    data = photographs.read(name)
    if hashlib.sha256(data).hexdigest() != sha256:
        raise UserError(f"{name}: its bytes differ from the manifest (sha256); restore the photograph and run this again.")
    return data


def read_face(photographs: Photographs, name: str, sha256: str) -> Image.Image:
    """One photograph as RGB, its bytes checked before they are decoded; UserError if it is missing, changed or damaged."""
    return read_image(read_bytes(photographs, name, sha256), name)
