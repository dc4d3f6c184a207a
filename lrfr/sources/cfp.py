"""Celebrities in Frontal-Profile in the Wild: 7,000 photographs of 500 people, brought by the user.

Sengupta et al., "Frontal to profile face verification in the wild", 2016. Research use only: the repository has names
and hashes, no pixel. Ten photographs of a person are frontal, four in profile. The official lists "cfp_ff" (two frontal
photographs) and "cfp_fp" (a frontal one and a profile) have ten folds of 350 + 350 pairs each.
"""

import hashlib
from functools import partial
from pathlib import Path

import pandas as pd

from lrfr.data.photographs import COMMITTED, LISTS, MANIFESTS, Source, read_all, read_manifest
from lrfr.errors import UserError
from lrfr.gate.archives import read_zip
from lrfr.gate.images import read_regular
from lrfr.sources.places import Kept, Place, checked

ARCHIVE, PROTOCOL = "cfp-original.zip", "cfp-protocol.zip"
# of the table of `read_lists`, as CSV
LISTS_SHA256 = "78ff72d34abeadf078636ce32e23ee4b33d8ecc3388de27f48e493739c4023bf"
PLACE = Place("cfp", "CFP", "lrfr study STUDY --cfp PATH")
SIDES = {"cfp_ff": "FF", "cfp_fp": "FP"}  # list -> whose pairs: a frontal photograph (F), a profile (P)


def locate(root: Path) -> tuple[Path, Path]:
    """(the archive, or the folder of people; the protocol) at a root; UserError if they are not there.

    root: the archive, the folder of people, a folder with either, or the official folder with `Data/Images`. The
    protocol is `cfp-protocol.zip` or the folder `Protocol`, beside the photographs or, officially, beside `Data`.
    """
    for found in (root / ARCHIVE, root / "Data" / "Images", root):
        if found.is_file() or (found / "001" / "frontal" / "01.jpg").is_file():
            for folder in (found.parent, found, found.parent.parent):
                for protocol in (folder / PROTOCOL, folder / "Protocol"):
                    if protocol.exists():
                        return found, protocol
            raise UserError(f"{found.parent / PROTOCOL}: no such file; put CFP's protocol beside the photographs.")
    raise UserError(f"{root}: neither {ARCHIVE} nor 001/frontal/01.jpg is there; give the place where you keep CFP.")


def photographs(root: Path | None = None) -> Kept:
    """The photographs at a root (the known one, by default). An archive is read into memory: 83 MB."""
    root = PLACE.find() if root is None else root
    place, _ = locate(root)
    return Kept(PLACE, root, place, read_zip(place, lambda name: name.endswith(".jpg")) if place.is_file() else None)


def read_lists(protocol: Path) -> pd.DataFrame:
    """The official lists: list (a key of SIDES), fold (int, from 0), name_a, name_b, same (0 or 1), in their order.

    A pair is a line "i,j": lines of the tables of photographs, from 1. UserError if the lists are not the published
    ones.
    """
    members = read_zip(protocol, lambda name: name.endswith(".txt")) if protocol.is_file() else None

    def lines(name: str) -> list[str]:
        data = read_regular(protocol / name, 1 << 20) if members is None else members.get(f"Protocol/{name}", b"")
        return data.decode(errors="replace").split("\n")

    tables, rows = {}, []
    for side in "FP":
        numbered = (line.split() for line in lines(f"Pair_list_{side}.txt"))
        tables[side] = {words[0]: words[1].removeprefix("../Data/Images/") for words in numbered if len(words) == 2}
    for title, sides in SIDES.items():
        for fold in range(10):
            for same, kind in enumerate(("diff", "same")):
                for pair in (line.strip().split(",") for line in lines(f"Split/{sides}/{fold + 1:02d}/{kind}.txt")):
                    if len(pair) == 2:
                        names = (tables[side].get(number, "") for side, number in zip(sides, pair, strict=True))
                        rows.append((title, fold, *names, same))
    table = pd.DataFrame(rows, columns=LISTS)
    if hashlib.sha256(table.to_csv(index=False, lineterminator="\n").encode()).hexdigest() != LISTS_SHA256:
        raise UserError(f"{protocol}: not the published lists (their sha256 differs); fetch CFP's protocol again.")
    return table


def lists() -> pd.DataFrame:
    """`read_lists` at the known root."""
    return read_lists(locate(PLACE.find())[1])


def check(root: Path, manifest: Path = COMMITTED / "cfp.csv") -> None:
    """UserError unless a root has the files of the manifest, byte for byte, and the published lists."""
    read_all(photographs(root), read_manifest(manifest))
    read_lists(locate(root)[1])


SOURCE = Source(MANIFESTS / "cfp.csv", None, None, photographs, partial(checked, PLACE, check), lists)
