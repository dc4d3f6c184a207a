"""The benchmark sets that a user brings, by name; those of a study: where they are kept, which bytes they must be."""

import re
from collections.abc import Callable
from pathlib import Path

from lrfr.benchmarks.lfw_family import open_bin
from lrfr.benchmarks.outcomes import Opened
from lrfr.benchmarks.scface import open_scface
from lrfr.benchmarks.survface import open_survface
from lrfr.benchmarks.tinyface import open_tinyface
from lrfr.config import NAME
from lrfr.errors import UserError
from lrfr.gate.trees import check_listing, check_name, make_listing
from lrfr.sources.places import Chosen, Place

TREES = {"tinyface": open_tinyface, "survface": open_survface, "scface": open_scface}  # sets in folders
SETS: dict[str, Callable[[Path], Opened]] = TREES | {"lfw": open_bin}  # any .bin file
LISTINGS = Path("data/sets")  # <set>.csv, ignored by git: on these the stage `sets` depends


def open_set(name: str, root: Path, file: str | None) -> Opened:
    """Read and check a set, or the .bin `file` in the folder `root`, which may be that file itself; UserError if there
    is no such set, a file is named for a set that has none, or like the set's reader.
    """
    if name not in SETS:
        raise UserError(f"benchmark-set {name}: there is no such set; known are {', '.join(SETS)}.")
    inside = name not in TREES and root.is_dir()
    if file is not None and not inside:
        reason = f"{name} has no .bin file" if name in TREES else f"{root} is not a folder"
        raise UserError(f"--bin {file}: {reason}; leave --bin out.")
    if inside:
        check_name(file := file or f"{name}.bin", "--bin")
    return SETS[name](root / file if inside else root)


def bin_name(file: Path) -> str:
    """The name of a .bin file's set, which is the file's own; UserError if it can be no name of a stage."""
    if file.suffix != ".bin" or not re.fullmatch(NAME, file.stem) or file.stem in TREES:
        raise UserError(f"--bin {file}: name a file like cfp_fp.bin, with lower-case letters, digits and underscores.")
    return file.stem


def place_of(name: str) -> Place:
    """Where a study's set is remembered."""
    option, value = (f"--{name}", "DIR") if name in TREES else ("--bin", f"{name}.bin")
    return Place(f"set-{name}", name, f"lrfr study STUDY {option} {value}")


def choose_set(name: str, given: Path) -> Chosen:
    """Read a set that a user names: what to store of it, and what it holds; UserError like its reader."""
    if name not in TREES and not given.is_file():
        raise UserError(f"--bin {given}: no such file; give the path of a .bin file.")
    root, files = place_of(name).choose(given)
    counts = SETS.get(name, open_bin)(root).counts
    return Chosen(files | {LISTINGS / f"{name}.csv": make_listing(root)}, counts)


def open_known(name: str) -> Opened:
    """A set at its known place; UserError if it is not there, or is another one than `lrfr study` has seen."""
    place = place_of(name)
    root = place.find()
    check_listing(root, LISTINGS / f"{name}.csv", place.command)
    return SETS.get(name, open_bin)(root)
