"""Files: written whole or not at all, and found in installed packages."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pandas import DataFrame


def _beside(path: Path, what: str) -> Path:
    """An unused name in the same folder (so that renaming is atomic) with the same suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.with_name(f".{what}-{uuid.uuid4().hex[:8]}-{path.name}")


@contextmanager
def atomic_file(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder; it becomes `path` on success and disappears on failure.

    The temporary name keeps the suffix, because `numpy.save` and image writers look at it. Parent folders are made.
    """
    path = Path(path)
    temporary = _beside(path, "new")
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Yield a new empty folder beside `path`; it replaces `path` on success and disappears on failure.

    A folder cannot be renamed over one that has contents: the old one steps aside, and returns if renaming fails.
    """
    path = Path(path)
    temporary, old = _beside(path, "new"), _beside(path, "old")
    temporary.mkdir()
    try:
        yield temporary
        if path.exists():
            os.replace(path, old)
        try:
            os.replace(temporary, path)
        except OSError:
            if old.exists():
                os.replace(old, path)
            raise
    finally:
        for left in (temporary, old):
            shutil.rmtree(left, ignore_errors=True)


def write_text(path: str | Path, text: str) -> None:
    """Text in UTF-8, its lines ending in "\\n" on every system."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_table(path: str | Path, table: DataFrame, float_format: str | None = None) -> None:
    """A table as CSV, without its index; `float_format` as pandas takes it, like "%.6g"."""
    write_text(path, table.to_csv(index=False, float_format=float_format, lineterminator="\n"))


def package_data(package: str, inside: str) -> Path | None:
    """A file or folder of an installed package, which is located and not imported; None if it is not there."""
    spec = find_spec(package)
    path = Path(spec.origin).parent / inside if spec and spec.origin else None
    return path if path and path.exists() else None
