"""What the benchmarks' files share: roles (probes, gallery ...), who is who in them, and how a set is handed on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from numpy.typing import NDArray

from lrfr.benchmarks.outcomes import Draws, Outcome
from lrfr.errors import UserError
from lrfr.gate.matlab import read_ids, read_names
from lrfr.gate.trees import Count, Faces, Folders, images_in, prefix_number, same_names

Vectors = Mapping[str, NDArray]  # role -> embeddings (N, D)


class Images(NamedTuple):
    """Images of one role. name(i): for messages. read(i): uint8 (H, W, 3) RGB, or UserError.

    points(i): float (5, 2), landmarks in pixels as `align.TEMPLATE` has them; None where the set has no landmarks.
    """

    size: int
    name: Callable[[int], str]
    read: Callable[[int], NDArray]
    points: Callable[[int], NDArray] | None = None


class Protocol(NamedTuple):
    """evaluate: a model's embeddings by role -> its outcome. draw: outcomes by model, draws=, level= -> `Draws`."""

    evaluate: Callable[[Vectors], Outcome]
    draw: Callable[..., Draws]


class Opened(NamedTuple):
    """A set that has been read and checked, with no image decoded.

    name: of the results. policies: keys of `acquisition.FACES` that it allows, the first is the default.
    """

    name: str
    images: dict[str, Images]
    counts: tuple[Count, ...]
    protocols: dict[str, Protocol]
    policies: tuple[str, ...]


def images_of(faces: Faces, landmarks: Mapping[str, NDArray] | None = None) -> Images:
    """Files of one role. landmarks: name without suffix -> (4, 2): eyes, nose, and the middle of the mouth.

    The mouth counts twice, once for each corner: least squares over both corners are those over their mean, twice.
    """

    def points(i: int) -> NDArray:
        return landmarks[Path(faces.names[i]).stem][[0, 1, 2, 3, 3]]

    return Images(len(faces), lambda i: str(faces.folder / faces.names[i]), faces.read, points if landmarks else None)


def training_counts(read: Callable[[Path], Folders], root: Path, name: str, inside: str) -> tuple[Count, ...]:
    """Of the training part, if it lies beside the test; its reader refuses one that contradicts itself or the test."""
    return read(root).counts if any((folder / inside).is_dir() for folder in (root, root / name)) else ()


def read_role(folder: Path, places: tuple[Path, ...], list_name: str, variable: str) -> tuple[Faces, Path]:
    """Faces of a folder in the order of its .mat list, as QMUL's two sets have them, and the list's path.

    places: the folders where archives have the list; the first that has it counts. The list has the file names in
    `<variable>_set` and the identities in `<variable>_ids`, and must name every file of the folder once, else
    UserError.
    """
    source = next((place / list_name for place in places if (place / list_name).is_file()), places[0] / list_name)
    names = [name for (name,) in read_names(source, f"{variable}_set", columns=1)]
    same_names(names, images_in(folder), source, folder)
    return Faces(folder, tuple(names), read_ids(source, f"{variable}_ids", len(names))), source


def person_numbers(roles: list[tuple[Faces, Path]]) -> dict[int, int]:
    """Number at the start of the file names -> identity in the lists; UserError unless they go together one to one."""
    identity: dict[int, int] = {}
    number_of: dict[int, int] = {}
    for faces, source in roles:
        for row, (name, person) in enumerate(zip(faces.names, faces.ids.tolist(), strict=True), start=1):
            where = f"{source}, entry {row}"
            number = prefix_number(name, where)
            if identity.setdefault(number, person) != person or number_of.setdefault(person, number) != number:
                raise UserError(f"{where}: {name!r} has identity {person}, others contradict; fetch the list again.")
    return identity
