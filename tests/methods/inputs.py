"""The ramps that all reference values are computed on, and one way of comparing with them."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from lrfr.models.heads import unit


def sine(step: float, start: float, *shape: int) -> Tensor:
    """sin(step k + start) for k = 0, 1, 2 ... in row-major order, float64."""
    return torch.sin(step * torch.arange(math.prod(shape), dtype=torch.float64) + start).reshape(shape)


def cosine(step: float, start: float, *shape: int) -> Tensor:
    """cos(step k + start), likewise."""
    return torch.cos(step * torch.arange(math.prod(shape), dtype=torch.float64) + start).reshape(shape)


def exactly(values: object) -> object:
    """Equal to 1e-9 (absolute), as the references were computed in float64 and written with twelve digits."""
    return pytest.approx(values, abs=1e-9, rel=0)


# logits of teacher and student, and labels
TEACHER_LOGITS = torch.tensor([[2, 1, 0, -1, 0.5], [0, 3, 1, -2, 1]], dtype=torch.float64)
STUDENT_LOGITS = torch.tensor([[1, 1.5, -0.5, 0, 0.2], [0.3, 1, 2, -1, 0]], dtype=torch.float64)
LOGIT_LABELS = torch.tensor([0, 1])
# feature maps of two levels
STUDENT_MAPS = (sine(0.7, 0.1, 2, 3, 4, 4), sine(0.7, 0.2, 2, 4, 2, 2))
TEACHER_MAPS = (cosine(0.3, 0, 2, 3, 4, 4), cosine(0.3, 0.5, 2, 4, 2, 2))
# embeddings
STUDENT = sine(0.7, 0.1, 4, 6)
TEACHER = cosine(0.3, 0, 4, 6)
UNIT_STUDENT, UNIT_TEACHER = unit(STUDENT), unit(TEACHER)
# one-channel maps of two levels
S1, S2 = sine(0.7, 0.1, 2, 1, 8, 8), sine(0.7, 0.2, 2, 1, 4, 4)
T1, T2 = cosine(0.3, 0, 2, 1, 8, 8), cosine(0.3, 0.5, 2, 1, 4, 4)
