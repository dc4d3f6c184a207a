"""The faces of one fold, as the training stages read them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from torch import Tensor

from lrfr.config import Study


class Fold(NamedTuple):
    """One identity fold.

    images: int64 (n,), training images in ascending order. labels: int64 (n,), their classes 0 ... C-1.
    validation, test: image numbers of people who are never trained on. people: int64 (N,), person of every image of the index.
    chips: uint8 (N, 150, 150, 3); views: uint8 (N, 2, V, S, S, 3); both memory-mapped, over all images of the index.
    """

    number: int
    images: np.ndarray
    labels: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    people: np.ndarray
    chips: np.ndarray
    views: np.ndarray

    @property
    def held_out(self) -> np.ndarray:
        """Validation and test images in ascending order: the rows of the embedding files."""
        return np.sort(np.concatenate([self.validation, self.test]))


def read_fold(study: Study, number: int) -> Fold:
    """Read what `prepare` wrote."""
    index = pd.read_csv(study.runs / "index.csv")
    folds = pd.read_csv(study.runs / "folds.csv")
    role = folds[folds.fold == number].set_index("person").role
    roles = index.person.map(role).to_numpy()
    people = index.person.to_numpy()
    images = np.flatnonzero(roles == "train")
    _, labels = np.unique(people[images], return_inverse=True)
    return Fold(
        number,
        images,
        labels,
        np.flatnonzero(roles == "validation"),
        np.flatnonzero(roles == "test"),
        people,
        np.load(study.runs / "chips.npy", mmap_mode="r"),
        np.load(study.runs / "views.npy", mmap_mode="r"),
    )


def teacher_input(chips: Tensor) -> Tensor:
    """uint8 (B, H, W, 3) -> float32 (B, 3, H, W) in 0 ... 255, channels last in memory; the teacher normalises inside."""
    return chips.permute(0, 3, 1, 2).float()
