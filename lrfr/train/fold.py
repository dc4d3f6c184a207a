"""The faces of one fold, as the training stages read them."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from lrfr.config import Study
from lrfr.data.align import CHIP
from lrfr.data.degradations import area, small_images
from lrfr.data.draws import Draw
from lrfr.train.trainings import Training

See = Callable[[Tensor, int], Tensor]  # `TeacherSpec.see`
BLOCK = 40  # chips at a time


class Fold(NamedTuple):
    """One identity fold.

    images: int64 (n,), training images in ascending order. labels: int64 (n,), their classes 0 ... C-1, or -1: a person
    with a single photograph is no class, since nothing but that photograph would be learned; it is there to distil.
    validation, test: images of people who are never trained on. people: int64 (N,), person of every image of the index.
    Photographs that `prepare` removed (one under two names) are only tested: test lists are fixed. Of a validation
    person the first `faces.validation_images` count. chips: uint8 (N, S, S, 3) of all images, with their margin;
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
    chips = np.load(study.runs / "chips.npy", mmap_mode="r")
    views: dict[str, np.ndarray] = {}
    for kind in study.views.kinds:
        views[kind] = np.load(study.runs / "views" / f"{kind}.npy", mmap_mode="r")
    test = np.flatnonzero(roles == "test")
    return Fold(number, images, labels, validation.index.to_numpy(), test, people, chips, views)


def teacher_input(views: Tensor) -> Tensor:
    """uint8 (B, s, s, 3) -> float32 (B, 3, s, s) in 0 ... 255, channels last; the teacher normalises inside."""
    return views.permute(0, 3, 1, 2).float()


def teacher_view(see: See, chips: np.ndarray, resolution: np.ndarray, mirrored: np.ndarray) -> Tensor:
    """What a teacher sees of faces, by its `TeacherSpec.see`: uint8 (B, s, s, 3).

    chips: uint8 (B, S, S, 3). resolution: int (B,), as the student sees them, for the conventional teacher; 0 for HR.
    mirrored: bool (B,).
    """
    faces = torch.from_numpy(chips)
    faces = torch.where(torch.from_numpy(mirrored)[:, None, None, None], faces.flip(2), faces)
    views = see(faces, CHIP)
    for size in np.unique(resolution[resolution > 0]):
        rows = torch.from_numpy(resolution == size)
        views[rows] = see(area(faces[rows], int(size), ()), int(size))
    return views


def sharp_views(see: See, fold: Fold, images: np.ndarray, mirrored: bool = False) -> Tensor:
    """`teacher_view` of sharp faces, a block at a time: uint8 (n, s, s, 3)."""
    flags, no = np.full(BLOCK, mirrored), np.zeros(BLOCK, np.int64)
    parts = (images[start : start + BLOCK] for start in range(0, len(images), BLOCK))
    return torch.cat([teacher_view(see, fold.chips[ids], no[: len(ids)], flags[: len(ids)]) for ids in parts])


def drawn_views(see: See, fold: Fold, ids: np.ndarray, draw: Draw, kinds: tuple[str, ...], seed: int) -> Tensor:
    """What a network sees of a batch as drawn, made on demand: uint8 (B, s, s, 3), not yet jittered.

    ids: int (B,), images. kinds: keys of `DEGRADATIONS`, which `draw.kind` numbers; seed: of their draws.
    """
    views: list[Tensor] = [torch.empty(0)] * len(ids)
    for size, kind in {*zip(draw.resolution.tolist(), draw.kind.tolist(), strict=True)}:
        rows = np.flatnonzero((draw.resolution == size) & (draw.kind == kind))
        chips, flipped = fold.chips[ids[rows]], torch.from_numpy(draw.mirrored[rows])
        small = small_images(kinds[kind], chips, size, seed, ids[rows]) if size else torch.from_numpy(chips)
        small = torch.where(flipped[:, None, None, None], small.flip(2), small)
        for row, view in zip(rows, see(small, size or CHIP), strict=True):
            views[row] = view
    return torch.stack(views)
