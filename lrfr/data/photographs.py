"""What a study needs of a source of photographs: a manifest, and bytes that are checked against it.

The sources themselves are in `lrfr.sources`, one file each; a stage is given the one of its study.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import pandas as pd

from lrfr.errors import UserError

MANIFESTS = Path("data/manifests")  # of known sources, imported by data.dvc from lrfr/data/manifests
COMMITTED = Path(__file__).with_name("manifests")  # the same, for what is asked before anything has run
COLUMNS = ["image", "name", "person", "sha256"]


class Photographs(Protocol):
    """Opened photographs of a source."""

    def read(self, name: str) -> bytes:
        """The encoded bytes of the photograph with this name in the manifest; UserError if it is missing."""

    def faces(self) -> Iterator[tuple[str, str, bytes]]:
        """(name, person, encoded bytes) of every photograph, in the order of the manifest."""


class Source(NamedTuple):
    """One source of photographs.

    manifest: its file. fallback: crop (left, top, right, bottom) in pixels where no face is found. points: float (5,
    2), where the landmarks are in every photograph of a source of aligned faces; None where they have to be found.
    open: gives access to the photographs, UserError where there are none. choose_root: takes the user's --root (None:
    the known one), checks all that is there and says what to store, as a `lrfr.sources.places.Chosen`; None for a
    source that needs no root. pairs: the official pairs (`lrfr.sources.lfw.read_pairs`), None if there are none.
    first_fold: numbers that the first fold must have (`splits.count_fold`), empty if nothing is known.
    """

    manifest: Path
    fallback: tuple[int, int, int, int]
    points: np.ndarray | None
    open: Callable[[], Photographs]
    choose_root: Callable[[Path | None], Any] | None = None
    pairs: Callable[[], pd.DataFrame] | None = None
    first_fold: dict[str, int] = {}


def read_bytes(photographs: Photographs, name: str, sha256: str) -> bytes:
    """The encoded bytes of one photograph; UserError if it is missing or differs from the manifest."""
    data = photographs.read(name)
    if hashlib.sha256(data).hexdigest() != sha256:
        reason = "its bytes differ from the manifest (sha256)"
        raise UserError(f"{name}: {reason}; restore the photograph and run this again.")
    return data


def make_manifest(faces: Iterable[tuple[str, str, bytes]]) -> bytes:
    """The manifest of (name inside the source, person, bytes), in this order; it made the committed ones. No pixels."""
    rows = [(i, name, person, hashlib.sha256(data).hexdigest()) for i, (name, person, data) in enumerate(faces)]
    return pd.DataFrame(rows, columns=COLUMNS).to_csv(index=False, lineterminator="\n").encode()


def read_manifest(path: str | Path, people: int | None = None) -> pd.DataFrame:
    """The first `people` people of a manifest (all, if None).

    Returns a table with image (int, 0 ... N-1, also the row number), name (path inside the source), person (str) and
    sha256. Raises UserError if the manifest is missing or malformed, or has fewer people than asked for.
    """
    kinds = {"name": str, "person": str, "sha256": str}
    try:
        # no word is a missing value: people are called anything, and an empty field is found below
        table = pd.read_csv(path, dtype=kinds, keep_default_na=False, na_values=[""])
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({type(error).__name__}); run `dvc repro data.dvc`.") from None
    if list(table.columns) != COLUMNS or table.isna().any(axis=None) or list(table["image"]) != list(range(len(table))):
        reason = f"not a manifest with columns {', '.join(COLUMNS)} and images 0, 1, 2, ..."
        raise UserError(f"{path}: {reason}; restore it from git.")
    labels = pd.factorize(table["person"])[0]
    if people is not None and labels.max(initial=-1) + 1 < people:
        raise UserError(f"{path}: has {labels.max(initial=-1) + 1} people, {people} are asked for; lower faces.people.")
    return table if people is None else table[labels < people].reset_index(drop=True)
