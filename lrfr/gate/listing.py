"""Which bytes a benchmark set of a user consists of: a list of names and hashes, on which a study's results can depend."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pandas as pd

from lrfr.errors import UserError
from lrfr.gate.trees import entries
from lrfr.progress import bar


def files_below(folder: Path) -> list[Path]:
    """All files in a folder and in the folders below, sorted; without hidden ones and what systems leave behind."""
    folders, files = entries(folder)
    for name in folders:
        if (folder / name).is_symlink():
            raise UserError(
                f"{folder / name}: a link to a folder, which may lead anywhere; put the folder itself there."
            )
    return sorted(
        [*(folder / name for name in files), *(path for name in folders for path in files_below(folder / name))]
    )


def digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); fetch the set again.") from None


def make_listing(place: Path) -> bytes:
    """The list of everything in a folder, or of one file: CSV with name (below the folder) and sha256."""
    paths = files_below(place) if place.is_dir() else [place]
    base = place if place.is_dir() else place.parent
    rows = [(path.relative_to(base).as_posix(), digest(path)) for path in bar(paths, place.name)]
    return pd.DataFrame(rows, columns=["name", "sha256"]).to_csv(index=False, lineterminator="\n").encode()


def check_listing(place: Path, listing: Path, command: str) -> None:
    """UserError unless the set is, byte for byte, the one of a listing; command: that writes it."""
    try:
        known = listing.read_bytes()
    except OSError as error:
        raise UserError(f"{listing}: cannot be read ({error.strerror}); run `{command}`.") from None
    if make_listing(place) != known:
        raise UserError(f"{place}: its files are not those in {listing}; restore them, or run `{command}` again.")
