"""Stage `prepare`: photographs and landmarks -> chips, index, near-duplicates, banks of low-resolution views."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from lrfr.config import Study
from lrfr.data import align, duplicates
from lrfr.data.align import CHIP, COLUMNS, POINTS
from lrfr.data.degradations import view_bank
from lrfr.data.photographs import Source, read_all, read_faces
from lrfr.errors import UserError
from lrfr.files import atomic_file, atomic_folder, write_table
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
    study: Study, first: int, photographs: list[tuple], stored: int, chips_file: Path, views: Path
) -> list[duplicates.Look]:
    """Write rows first, first + 1, ... of the arrays, for photographs (name, bytes, points, fallback).

    stored: photographs of the training source, which come first and whose views are stored. chips_file, views: file and
    folder of the arrays, whose rows no other process writes. Returns how the photographs look.
    """
    images = [read_image(data, name) for name, data, *_ in photographs]
    margin, numbers = study.faces.margin, range(first, min(first + len(photographs), stored))
    crops = [(points, fallback) for *_, points, fallback in photographs]
    chips = np.stack([align.chip(image, *crop, margin=margin) for image, crop in zip(images, crops, strict=True)])
    written = {chips_file: chips}
    if numbers:
        sizes = study.views.smallest, study.views.largest, study.views.size
        for kind in study.views.kinds:
            bank = view_bank(kind, chips[: len(numbers)], *sizes, study.seed, numbers)
            written[views / f"{kind}.npy"] = bank
    for file, rows in written.items():
        array = np.load(file, mmap_mode="r+")
        array[first : first + len(rows)] = rows
        array.flush()
    return [duplicates.look(image) for image in images]


def run(study: Study, sources: Mapping[str, Source]) -> None:
    """Write chips.npy, views/<kind>.npy, index.csv and duplicates.csv.

    Every photograph is checked against the manifest's sha256 before any is decoded. The arrays are never in memory as a
    whole: processes fill rows of the files.
    """
    faces = read_faces(study, sources)
    points = read_landmarks(study.reports / "landmarks.csv", len(faces))
    photographs = []
    for name, source in sources.items():
        own = faces[faces["set"] == name]
        rows = zip(own["name"], read_all(source.open(), own), own["image"], strict=True)
        photographs += [(name, data, points[image], source.fallback) for name, data, image in rows]
    side, size, count = CHIP + 2 * study.faces.margin, study.views.size, len(photographs)
    stored = int((faces["set"] == study.faces.source).sum())
    shape = (stored, study.views.largest - study.views.smallest + 2, size, size, 3)
    with atomic_file(study.runs / "chips.npy") as chips, atomic_folder(study.runs / "views") as views:
        shapes = {chips: (count, side, side, 3)} | {views / f"{kind}.npy": shape for kind in study.views.kinds}
        for file, whole in shapes.items():
            np.lib.format.open_memmap(file, "w+", np.uint8, whole).flush()
        rest = stored, chips, views
        tasks = [(study, first, photographs[first : first + CHUNK], *rest) for first in range(0, count, CHUNK)]
        done = parallel_map(prepare_chunk, tasks, study.jobs, study.threads, "prepare")
        looks, people = [look for some in done for look in some], faces["person"].to_numpy()
        # aligned faces of two people may look alike at 24 pixels: there only equal pixels are one photograph
        found = all(source.points is None for source in sources.values())
        threshold = duplicates.THRESHOLD if found else duplicates.EQUAL
        pairs = duplicates.find(looks, faces["name"].tolist(), people, threshold)
        index = faces[["image", "person", "set", "name"]].assign(
            fallback=[int(place is None) for place in points], removed=duplicates.removed(pairs, count).astype(int)
        )
    write_table(study.runs / "index.csv", index)
    write_table(study.runs / "duplicates.csv", pairs)
