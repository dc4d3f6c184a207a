"""What a student sees in an epoch: which images, at which resolution, mirrored or not. The same for every method.

Everything random is a function of (seed, epoch, image) (`lrfr.streams`): no loader, worker or call order can change it.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from lrfr.streams import stream

PER_PERSON = 4  # images of a person in the balanced half of a batch (as in EKD, CVPR 2022: 4 per identity)
LUMA = (0.299, 0.587, 0.114)  # BT.601: what a grey photograph shows of red, green and blue; they sum to 1
MOST = 40  # no person contributes more images to an epoch: our choice, against sets where one person has hundreds


Batches = list[tuple[np.ndarray, np.ndarray]]  # (images, half), int64 (B,) both


class Draw(NamedTuple):
    """What is drawn for each row of a batch: arrays of shape (B,).

    resolution: int64, side of the low-resolution view in pixels; 0 stands for the HR view. mirrored: bool. gain, bias:
    float32, photometric jitter of the normalised view, x * gain + bias. moves: float32 (B, 4) in -1 ... 1, geometric
    jitter of the sampling window in units of its largest: rotation, log size, shifts to the right and down. colour:
    float32 (B, 3, 3), what the view's red, green and blue are made of; the identity leaves them as they are. kind:
    int64, which of the study's kinds of small images (`views.kinds`), each as likely.
    """

    resolution: np.ndarray
    mirrored: np.ndarray
    gain: np.ndarray
    bias: np.ndarray
    moves: np.ndarray
    colour: np.ndarray
    kind: np.ndarray


def epoch_draws(
    seed: int,
    epoch: int,
    images: int,
    smallest: int,
    largest: int,
    hr: float,
    jitter: float,
    grey: float,
    cast: float,
    kinds: int,
) -> Draw:
    """Draws for every image of the index, for both halves of a batch: shape (images, 2), moves (images, 2, 4).

    With probability `hr` the HR view, else an integer side log-uniform in smallest ... largest, so that 8 px is met as
    often as 16 or 32 per octave (our choice). With probability `grey` the view is grey, else each channel has a gain of
    its own, by at most `cast` from another's (our choice: uniform). Row i depends on (seed, epoch, i) alone.
    """
    u = stream("views", seed, epoch).random((images, 2, 5))
    low, high = np.log(smallest), np.log(largest + 1)
    resolution = np.floor(np.exp(low + u[..., 1] * (high - low))).astype(np.int64).clip(smallest, largest)
    resolution[u[..., 0] < hr] = 0
    spread = (2 * jitter * (u[..., 3:] - 0.5)).astype(np.float32)
    moves = (2 * stream("moves", seed, epoch).random((images, 2, 4)) - 1).astype(np.float32)
    v = stream("colour", seed, epoch).random((images, 2, 4))
    colour = (np.eye(3) * (1 + cast * (v[..., 1:, None] - 0.5))).astype(np.float32)  # diag(g_r, g_g, g_b)
    colour[v[..., 0] < grey] = LUMA  # Y = .299 R + .587 G + .114 B in all three
    kind = (kinds * stream("kinds", seed, epoch).random((images, 2))).astype(np.int64)
    return Draw(resolution, u[..., 2] < 0.5, 1 + spread[..., 0], spread[..., 1], moves, colour, kind)


def epoch_batches(seed: int, epoch: int, images: np.ndarray, labels: np.ndarray, batch: int, people: int) -> Batches:
    """Batches of an epoch; half is 0 in the uniform, 1 in the balanced part.

    images, labels: int (n,), image numbers and the person of each. The balanced part of a batch holds `people` people x
    4 of their images, among people with at least 4; the rest is uniform over images. Neither part takes more than 20
    images of a person in an epoch.
    """
    rng = stream("sampler", seed, epoch)
    seen = np.zeros(labels.max() + 1, dtype=np.int64)
    uniform = []
    for row in rng.permutation(len(images)):
        if seen[labels[row]] < MOST // 2:
            seen[labels[row]] += 1
            uniform.append(row)
    rows_of = np.split(np.argsort(labels, kind="stable"), np.cumsum(np.bincount(labels))[:-1])
    eligible = np.array([person for person, rows in enumerate(rows_of) if len(rows) >= PER_PERSON])
    people = people if len(eligible) else 0
    count, steps = batch - people * PER_PERSON, max(1, round(len(uniform) / batch))
    rounds = -(-steps * people // max(len(eligible), 1))
    turns = np.concatenate([eligible[:0], *(rng.permutation(eligible) for _ in range(rounds))])[: steps * people]
    # a person's turns are limited like his share of the uniform part
    repeats = np.array([np.count_nonzero(turns[:t] == person) for t, person in enumerate(turns)])
    turns = turns[repeats < MOST // 2 // PER_PERSON]
    batches = []
    for step in range(steps):
        first, chosen = uniform[step * count : (step + 1) * count], turns[step * people : (step + 1) * people]
        balanced = [rng.choice(rows_of[person], PER_PERSON, replace=False) for person in chosen]
        rows = np.concatenate([np.array(first, dtype=np.int64), *balanced])
        batches.append((images[rows], (np.arange(len(rows)) >= len(first)).astype(np.int64)))
    return batches


def view_index(resolution: np.ndarray, smallest: int, largest: int) -> np.ndarray:
    """Resolutions (0 is HR) -> the second axis of `views/<kind>.npy`, where HR comes last."""
    return np.where(resolution == 0, largest - smallest + 1, resolution - smallest)


def move(views: Tensor, moves: Tensor, rotate: float, zoom: float, shift: float) -> Tensor:
    """Turn, zoom and shift every view about its centre, bilinearly; what comes from outside repeats the border.

    The teacher's target stays that of the aligned face: a view is moved by so little that the teacher hardly notices,
    and the target is what an invariant student should say (our choice).

    views: float (B, C, S, S). moves: float (B, 4) in -1 ... 1 (`Draw.moves`). rotate: degrees, zoom: natural
    logarithm, shift: fraction of the side, each at a move of 1. Returns the same shape.
    """
    angle, scale = moves[:, 0] * math.radians(rotate), (moves[:, 1] * zoom).exp()
    cosine, sine = scale * angle.cos(), scale * angle.sin()
    x, y = 2 * shift * moves[:, 2], 2 * shift * moves[:, 3]  # affine_grid counts -1 ... 1 over a side
    matrix = torch.stack([torch.stack([cosine, -sine, x], 1), torch.stack([sine, cosine, y], 1)], 1)
    grid = F.affine_grid(matrix, list(views.shape), align_corners=False)
    return F.grid_sample(views, grid, mode="bilinear", padding_mode="border", align_corners=False)
