"""Stage `prepare`: photographs and landmarks -> chips, index, folds and the bank of low-resolution views."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch

from lrfr.config import Study
from lrfr.data import align, orl, splits
from lrfr.data.align import COLUMNS, POINTS
from lrfr.data.degrade import view_bank
from lrfr.data.files import atomic_file
from lrfr.errors import UserError
from lrfr.progress import bar


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


def run(study: Study) -> None:
    """Write chips.npy, index.csv, folds.csv and views.npy; every photograph is checked against the manifest's sha256."""
    torch.set_num_threads(study.threads)
    manifest = orl.read_manifest(people=study.faces.people)
    points = read_landmarks(study.runs / "landmarks.csv", len(manifest))
    faces = zip(manifest["name"], manifest["sha256"], points, strict=True)
    chips = np.stack(
        [
            align.chip(orl.read_face(name, sha256), place, orl.FALLBACK)
            for name, sha256, place in bar(faces, "prepare", len(manifest))
        ]
    )
    index = pd.DataFrame(
        {
            "image": manifest["image"],
            "person": pd.factorize(manifest["person"])[0],
            "name": manifest["name"],
            "fallback": [int(place is None) for place in points],
        }
    )
    folds = splits.identity_folds(study.faces.people, study.faces.folds, study.faces.validation_people, study.seed)
    views = view_bank(chips, study.views.smallest, study.views.largest, study.views.size)
    for name, array in {"chips.npy": chips, "views.npy": views}.items():
        with atomic_file(study.runs / name) as temporary:
            np.save(temporary, array)
    for name, table in {"index.csv": index, "folds.csv": folds}.items():
        with atomic_file(study.runs / name) as temporary:
            table.to_csv(temporary, index=False, lineterminator="\n")
