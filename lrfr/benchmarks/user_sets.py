"""The benchmark sets of a study: which a user may name, where they are kept, and which bytes they must be."""

from __future__ import annotations

import re
from pathlib import Path

from lrfr.benchmarks.sets import Opened, open_set
from lrfr.config import NAME
from lrfr.errors import UserError
from lrfr.gate.trees import check_listing, make_listing
from lrfr.sources.places import Chosen, Place

LISTINGS = Path("data/sets")  # <set>.csv, ignored by git: on these the stage `sets` depends
TREES = ("tinyface", "survface", "scface")  # sets in folders; all that the user names is listed
BIN = "lfw"  # the name by which `open_set` reads any .bin file


def bin_name(file: Path) -> str:
    """The name of a .bin file's set, which is the file's own; UserError if it can be no name of a stage."""
    if file.suffix != ".bin" or not re.fullmatch(NAME, file.stem) or file.stem in TREES:
        raise UserError(f"--bin {file}: name a file like cfp_fp.bin, with lower-case letters, digits and underscores.")
    return file.stem


def place_of(name: str) -> Place:
    option = f"--{name} DIR" if name in TREES else f"--bin {name}.bin"
    return Place(f"set-{name}", name, f"lrfr study STUDY {option}", option.split()[0])


def read_set(name: str, root: Path) -> Opened:
    return open_set(name if name in TREES else BIN, root, None)


def choose_set(name: str, given: Path) -> Chosen:
    """Read a set that a user names: what to store of it, and what it holds; UserError like its reader."""
    if name not in TREES and not given.is_file():
        raise UserError(f"--bin {given}: no such file; give the path of a .bin file.")
    root, files = place_of(name).choose(given)
    counts = read_set(name, root).counts
    return Chosen(files | {LISTINGS / f"{name}.csv": make_listing(root)}, counts)


def open_known(name: str) -> Opened:
    """A set at its known place; UserError if it is not there, or is another one than `lrfr study` has seen."""
    place = place_of(name)
    root = place.find()
    check_listing(root, LISTINGS / f"{name}.csv", place.command)
    return read_set(name, root)
