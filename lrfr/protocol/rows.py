"""Which rows of the embedding files belong to whom. Everything that reads or writes these files counts rows in this way."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lrfr.config import Study
from lrfr.errors import UserError

DENSE, OFFICIAL, MISPLACED, VIEW2 = "dense", "official", "misaligned", "view2"  # protocols, see lrfr.protocol.study
OFFICIAL_COLUMNS = ["fold", "official_fold", "image_a", "image_b", "same"]
MISALIGNED = ("8", "16", "32")  # resolutions of protocol `misaligned`


class Rows(NamedTuple):
    """The held-out photographs of a fold: one row each, in ascending order.

    images, people: int64 (n,), image number and person of each row. test, validation: int64, rows of the people of that role.
    """

    images: NDArray[np.int64]
    people: NDArray[np.int64]
    test: NDArray[np.int64]
    validation: NDArray[np.int64]


def place_in_person(people: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each photograph (n,), how many earlier ones show the same person."""
    return pd.Series(people).groupby(people).cumcount().to_numpy()


def held_out_rows(index: pd.DataFrame, folds: pd.DataFrame, number: int, validation_images: int) -> Rows:
    """All photographs of a fold's test people, and the first `validation_images` of each validation person.

    index, folds: index.csv and folds.csv. Duplicates that `prepare` has marked as removed are no validation images.
    """
    index = index.sort_values("image")
    role = index.person.map(folds[folds.fold == number].set_index("person").role)
    tested = index.image[role == "test"]
    candidates = index[(role == "validation") & (index.removed == 0)]
    validated = candidates.image[place_in_person(candidates.person.to_numpy()) < validation_images]
    images = np.sort(np.concatenate([tested, validated])).astype(np.int64)
    people = index.set_index("image").person.loc[images].to_numpy()
    return Rows(images, people, np.flatnonzero(np.isin(images, tested)), np.flatnonzero(np.isin(images, validated)))


def read_official(study: Study) -> pd.DataFrame:
    """official.csv in the order of the official folds.

    Raises
    ------
    UserError
        if it is missing, has other columns, or folds of different sizes.
    """
    path = study.runs / "official.csv"
    try:
        table = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({type(error).__name__}); run `dvc repro` again.") from None
    if not set(OFFICIAL_COLUMNS) <= set(table.columns) or table.groupby("official_fold").size().nunique() != 1:
        raise UserError(
            f"{path}: not the official pairs ({', '.join(OFFICIAL_COLUMNS)}, folds of one size); run `dvc repro` again."
        )
    return table.sort_values("official_fold", kind="stable")
