"""Where a user keeps a set: no parameter, since results depend on its bytes, which manifests name, not on a place."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from lrfr.errors import UserError
from lrfr.gate.trees import Count


class Chosen(NamedTuple):
    """A set that has been checked. files: what to store where. counts: what there is, to be shown."""

    files: dict[Path, bytes]
    counts: tuple[Count, ...]


class Place(NamedTuple):
    """name: of the variable and of the file that holds the place. what: the set, for messages.

    command: how a user names the place, as in "lrfr study paper --root PATH".
    """

    name: str
    what: str
    command: str

    @property
    def variable(self) -> str:
        """The variable that goes before the file, as in `LRFR_LFW_ROOT`."""
        return f"LRFR_{self.name.upper().replace('-', '_')}_ROOT"

    @property
    def file(self) -> Path:
        """The git-ignored file: in `LRFR_CACHE` or `.cache`, like the states of interrupted trainings."""
        return Path(os.environ.get("LRFR_CACHE", ".cache")) / f"{self.name}-root"

    def find(self) -> Path:
        """The root in the variable, else the stored one; UserError if there is neither."""
        try:
            return Path(os.environ.get(self.variable) or self.file.read_text(encoding="utf-8").strip())
        except (OSError, UnicodeDecodeError):
            how = f"run `{self.command}` or set {self.variable}"
            raise UserError(f"{self.what}: it is not known where it is; {how}.") from None

    def choose(self, given: Path | None) -> tuple[Path, dict[Path, bytes]]:
        """The root that a user gives, or the known one, and what to store in which file (nothing, if it is known).

        Raises UserError if none is given or known, or the variable names another one, which would win.
        """
        if given is None:
            return self.find(), {}
        if Path(os.environ.get(self.variable) or given).resolve() != given.resolve():
            reason = f"is set to another place than {given} and would win"
            raise UserError(f"{self.variable}: {reason}; unset it or leave that place out.")
        return given, {self.file: f"{given.resolve()}\n".encode()}


class Kept(NamedTuple):
    """Photographs of a set: files below a folder, or, with an archive in its place, `members` in memory, by name."""

    place: Place
    root: Path
    folder: Path
    members: dict[str, bytes] | None

    def read(self, name: str) -> bytes:
        """The encoded bytes of one photograph; UserError if it is missing."""
        try:
            return (self.folder / name).read_bytes() if self.members is None else self.members[name]
        except (OSError, KeyError):
            where = f"missing from {self.place.what} at {self.root}"
            raise UserError(f"{name}: {where}; run `{self.place.command}` again.") from None


def checked(place: Place, check: Callable[[Path], None], given: Path | None) -> Chosen:
    """The root that a user gives, or the known one, after `check` has let it pass."""
    root, files = place.choose(given)
    check(root)
    return Chosen(files, ())
