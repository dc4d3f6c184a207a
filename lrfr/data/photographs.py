"""What a study needs of a source of photographs: a manifest, and bytes that are checked against it.

The sources themselves are in `lrfr.sources`, one file each; a stage is given those of its study by name, first the one
that is trained on, then those of `faces.tests`.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import pandas as pd

from lrfr.config import Study
from lrfr.errors import UserError

MANIFESTS = Path("data/manifests")  # of known sources, imported by data.dvc from lrfr/data/manifests
COMMITTED = Path(__file__).with_name("manifests")  # the same, for what is asked before anything has run
COLUMNS = ["image", "name", "person", "sha256"]
LISTS = ["list", "fold", "name_a", "name_b", "same"]  # of a source's official pair lists


class Photographs(Protocol):
    """Opened photographs of a source."""

    def read(self, name: str) -> bytes:
        """The encoded bytes of the photograph with this name in the manifest; UserError if it is missing."""


class Source(NamedTuple):
    """One source of photographs.

    manifest: its file. fallback: crop (left, top, right, bottom) in pixels where no face is found; None: the largest
    square in the middle. points: float (5, 2), where the landmarks are in every photograph of a source of aligned
    faces; None where they have to be found. open: gives access to the photographs, UserError where there are none.
    choose_root: takes the user's place (None: the known one), checks all that is there and says what to store, as a
    `lrfr.sources.places.Chosen`; None for a source that needs no root. lists: the official pair lists, a table with
    the columns of `LISTS`: names of list and photographs, folds from 0, same is 0 or 1; None if there are none.
    first_fold: numbers that the first fold of the one list must have (`splits.count_fold`), empty if nothing is known.
    persons: the person of each row of a manifest that must hold none; None where it does. enlarge, border: of the
    detector's input (`lrfr.data.detect.landmarks`): small photographs need both before every face is found.
    """

    manifest: Path
    fallback: tuple[int, int, int, int] | None
    points: np.ndarray | None
    open: Callable[[], Photographs]
    choose_root: Callable[[Path | None], Any] | None = None
    lists: Callable[[], pd.DataFrame] | None = None
    first_fold: dict[str, int] = {}
    persons: Callable[[pd.DataFrame], list[str]] | None = None
    enlarge: int = 1
    border: int = 0


def read_bytes(photographs: Photographs, name: str, sha256: str) -> bytes:
    """The encoded bytes of one photograph; UserError if it is missing or differs from the manifest."""
    data = photographs.read(name)
    if hashlib.sha256(data).hexdigest() != sha256:
        reason = "its bytes differ from the manifest (sha256)"
        raise UserError(f"{name}: {reason}; restore the photograph and run this again.")
    return data


def read_all(photographs: Photographs, faces: pd.DataFrame) -> list[bytes]:
    """The encoded bytes of the photographs of some rows (name, sha256); UserError as `read_bytes`."""
    return [read_bytes(photographs, *row) for row in zip(faces["name"], faces["sha256"], strict=True)]


def make_manifest(faces: Iterable[tuple[str, str, bytes]]) -> bytes:
    """The manifest of (name inside the source, person, bytes), in this order; it made the committed ones. No pixels."""
    rows = [(i, name, person, hashlib.sha256(data).hexdigest()) for i, (name, person, data) in enumerate(faces)]
    return pd.DataFrame(rows, columns=COLUMNS).to_csv(index=False, lineterminator="\n").encode()


def read_manifest(
    path: str | Path, people: int | None = None, persons: Callable[[pd.DataFrame], list[str]] | None = None
) -> pd.DataFrame:
    """The first `people` people of a manifest (all, if None).

    persons: of a source whose manifest holds no person. Returns a table with image (int, 0 ... N-1, also the row
    number), name (path inside the source), person (str) and sha256. Raises UserError if the manifest is missing or
    malformed, or has fewer people than asked for.
    """
    kinds = {"name": str, "person": str, "sha256": str}
    try:
        # no word is a missing value: people are called anything, and an empty field is found below
        table = pd.read_csv(path, dtype=kinds, keep_default_na=False, na_values=[""])
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({type(error).__name__}); run `dvc repro data.dvc`.") from None
    empty = [] if persons is None else ["person"]
    whole = list(table.columns) == COLUMNS and not table.drop(columns=empty).isna().any(axis=None)
    if not whole or table[empty].notna().any(axis=None) or list(table["image"]) != list(range(len(table))):
        reason = f"not a manifest with columns {', '.join(COLUMNS)} and images 0, 1, 2, ..."
        raise UserError(f"{path}: {reason}; restore it from git.")
    if persons is not None:
        table["person"] = persons(table)
    labels = pd.factorize(table["person"])[0]
    if people is not None and labels.max(initial=-1) + 1 < people:
        raise UserError(f"{path}: has {labels.max(initial=-1) + 1} people, {people} are asked for; lower faces.people.")
    return table if people is None else table[labels < people].reset_index(drop=True)


def read_faces(study: Study, sources: Mapping[str, Source]) -> pd.DataFrame:
    """All photographs of a study's sources, of the first one those of `faces.people` people.

    Returns a table with image (int, 0 ... N-1, also the row number), set (name of the source), name, person (int, no
    number in two sets) and sha256.
    """
    tables: list[pd.DataFrame] = []
    for name, source in sources.items():
        people = None if tables else study.faces.people
        tables.append(read_manifest(source.manifest, people, source.persons).assign(set=name))
    faces = pd.concat(tables, ignore_index=True)
    person = faces.groupby(["set", "person"], sort=False).ngroup()
    return faces.assign(image=range(len(faces)), person=person)
