"""Geometric jitter of a batch of views: the student shall not care where exactly the landmarks were found.

The teacher's target stays that of the aligned face. A view is turned, zoomed and shifted by so little that the teacher itself
hardly notices, and the target is what an invariant student should say (our choice). The jitter follows the degradation: a view of
8 pixels is moved as the smooth image that the student gets of it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def move(views: Tensor, moves: Tensor, rotate: float, zoom: float, shift: float) -> Tensor:
    """Turn, zoom and shift every view about its centre, bilinearly; what comes from outside repeats the border.

    views: float (B, C, S, S). moves: float (B, 4) in -1 ... 1 (`lrfr.data.draws.Draw.moves`). rotate: degrees, zoom: natural
    logarithm, shift: fraction of the side, each at a move of 1. Returns the same shape.
    """
    angle, scale = moves[:, 0] * math.radians(rotate), (moves[:, 1] * zoom).exp()
    cosine, sine = scale * angle.cos(), scale * angle.sin()
    x, y = 2 * shift * moves[:, 2], 2 * shift * moves[:, 3]  # affine_grid counts -1 ... 1 over a side
    matrix = torch.stack([torch.stack([cosine, -sine, x], 1), torch.stack([sine, cosine, y], 1)], 1)
    grid = F.affine_grid(matrix, list(views.shape), align_corners=False)
    return F.grid_sample(views, grid, mode="bilinear", padding_mode="border", align_corners=False)
