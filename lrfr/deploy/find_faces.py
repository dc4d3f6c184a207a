"""The faces of a photograph, as a student wants to see them: MTCNN's landmarks, dlib's chip, the study's views.

A file is decoded (`lrfr.gate`), looked at for landmarks (`look`), aligned (`align`) and brought to the student's input
(`view`). Two things are not as in the study. A photograph is looked at once more, enlarged, if nothing was found: MTCNN
knows no face below 20 pixels. And a face with fewer pixels than the student's input is not blown up to the 150-pixel
chip: it is aligned at its own size and then enlarged, as the low-resolution views of training were.
"""

from __future__ import annotations

import sys
from collections import namedtuple
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

from lrfr.data.align import CHIP, TEMPLATE, crop_transform, inverse, similarity, warp
from lrfr.data.degrade import hr_view
from lrfr.errors import UserError
from lrfr.gate.images import read_image
from lrfr.parallel import parallel_map

if TYPE_CHECKING:
    from collections.abc import Sequence

    from facenet_pytorch import MTCNN

CERTAIN = 0.9  # probability of a face: facenet-pytorch's own for its choice "largest over threshold"
SMALLEST = 20  # pixels: `min_face_size` of MTCNN; a smaller photograph makes it fail
# Our choices, tried on 40 photographs of LFW made small: faces of 10 px are found in 39, of 8 px in 33, at 6x.
SMALL, ENLARGED = 200, 400  # a shorter side below the first: the longer side is enlarged to the second
FIRST, SECOND = 1280, 2560  # pixels of the longer side: most in the first look, most in the second
LARGEST_SCALE = 6.0
LARGEST_BORDER = 100  # repeated pixels around a photograph that is enlarged: a face may fill it
LARGEST_SIDE = 4096  # pixels of an aligned face
AROUND = 4  # pixels of the chip that are kept around it: twice the reach of the bicubic kernel
NO_FACE = "no face found; give a larger or more frontal one, or --aligned if the image is an aligned face."


class Face(NamedTuple):
    """One face. `box` and `probability` are MTCNN's; None of an aligned face."""

    image: np.ndarray  # uint8 (S, S, 3), the student's view
    pixels: int  # side of the aligned face in the photograph, rounded
    box: tuple[float, float, float, float] | None  # left, top, right, bottom in pixels of the photograph
    probability: float | None


Found = namedtuple("Found", "path faces problem")  # of one photograph: Faces, the largest first; or why there is none


def find_all(paths: Sequence[Path], size: int, aligned: bool, jobs: int) -> list[Found]:
    """The faces of many photographs, in `jobs` processes of one thread, in the order of the paths. size: of the
    student's input in pixels. aligned: every image is an aligned face already; nothing is detected."""
    if not aligned:
        detector()  # made once, before the processes are forked
    return parallel_map(find_one, [(path, size, aligned) for path in paths], jobs, 1, "faces")


def find_one(path: Path, size: int, aligned: bool) -> Found:
    """The same of one photograph, in any process."""
    try:
        image = read_image(path)
        if aligned:
            return Found(path, [Face(view(np.asarray(image), size), min(image.size), None, None)], None)
        faces = find_faces(detector(), image, size)
    except UserError as error:
        return Found(path, [], str(error) if str(path) in str(error) else f"{path}: {error}")
    return Found(path, faces, None if faces else f"{path}: {NO_FACE}")


def find_faces(mtcnn: MTCNN, image: Image.Image, size: int) -> list[Face]:
    """Every certain face of an RGB photograph, the largest first; empty if there is none."""
    faces = [
        Face(*align(image, points, size), tuple(np.round(box, 1).tolist()), round(probability, 4))
        for box, probability, points in look(mtcnn, image)
    ]
    return sorted(faces, key=lambda face: -face.pixels)


@cache
def detector() -> MTCNN:
    """The study's detector, one a process; that of `lrfr.data.detect` brings pandas and a study's parameters along.

    It is imported without torch's compiler, half of the start-up time of a short program: `torchvision.ops.roi_align`,
    which MTCNN does not use, asks the compiler one question on import; here the answer is "no".
    """
    name = "torch._dynamo.utils"
    absent = name not in sys.modules
    sys.modules.setdefault(name, SimpleNamespace(is_compile_supported=lambda device: False))
    try:
        from facenet_pytorch import MTCNN
    finally:
        if absent:
            del sys.modules[name]
    return MTCNN(keep_all=True, device="cpu")


def look(mtcnn: MTCNN, image: Image.Image) -> list[tuple[np.ndarray, float, np.ndarray]]:
    """What `detect` finds in an RGB photograph at the first look, or else at the second; empty if neither finds any."""
    return next(filter(None, (detect(mtcnn, image, *way) for way in looks(*image.size))), [])


def looks(width: int, height: int) -> tuple[tuple[float, int], tuple[float, int]]:
    """(scale, border in pixels) of the first look at a photograph, and of the second one if the first finds no face.

    First: as it is, reduced to 1280 px; a photograph with a side below 200 px gets a border and is enlarged to 400 px.
    Second: with a border, enlarged up to six times, to 2560 px at most.
    """
    shorter, longer = sorted((width, height))
    border = min(shorter // 2, LARGEST_BORDER)
    small, second = (((min(LARGEST_SCALE, side / (longer + 2 * border)), border)) for side in (ENLARGED, SECOND))
    return small if shorter < SMALL else (min(1.0, FIRST / longer), 0), second


def detect(mtcnn: MTCNN, image: Image.Image, scale: float, border: int) -> list[tuple[np.ndarray, float, np.ndarray]]:
    """(box (4,), probability, points (5, 2)) of every certain face; pixels of the photograph, centres at integers."""
    if border:
        image = Image.fromarray(np.pad(np.asarray(image), ((border, border), (border, border), (0, 0)), mode="edge"))
    sides = [max(1, round(side * scale)) for side in image.size]
    if min(sides) < SMALLEST:
        return []
    try:
        boxes, probabilities, points = mtcnn.detect(image.resize(sides, Image.Resampling.BICUBIC), landmarks=True)
    except RuntimeError:  # the package joins an empty list of tensors where no candidate is left
        return []
    if boxes is None:
        return []
    ratio, corners = np.array(sides) / np.array(image.size), boxes.astype(np.float64).reshape(-1, 2, 2)
    boxes, points = ((at + 0.5) / ratio - 0.5 - border for at in (corners, points.astype(np.float64)))
    found = zip(boxes.reshape(-1, 4), map(float, probabilities), np.round(points, 1), strict=True)
    return [face for face in found if face[1] >= CERTAIN]


def align(image: Image.Image, points: np.ndarray, size: int) -> tuple[np.ndarray, int]:
    """The student's view uint8 (size, size, 3) of the face with these points (5, 2), and its own side in pixels.

    A face of at least `size` pixels becomes the 150-pixel chip, which is reduced by area, as the study's `hr` views. A
    smaller one is warped to a chip of its own side, which is enlarged bicubically, as the study's low-resolution views.
    """
    matrix = inverse(similarity(points, TEMPLATE))  # from the 150-pixel chip to the photograph
    shrink = np.sqrt(abs(np.linalg.det(matrix[:, :2])))  # pixels of the photograph per pixel of that chip
    pixels = max(1, round(CHIP * shrink))
    side = CHIP if pixels >= size else pixels
    # only the part that is needed: decoded camera files are large, and `warp` computes in float64
    margin = AROUND * max(1, shrink)
    corners = np.array([(x, y, 1) for x in (0, CHIP) for y in (0, CHIP)]) @ matrix.T
    limits = np.array(image.size)
    left, top = np.clip(np.floor(corners.min(0) - margin), 0, limits - 1).astype(int)
    right, bottom = np.clip(np.ceil(corners.max(0) + margin), (left + 1, top + 1), limits).astype(int)
    matrix = np.column_stack([matrix[:, :2], matrix[:, 2] - (left, top)])
    to_chip = np.vstack([crop_transform((0, 0, CHIP, CHIP), side), [0, 0, 1]])
    chip = warp(image.crop((left, top, right, bottom)), matrix @ to_chip, side)
    return view(chip, size), pixels


def view(face: np.ndarray, size: int) -> np.ndarray:
    """An aligned face uint8 (H, W, 3) as the student sees it, uint8 (size, size, 3): see `lrfr.data.degrade.hr_view`.

    Raises UserError if it is of another kind, or has a side of more than 4096 pixels: it is computed in float64.
    """
    face = np.array(face)  # a copy that may be written to: torch warns of others, and Pillow's are such
    if face.dtype != np.uint8 or face.shape[2:] != (3,) or not 0 < min(face.shape) <= max(face.shape) <= LARGEST_SIDE:
        wanted = f"uint8 (H, W, 3) with sides of 1 to {LARGEST_SIDE} pixels is needed"
        raise UserError(f"face: {wanted}, not {face.dtype} {face.shape}; convert it first.")
    return hr_view(face[None], size)[0]
