"""Progress bars on a terminal, silence elsewhere (logs and CI)."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")


def bar(iterable: Iterable[T], description: str, total: int | None = None) -> Iterable[T]:
    """Iterate with a progress bar on stderr, which is not drawn when stderr is not a terminal."""
    return tqdm(iterable, desc=description, total=total, disable=not sys.stderr.isatty())
