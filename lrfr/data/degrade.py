"""Low-resolution views: area down to r x r, rounding to uint8, bicubic up. One function for training and test.

Everything is computed in whole numbers held in float64, so that no result depends on the order of a sum: the same bytes
on every machine, for every batch size and number of threads, and mirroring before or after is the same to the last bit.
Both kernels are low-pass filters; plain OpenCV-style subsampling aliases and costs points of accuracy that have nothing
to do with the method. They agree with Pillow's BICUBIC, and with its BOX where cells are whole, up to its rounding.
"""

import math
from functools import lru_cache
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from lrfr.errors import UserError

Images = TypeVar("Images", Tensor, np.ndarray)
# Our choice: 1/1024 grey level is kept between the two directions; sums stay below 2^53 for sides up to 1000 pixels.
FIXED = 1 << 10


@lru_cache(maxsize=256)
def area_weights(source: int, target: int) -> Tensor:
    """Overlap of equal cells with pixels, in units of 1/target pixel: whole numbers, float64 (target, source)."""
    cell, pixel = torch.arange(target, dtype=torch.float64)[:, None], torch.arange(source, dtype=torch.float64)[None, :]
    left, right = torch.maximum(cell * source, pixel * target), torch.minimum((cell + 1) * source, (pixel + 1) * target)
    return (right - left).clamp(min=0)


@lru_cache(maxsize=256)
def bicubic_weights(source: int, target: int) -> Tensor:
    """Cubic convolution (Keys 1981, a = -1/2) times 2 unit^3: whole numbers, float64 (target, source), to be divided by
    the row sums. Pixel centres lie at half-integers; where it shrinks, the kernel is stretched by source/target
    (antialiasing); beyond the border it is cut and renormalised.
    """
    unit = 2 * max(source, target)  # of the kernel's argument: a whole number of units for every pair of pixels
    centre = (2 * torch.arange(target, dtype=torch.float64)[:, None] + 1) * source
    n = ((2 * torch.arange(source, dtype=torch.float64)[None, :] + 1) * target - centre).abs()
    near = 3 * n**3 - 5 * n**2 * unit + 2 * unit**3
    far = -(n**3) + 5 * n**2 * unit - 8 * n * unit**2 + 4 * unit**3
    return torch.where(n < unit, near, torch.where(n < 2 * unit, far, torch.zeros(())))


@lru_cache(maxsize=256)
def window_weights(source: int, start: float, length: float, target: int) -> Tensor:
    """Antialiased cubic convolution from a window of a line to `target` pixels: whole, float64 (target, source).

    The window begins at `start` and is `length` long, in pixels of the line, edges at integers; beyond the line its end
    pixels are repeated. Weights are in units of 1 / 2^20, so that sums stay exact.
    """
    step = length / target
    centre = start + (torch.arange(target, dtype=torch.float64)[:, None] + 0.5) * step
    reach = math.ceil(2 * max(step, 1)) + math.ceil(max(0.0, -start, start + length - source))
    place = torch.arange(-reach, source + reach, dtype=torch.float64)[None, :] + 0.5
    n = (place - centre).abs() / max(step, 1)  # Keys' kernel, as in `bicubic_weights`
    kernel = torch.where(n < 1, 1.5 * n**3 - 2.5 * n**2 + 1, -0.5 * n**3 + 2.5 * n**2 - 4 * n + 2) * (n < 2)
    whole = torch.round(kernel / kernel.sum(1, keepdim=True) * (1 << 20))
    inside = whole[:, reach : reach + source].clone()
    inside[:, 0] += whole[:, :reach].sum(1)
    inside[:, -1] += whole[:, reach + source :].sum(1)
    return inside


def resample(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Separable resampling of uint8 (B, H, W, 3) with whole-number weights (h, H) and (w, W) to uint8 (B, h, w, 3).

    Each direction is an exact sum of whole numbers divided by the row sum, rounded to 1/1024 grey level after the first
    and to whole grey levels, clamped to 0 ... 255, after the second (half rounds up).
    """
    rows, columns = rows.to(images.device), columns.to(images.device)
    x = images.permute(0, 3, 1, 2).to(torch.float64)
    x = torch.floor(x @ columns.T * FIXED / columns.sum(1) + 0.5)
    x = torch.floor(rows @ x / (rows.sum(1)[:, None] * FIXED) + 0.5)
    return x.clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def _tensor(images: Images) -> Tensor:
    x = torch.from_numpy(np.ascontiguousarray(images)) if isinstance(images, np.ndarray) else images
    if x.dtype != torch.uint8 or x.ndim != 4 or x.shape[-1] != 3 or 0 in x.shape[1:]:
        raise UserError(f"images: uint8 (B, H, W, 3) is needed, not {x.dtype} {tuple(x.shape)}; convert them first.")
    return x


def _like(x: Tensor, images: Images) -> Images:
    return x.cpu().numpy() if isinstance(images, np.ndarray) else x


def area(images: Tensor, size: int) -> Tensor:
    """Mean over size x size equal cells, fractional pixels included: uint8 (B, H, W, 3) -> uint8 (B, size, size, 3)."""
    return resample(images, area_weights(images.shape[1], size), area_weights(images.shape[2], size))


def bicubic(images: Tensor, size: int) -> Tensor:
    """Antialiased bicubic resize: uint8 (B, H, W, 3) -> uint8 (B, size, size, 3)."""
    return resample(images, bicubic_weights(images.shape[1], size), bicubic_weights(images.shape[2], size))


def middle(images: Images, size: int) -> Images:
    """The middle size x size pixels of (B, H, W, 3): the chip of images with a margin."""
    top, left = ((side - size) // 2 for side in images.shape[1:3])
    return images[:, top : top + size, left : left + size]


def window(images: Tensor, left: float, top: float, side: float, size: int) -> Tensor:
    """A square window of images, antialiased bicubic: uint8 (B, H, W, 3) -> uint8 (B, size, size, 3).

    left, top, side: its edges in pixels; where it leaves the image, border pixels are repeated.
    """
    rows, columns = images.shape[1:3]
    return resample(images, window_weights(rows, top, side, size), window_weights(columns, left, side, size))


def degrade(chips: Images, size: int, out_size: int) -> Images:
    """What a face looks like at `size` x `size` pixels: area down, rounding to uint8, bicubic to the model's size.

    chips: uint8 (B, H, W, 3), torch or NumPy. Returns uint8 (B, out_size, out_size, 3), of the same kind, on the same
    device, which needs float64 (CPU, CUDA). Each image is treated alone: results do not depend on the batch. Raises
    UserError if chips are not uint8 (B, H, W, 3), or `size` is larger than the chip, or a size is below 1.
    """
    x = _tensor(chips)
    if not 1 <= size <= min(x.shape[1:3]) or out_size < 1:
        asked = f"size {size} of {x.shape[1]} x {x.shape[2]} chips, out_size {out_size}"
        raise UserError(f"degrade: {asked}; sizes start at 1 and end at the chip's.")
    return _like(bicubic(area(x, size), out_size), chips)


def hr_view(chips: Images, out_size: int) -> Images:
    """The `hr` view: the chip at the model's input size, by area (bicubic only where a model wants more pixels).

    chips: uint8 (B, H, W, 3), torch or NumPy. Returns uint8 (B, out_size, out_size, 3), of the same kind.
    """
    x = _tensor(chips)
    return _like(area(x, out_size) if out_size <= min(x.shape[1:3]) else bicubic(x, out_size), chips)


def mirror(chips: Images) -> Images:
    """Left-right mirror of (..., H, W, 3)."""
    return chips.flip(-2) if isinstance(chips, Tensor) else np.ascontiguousarray(chips[..., ::-1, :])
