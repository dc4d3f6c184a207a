"""Stage `prepare`: photographs and landmarks -> chips, index, folds, near-duplicates, bank of low-resolution views."""

from pathlib import Path

import numpy as np
import pandas as pd

from lrfr.config import Study
from lrfr.data import align, duplicates, splits
from lrfr.data.align import CHIP, COLUMNS, POINTS
from lrfr.data.degrade import view_bank
from lrfr.data.photographs import Source, read_bytes, read_manifest
from lrfr.errors import UserError
from lrfr.files import atomic_file, write_table
from lrfr.gate.images import read_image
from lrfr.parallel import parallel_map

CHUNK = 40  # photographs per task


def read_landmarks(path: Path, images: int) -> list[np.ndarray | None]:
    """Five points (5, 2) per image, None where no face was found; UserError if the table is not one row per image."""
    try:
        table = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({type(error).__name__}); run the detect stage.") from None
    if list(table.columns) != COLUMNS or list(table["image"]) != list(range(images)):
        raise UserError(f"{path}: not the landmarks of images 0 ... {images - 1}; run the detect stage again.")
    points = table[POINTS].to_numpy(np.float64).reshape(-1, 5, 2)
    return [place if found else None for place, found in zip(points, table["found"], strict=True)]


def prepare_chunk(
    first: int,
    photographs: list[tuple[str, bytes, np.ndarray | None]],
    fallback: tuple[int, int, int, int],
    sizes: tuple[int, int, int],
    files: tuple[Path, Path],
) -> list[duplicates.Look]:
    """Write rows first, first + 1, ... of the two arrays, for photographs (name, bytes, points); returns how they look.

    sizes: smallest and largest view, side of a view. files: chips and views, whose rows no other process writes.
    """
    images = [read_image(data, name) for name, data, _ in photographs]
    chips = np.stack([align.chip(image, row[2], fallback) for image, row in zip(images, photographs, strict=True)])
    for file, rows in zip(files, (chips, view_bank(chips, *sizes)), strict=True):
        array = np.load(file, mmap_mode="r+")
        array[first : first + len(rows)] = rows
        array.flush()
    return [duplicates.look(image) for image in images]


def divide(study: Study, source: Source, manifest: pd.DataFrame, usable: np.ndarray) -> dict[str, pd.DataFrame]:
    """folds.csv and official.csv (empty without official pairs). usable: bool (N,), what may be trained on."""
    faces = study.faces
    if source.pairs is None:
        folds = splits.identity_folds(faces.people, faces.folds, faces.validation_people, study.seed)
        return {"folds.csv": folds, "official.csv": pd.DataFrame(columns=splits.OFFICIAL)}
    people, pairs = pd.factorize(manifest["person"])[0], splits.official(source.pairs(), manifest["name"])
    folds = splits.lfw_folds(people, pairs, faces.validation_people, study.seed, usable)
    if (made := folds["fold"].nunique()) != faces.folds:
        raise UserError(f"faces.folds: the official pairs of {faces.source} make {made} folds; set it to that.")
    counts = splits.count_fold(folds, people, pairs)
    for what, expected in source.first_fold.items():
        if counts[what] != expected:
            problem = f"fold 0 has {what}: {counts[what]} instead of {expected}"
            raise UserError(f"{faces.source}: {problem}; restore {source.manifest}.")
    return {"folds.csv": folds, "official.csv": pairs}


def run(study: Study, source: Source) -> None:
    """Write chips.npy, views.npy, index.csv, folds.csv, official.csv and duplicates.csv.

    Every photograph is checked against the manifest's sha256 before any is decoded. The two arrays are never in memory
    as a whole: processes fill rows of the files.
    """
    manifest = read_manifest(source.manifest, study.faces.people)
    points = read_landmarks(study.reports / "landmarks.csv", len(manifest))
    opened = source.open()
    data = [read_bytes(opened, name, sha256) for name, sha256 in zip(manifest["name"], manifest["sha256"], strict=True)]
    photographs = list(zip(manifest["name"], data, points, strict=True))
    sizes = low, high, side = study.views.smallest, study.views.largest, study.views.size
    shapes = (CHIP, CHIP, 3), (high - low + 2, side, side, 3)
    with atomic_file(study.runs / "chips.npy") as chips, atomic_file(study.runs / "views.npy") as views:
        for file, shape in zip((chips, views), shapes, strict=True):
            np.lib.format.open_memmap(file, "w+", np.uint8, (len(manifest), *shape)).flush()
        rest, count = (source.fallback, sizes, (chips, views)), len(photographs)
        tasks = [(first, photographs[first : first + CHUNK], *rest) for first in range(0, count, CHUNK)]
        done = parallel_map(prepare_chunk, tasks, study.jobs, study.threads, "prepare")
        looks = [look for some in done for look in some]
        people = pd.factorize(manifest["person"])[0]
        # aligned faces of two people may look alike at 24 pixels: there only equal pixels are one photograph
        threshold = duplicates.THRESHOLD if source.points is None else duplicates.EQUAL
        pairs = duplicates.find(looks, manifest["name"].tolist(), people, threshold)
        removed = duplicates.removed(pairs, len(manifest))
        index = pd.DataFrame({"image": manifest["image"], "person": people, "name": manifest["name"]})
        index["fallback"] = [int(place is None) for place in points]
        index["removed"] = removed.astype(int)
        tables = {"index.csv": index, "duplicates.csv": pairs, **divide(study, source, manifest, ~removed)}
    for name, table in tables.items():
        write_table(study.runs / name, table)
