"""CelebA, aligned: 30,476 photographs of 7,483 people, 178 x 218 pixels, brought by the user.

Liu, Luo, Wang and Tang, "Deep learning face attributes in the wild", 2015. Non-commercial research only; its authors
give the identities on request. So the repository has names and hashes, no pixel and no label: who is on a photograph
is read from the user's identity_CelebA.txt, whose labels must be those that we used. Other photographs of the set may
be there and are left alone.
"""

import hashlib
from functools import partial
from pathlib import Path

import pandas as pd

from lrfr.data.photographs import COMMITTED, MANIFESTS, Source, read_all, read_manifest
from lrfr.errors import UserError
from lrfr.gate.archives import read_zip
from lrfr.gate.images import read_regular
from lrfr.sources.places import Kept, Place, checked

NAME, LABELS = "img_align_celeba", "identity_CelebA.txt"
# of lines "name person" of the manifest's photographs, in its order
LABELS_SHA256 = "a9a4902a7ead747f829a925ec4b5b668990e1192a73af2f446b6dd30f0f5f5aa"
FALLBACK = (35, 78, 143, 187)  # left, top, right, bottom in pixels: the chip of the points to which faces are aligned
PLACE = Place("celeba", "CelebA", "lrfr study celeba --root PATH")


def locate(root: Path) -> tuple[Path, Path]:
    """(the archive, or the folder of photographs; the labels) at a root; UserError if they are not there.

    root: the archive, the folder, or the folder in which either is. The labels lie beside or inside.
    """
    for found in (root / NAME, root / f"{NAME}.zip", root):
        if found.is_file() or any(found.glob("*.jpg")):
            for labels in (found.parent / LABELS, found / LABELS):
                if labels.is_file():
                    return found, labels
            raise UserError(f"{found.parent / LABELS}: no such file; put CelebA's identities beside the photographs.")
    raise UserError(f"{root}: neither {NAME} nor {NAME}.zip is there; give the place where you keep CelebA.")


def photographs(root: Path | None = None, manifest: Path = COMMITTED / "celeba.csv") -> Kept:
    """The photographs at a root (the known one, by default); of an archive those of the manifest are read."""
    root, members = PLACE.find() if root is None else root, None
    place, _ = locate(root)
    if place.is_file():
        listed = {f"{NAME}/{name}" for name in pd.read_csv(manifest)["name"]}
        members = {Path(name).name: data for name, data in read_zip(place, listed.__contains__).items()}
    return Kept(PLACE, root, place, members)


def persons(manifest: pd.DataFrame) -> list[str]:
    """The person of each photograph of the manifest, from the labels at the known root."""
    return read_persons(locate(PLACE.find())[1], manifest)


def read_persons(path: Path, manifest: pd.DataFrame) -> list[str]:
    """The person of each photograph of the manifest; UserError if the labels are not those that we used.

    path: lines "name person", in any order, with others between them.
    """
    words = [line.split() for line in read_regular(path, 1 << 24).decode(errors="replace").splitlines()]
    known = {line[0]: line[1] for line in words if len(line) == 2}
    found = [known.get(name, "") for name in manifest["name"]]
    text = "".join(f"{name} {person}\n" for name, person in zip(manifest["name"], found, strict=True))
    if hashlib.sha256(text.encode()).hexdigest() != LABELS_SHA256:
        reason = "not CelebA's identities of the photographs of the manifest (their sha256 differs)"
        raise UserError(f"{path}: {reason}; ask CelebA's authors for {LABELS}.")
    return found


def check(root: Path, manifest: Path = COMMITTED / "celeba.csv") -> None:
    """UserError unless a root has the files of the manifest, byte for byte, and their labels."""
    table = read_manifest(manifest, persons=lambda table: read_persons(locate(root)[1], table))
    read_all(photographs(root, manifest), table)


SOURCE = Source(MANIFESTS / "celeba.csv", FALLBACK, None, photographs, partial(checked, PLACE, check), persons=persons)
