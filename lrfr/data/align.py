"""Alignment: five landmarks to dlib's face chip, by a similarity transform."""

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

from lrfr.errors import UserError

POINTS = [f"{axis}{point}" for point in range(1, 6) for axis in "xy"]
COLUMNS = ["image", "found", "probability", "faces", *POINTS]  # of landmarks.csv
CHIP = 150  # pixels, dlib's default chip and the input of its face ResNet
PADDING = 0.25  # of the face box on each side, as in dlib's face_recognition example
# Mean positions of MTCNN's points (eye centres, nose tip, mouth corners) in dlib's mean face (`get_face_chip_details`),
# in units of the face box without padding.
MEAN_FACE = np.array([(0.2273, 0.2214), (0.7528, 0.2212), (0.4901, 0.5156), (0.2541, 0.7802), (0.7261, 0.7802)])
TEMPLATE = (PADDING + MEAN_FACE) / (1 + 2 * PADDING) * CHIP  # (5, 2), pixels of the chip


def similarity(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Least-squares rotation, scale and shift that take source to target, without reflection (Umeyama 1991).

    source, target: float (K, 2). Returns float64 (2, 3). In the plane the problem is a complex regression w = a z + b,
    with a = sum(conj(z) w) / sum(|z|^2) over centred points. Raises UserError if all source points coincide.
    """
    z, w = (p[:, 0] + 1j * p[:, 1] for p in (np.asarray(source, np.float64), np.asarray(target, np.float64)))
    centred = z - z.mean()
    energy = np.sum(np.abs(centred) ** 2)
    if not energy > 0:
        raise UserError("landmarks: all points coincide or are not numbers; run the detect stage again.")
    a = np.sum(np.conj(centred) * (w - w.mean())) / energy
    b = w.mean() - a * z.mean()
    return np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]])


def inverse(matrix: np.ndarray) -> np.ndarray:
    """Inverse of an affine transform (2, 3)."""
    return np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))[:2]


def crop_transform(box: tuple[int, int, int, int], size: int = CHIP) -> np.ndarray:
    """Affine transform (2, 3) from the chip's pixels to those of a photograph's box (left, top, right, bottom)."""
    left, top, right, bottom = box
    x, y = (right - left) / size, (bottom - top) / size
    return np.array([[x, 0, left + x / 2 - 0.5], [0, y, top + y / 2 - 0.5]])  # edges match edges; centres at integers


def warp(image: Image.Image, matrix: np.ndarray, size: int = CHIP, margin: int = 0) -> np.ndarray:
    """Chip of a photograph with a margin around it: uint8 (S, S, 3), S = size + 2 margin.

    matrix: (2, 3), from the chip's pixel coordinates to the photograph's (centres at integers). Bicubic interpolation,
    since the faces are smaller than the chip; a larger photograph is first reduced (antialiased) to the chip's scale.
    Beyond the photograph its border pixels are repeated: black corners would be a cue to the person's pose.
    """
    shrink = np.sqrt(abs(np.linalg.det(matrix[:, :2])))  # pixels of the photograph per pixel of the chip
    if shrink > 1:
        reduced = image.resize([max(1, round(side / shrink)) for side in image.size], Image.Resampling.BICUBIC)
        ratio = np.array(reduced.size) / np.array(image.size)
        matrix = np.column_stack([matrix[:, :2] * ratio[:, None], (matrix[:, 2] + 0.5) * ratio - 0.5])
        image = reduced
    column, row = np.meshgrid(*[np.arange(-margin, size + margin)] * 2)
    places = np.stack([column, row, np.ones_like(row)], axis=-1) @ matrix.T  # (S, S, 2), pixels of the photograph
    grid = (2 * places + 1) / np.array(image.size) - 1  # grid_sample's -1 ... 1 from edge to edge
    pixels = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)[None].to(torch.float64)
    where = torch.from_numpy(grid)[None]
    sampled = F.grid_sample(pixels, where, mode="bicubic", padding_mode="border", align_corners=False)
    return sampled[0].permute(1, 2, 0).round().clamp(0, 255).to(torch.uint8).numpy()


def middle(size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The largest square in the middle of a photograph (width, height): left, top, right, bottom."""
    side = min(size)
    left, top = ((length - side) // 2 for length in size)
    return left, top, left + side, top + side


def chip(
    image: Image.Image, points: np.ndarray | None, fallback: tuple[int, int, int, int] | None, margin: int = 0
) -> np.ndarray:
    """Aligned chip uint8 (S, S, 3), S = 150 + 2 margin, of a photograph.

    points: (5, 2); without any it comes from a fixed crop, `fallback` or `middle`. What lies around the chip comes from
    the photograph too, at the same scale.
    """
    crop = crop_transform(fallback or middle(image.size)) if points is None else inverse(similarity(points, TEMPLATE))
    return warp(image, crop, margin=margin)
