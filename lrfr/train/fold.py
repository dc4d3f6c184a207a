"""The faces of one fold, as the training stages read them."""

from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from lrfr.config import Study
from lrfr.data.align import inner
from lrfr.data.degrade import degrade
from lrfr.train.trainings import Training


class Fold(NamedTuple):
    """One identity fold.

    images: int64 (n,), training images in ascending order. labels: int64 (n,), their classes 0 ... C-1, or -1: a person
    with a single photograph is no class, since nothing but that photograph would be learned; it is there to distil.
    validation, test: images of people who are never trained on. people: int64 (N,), person of every image of the index.
    Photographs that `prepare` removed (one under two names) are only tested: test lists are fixed. Of a validation
    person the first `faces.validation_images` count. chips: uint8 (N, 150, 150, 3) of all images, without their margin;
    views: kind -> uint8 (n, V, S, S, 3) of the training source's images, which come first. Both are memory-mapped, and
    not mirrored, since a mirror image's view is its view's mirror image.
    """

    number: int
    images: np.ndarray
    labels: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    people: np.ndarray
    chips: np.ndarray
    views: dict[str, np.ndarray]

    @property
    def held_out(self) -> np.ndarray:
        """Validation and test images in ascending order: the rows of the embedding files."""
        return np.sort(np.concatenate([self.validation, self.test]))

    @property
    def persons(self) -> np.ndarray:
        """int64 (n,), 0 ... P-1: who is on each training image, whether the person is a class or not."""
        return np.unique(self.people[self.images], return_inverse=True)[1]

    @property
    def class_of(self) -> Tensor:
        """int64 (N,): the class of every image of the index, -1 for those without."""
        classes = torch.full((len(self.people),), -1)
        classes[self.images] = torch.from_numpy(self.labels)
        return classes


def read_fold(study: Study | Training, number: int) -> Fold:
    """Read what `prepare` wrote."""
    index, folds = pd.read_csv(study.runs / "index.csv"), pd.read_csv(study.runs / "folds.csv")
    roles = index.person.map(folds[folds.fold == number].set_index("person").role).to_numpy()
    people, usable = index.person.to_numpy(), index.removed.to_numpy() == 0
    images = np.flatnonzero((roles == "train") & usable)
    validation = index[(roles == "validation") & usable].groupby("person").head(study.faces.validation_images)
    repeated = np.bincount(people[images], minlength=people.max() + 1)[people[images]] > 1
    labels = np.full(len(images), -1)
    labels[repeated] = np.unique(people[images][repeated], return_inverse=True)[1]
    chips = inner(np.load(study.runs / "chips.npy", mmap_mode="r"))
    views: dict[str, np.ndarray] = {}
    for kind in study.views.kinds:
        views[kind] = np.load(study.runs / "views" / f"{kind}.npy", mmap_mode="r")
    test = np.flatnonzero(roles == "test")
    return Fold(number, images, labels, validation.index.to_numpy(), test, people, chips, views)


def teacher_input(chips: Tensor) -> Tensor:
    """uint8 (B, H, W, 3) -> float32 (B, 3, H, W) in 0 ... 255, channels last; the teacher normalises inside."""
    return chips.permute(0, 3, 1, 2).float()


def teacher_view(chips: np.ndarray, resolution: np.ndarray, mirrored: np.ndarray) -> Tensor:
    """What the conventional teacher sees: the student's view at the teacher's size, uint8 (B, H, W, 3).

    chips : uint8 (B, H, W, 3); resolution : int (B,), 0 for HR; mirrored : bool (B,).
    """
    views = torch.from_numpy(chips)
    views = torch.where(torch.from_numpy(mirrored)[:, None, None, None], views.flip(2), views)
    for size in np.unique(resolution[resolution > 0]):
        rows = torch.from_numpy(resolution == size)
        views[rows] = degrade(views[rows], int(size), views.shape[1])
    return views
