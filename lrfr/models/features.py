"""What every backbone returns, and what a teacher hands to a student."""

from __future__ import annotations

from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


class Features(NamedTuple):
    """Output of a backbone.

    maps: stage outputs, shallow to deep, each float (B, C_l, H_l, W_l).
    embedding: float (B, D), before L2 normalisation.
    """

    maps: tuple[Tensor, ...]
    embedding: Tensor


class Targets(NamedTuple):
    """A teacher's outputs for the HR view of a batch, read from the cache or computed on line; never carry gradients.

    ids: int64 (B,), the image behind each row (a mirrored image keeps its id).
    embedding: float (B, D), standardised with the training set: (t - mean) / rms; not unit norm.
    logits: float (B, C), scale * cosine to the class weights, without margin.
    maps: stage outputs, shallow to deep, adaptive-average-pooled to the student's grids, float (B, C_l, H_l, W_l).
    attention: mean over channels of the squared stage outputs, pooled likewise, float (B, 1, H_l, W_l).
    Fields that the method does not need (`Method.needs`) are None; `given` says that one is there.
    """

    ids: Tensor
    embedding: Tensor | None = None
    logits: Tensor | None = None
    maps: tuple[Tensor, ...] | None = None
    attention: tuple[Tensor, ...] | None = None

    def to(self, device: torch.device) -> Targets:
        """The same on a device."""
        embedding, logits = (None if t is None else t.to(device) for t in (self.embedding, self.logits))
        levels = (None if ts is None else tuple(t.to(device) for t in ts) for ts in (self.maps, self.attention))
        return Targets(self.ids.to(device), embedding, logits, *levels)


def given(field: T | None) -> T:
    """A field of `Targets` that the method has named in `needs`."""
    if field is None:
        raise ValueError("the method does not name this target in `needs`")
    return field


class Shapes(NamedTuple):
    """What a method must know to build its projectors and banks.

    student_maps, teacher_maps: (channels, side) per stage, shallow to deep; the sides are equal (teachers are pooled).
    student_embedding, teacher_embedding: dimensions. classes: training people. images: rows of the image index.
    """

    student_maps: tuple[tuple[int, int], ...]
    teacher_maps: tuple[tuple[int, int], ...]
    student_embedding: int
    teacher_embedding: int
    classes: int
    images: int
