"""Manifests: which photographs a source has, in which order, and which bytes they must be."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from lrfr.errors import UserError
from lrfr.files import atomic_file

MANIFESTS = Path("data/manifests")  # of known sources, imported by data.dvc from lrfr/data/manifests
COMMITTED = Path(__file__).with_name("manifests")  # the same, for what is asked before anything has run
COLUMNS = ["image", "name", "person", "sha256"]


def make_manifest(photographs: Iterable[tuple[str, str, bytes]]) -> bytes:
    """The manifest of (name inside the source, person, bytes), in this order."""
    rows = [(i, name, person, hashlib.sha256(data).hexdigest()) for i, (name, person, data) in enumerate(photographs)]
    return pd.DataFrame(rows, columns=COLUMNS).to_csv(index=False, lineterminator="\n").encode()


def write_manifest(path: str | Path, photographs: Iterable[tuple[str, str, bytes]]) -> None:
    """Write a manifest of (name inside the source, person, bytes), in this order."""
    with atomic_file(path) as temporary:
        temporary.write_bytes(make_manifest(photographs))


def read_manifest(path: str | Path, people: int | None = None) -> pd.DataFrame:
    """The first `people` people of a manifest (all, if None).

    Returns a table with image (int, 0 ... N-1, also the row number), name (path inside the source), person (str) and sha256.

    Raises
    ------
    UserError
        if the manifest is missing or malformed, or has fewer people than asked for.
    """
    try:
        # no word is a missing value: people are called anything, and an empty field is found below
        table = pd.read_csv(
            path, dtype={"name": str, "person": str, "sha256": str}, keep_default_na=False, na_values=[""]
        )
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({type(error).__name__}); run `dvc repro data.dvc`.") from None
    if list(table.columns) != COLUMNS or table.isna().any(axis=None) or list(table["image"]) != list(range(len(table))):
        raise UserError(
            f"{path}: not a manifest with columns {', '.join(COLUMNS)} and images 0, 1, 2, ...; restore it from git."
        )
    labels = pd.factorize(table["person"])[0]
    if people is not None and labels.max(initial=-1) + 1 < people:
        raise UserError(f"{path}: has {labels.max(initial=-1) + 1} people, {people} are asked for; lower faces.people.")
    return table if people is None else table[labels < people].reset_index(drop=True)
