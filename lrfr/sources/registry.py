"""Where photographs come from: one entry a source, and the one way to read a photograph, its bytes checked first."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import pandas as pd
from PIL import Image

from lrfr.errors import UserError
from lrfr.files import read_image
from lrfr.gate.insightface_bin import ARCFACE
from lrfr.sources import lfw, orl, training_set
from lrfr.sources.manifests import MANIFESTS
from lrfr.sources.places import Chosen


class Photographs(Protocol):
    """Opened photographs of a source."""

    def read(self, name: str) -> bytes:
        """The encoded bytes of the photograph with this name in the manifest; UserError if it is missing."""


class Source(NamedTuple):
    """One source of photographs.

    manifest: its file. fallback: crop (left, top, right, bottom) in pixels where no face is found. points: float (5, 2), where
    the landmarks are in every photograph of a source of aligned faces; None where they have to be found. open: gives access to
    the photographs, UserError where there are none. choose_root: takes the user's --root (None: the known one), checks all that
    is there and says what to store; None for a source that needs no root. pairs: the official pairs (`lfw.read_pairs`), None
    if there are none. first_fold: numbers that the first fold must have (`splits.count_fold`), empty if nothing is known.
    """

    manifest: Path
    fallback: tuple[int, int, int, int]
    points: np.ndarray | None
    open: Callable[[], Photographs]
    choose_root: Callable[[Path | None], Chosen] | None
    pairs: Callable[[], pd.DataFrame] | None
    first_fold: dict[str, int]


SOURCES = {
    "orl": Source(MANIFESTS / "orl.csv", orl.FALLBACK, None, orl.Photographs, None, None, {}),
    "lfw": Source(
        MANIFESTS / "lfw.csv", lfw.FALLBACK, None, lfw.Photographs, lfw.choose_root, lfw.official_pairs, lfw.FIRST_FOLD
    ),
    "recordio": Source(
        training_set.MANIFEST,
        training_set.WHOLE,
        ARCFACE,
        training_set.Photographs,
        training_set.choose_root,
        None,
        {},
    ),
}


def read_bytes(photographs: Photographs, name: str, sha256: str) -> bytes:
    """The encoded bytes of one photograph; UserError if it is missing or differs from the manifest."""
    data = photographs.read(name)
    if hashlib.sha256(data).hexdigest() != sha256:
        raise UserError(
            f"{name}: its bytes differ from the manifest (sha256); restore the photograph and run this again."
        )
    return data


def read_face(photographs: Photographs, name: str, sha256: str) -> Image.Image:
    """One photograph as RGB, its bytes checked before they are decoded; UserError if it is missing, changed or damaged."""
    return read_image(read_bytes(photographs, name, sha256), name)
