"""How far a stage is: a bar on a terminal; in a log a line now and then, "k of n, about m minutes left"."""

import multiprocessing
import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")
EVERY = 20.0  # seconds between two lines in a log


def left(done: int, total: int, seconds: float) -> str:
    """What is left after `done` of `total` equal pieces took `seconds`: "3 of 12, about 2 minutes left"."""
    minutes = (total - done) * seconds / done / 60
    rest = "less than a minute" if minutes < 1 else f"about {minutes:.0f} minute{'s' if round(minutes) > 1 else ''}"
    return f"{done} of {total}, {rest} left"


def bar(items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """Iterate, showing on stderr how far it is. total: number of items, where `len(items)` does not tell it."""
    if sys.stderr.isatty():
        yield from tqdm(items, desc=description, total=total)
        return
    if multiprocessing.parent_process() is not None:  # of several side by side: the one that started them speaks
        yield from items
        return
    count = total if total is not None else len(items) if isinstance(items, Sized) else 0
    start = said = time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now - said >= EVERY and done < count:
            print(f"{description}: {left(done, count, now - start)}", file=sys.stderr, flush=True)
            said = now
