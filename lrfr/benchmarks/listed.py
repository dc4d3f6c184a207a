"""Roles of QMUL's two sets: the images of a folder, with the identities that a .mat list beside it gives them."""

from __future__ import annotations

from pathlib import Path

from lrfr.errors import UserError
from lrfr.gate.matlab import read_ids, read_names
from lrfr.gate.trees import Faces, images_in, prefix_number, same_names


def read_role(folder: Path, places: tuple[Path, ...], list_name: str, variable: str) -> tuple[Faces, Path]:
    """Faces of a folder in the order of its list, and the list's path.

    places: the folders where archives have the list; the first that has it counts. The list has the file names in
    `<variable>_set` and the identities in `<variable>_ids`, and must name every file of the folder once; UserError otherwise.
    """
    source = next((place / list_name for place in places if (place / list_name).is_file()), places[0] / list_name)
    names = [name for (name,) in read_names(source, f"{variable}_set", columns=1)]
    same_names(names, images_in(folder), source, folder)
    return Faces(folder, tuple(names), read_ids(source, f"{variable}_ids", len(names))), source


def person_numbers(roles: list[tuple[Faces, Path]]) -> dict[int, int]:
    """Number at the start of the file names -> identity in the lists; UserError unless the two go together one to one."""
    identity: dict[int, int] = {}
    number_of: dict[int, int] = {}
    for faces, source in roles:
        for row, (name, person) in enumerate(zip(faces.names, faces.ids.tolist(), strict=True), start=1):
            where = f"{source}, entry {row}"
            number = prefix_number(name, where)
            if identity.setdefault(number, person) != person or number_of.setdefault(person, number) != number:
                raise UserError(
                    f"{where}: {name!r} has identity {person}, other entries contradict; fetch the list again."
                )
    return identity
