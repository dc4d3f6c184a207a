"""From the images of a benchmark set to unit vectors: which models are tested, where their faces come from, what failed.

Three policies say what a model sees of an image. `whole`: everything, as detectors fail on native low-resolution crops.
`landmarks`: the set's own points, aligned as in training. `detect`: MTCNN's points of the largest face. Whatever goes wrong with
an image, undecodable or without a face, leaves a row of NaN: a failed acquisition, which the protocols count as a miss.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import nn

from lrfr.data.degrade import mirror
from lrfr.deploy.cards import find_model
from lrfr.deploy.find_faces import align, detector, look, view
from lrfr.deploy.recognizer import BATCH, Recognizer
from lrfr.errors import UserError
from lrfr.gate.dlib_weights import embedded_path
from lrfr.models import inception
from lrfr.models.heads import unit
from lrfr.models.teachers import TEACHERS, build_teacher
from lrfr.progress import bar
from lrfr.train.fold import teacher_input

TEACHER = (
    "teacher"  # in place of a model's path: dlib's network, or that of a study's teacher, fed with upsampled faces
)
RESAMPLER = "area down, bicubic up (lrfr.data.degrade)"
FACES = {
    "whole": "whole image as it is",
    "landmarks": "landmarks of the set, similarity to dlib's chip",
    "detect": "landmarks of MTCNN (facenet-pytorch), largest face, similarity to dlib's chip",
}
FLIP = {False: "no", True: "unit vectors of face and mirror image added"}


class Images(NamedTuple):
    """Images of one role of a set. name(i): for messages. read(i): uint8 (H, W, 3) RGB, or UserError.

    points(i): float (5, 2), landmarks in pixels as `align.TEMPLATE` has them; None where the set has no landmarks.
    """

    size: int
    name: Callable[[int], str]
    read: Callable[[int], np.ndarray]
    points: Callable[[int], np.ndarray] | None = None


class Tested(NamedTuple):
    """A model: faces uint8 (H, W, 3), `side` pixels or any other number -> unit vectors float32 (N, dimensions)."""

    name: str
    sha256: str
    side: int
    dimensions: int
    embed: Callable[[Sequence[np.ndarray]], np.ndarray]


class Embedded(NamedTuple):
    """vectors: model -> float32 (N, D), NaN rows where the acquisition failed. problems: one sentence for each of these."""

    vectors: dict[str, np.ndarray]
    problems: list[str]


def weights_file(weights: str) -> Path:
    """The file of a teacher's weights, by a name that `build_teacher` knows or by their path."""
    if weights == "embedded":
        return embedded_path()
    return inception.fetch(weights) if weights in inception.PUBLISHED else Path(weights)


def direct_feed_teacher(name: str = "dlib_resnet", weights: str = "embedded", net: nn.Module | None = None) -> Tested:
    """A teacher fed with upsampled faces: the hard baseline that every student is held against.

    name, weights: as `build_teacher` takes them. net: the same network, fine-tuned by a study; None for the published weights.
    """
    spec, path = TEACHERS[name], weights_file(weights)
    net = build_teacher(name, weights) if net is None else net

    def embed(faces: Sequence[np.ndarray]) -> np.ndarray:
        with torch.inference_mode():
            return unit(
                net(teacher_input(torch.from_numpy(np.stack([view(face, spec.chip) for face in faces])))).embedding
            ).numpy()

    return Tested(TEACHER, hashlib.sha256(path.read_bytes()).hexdigest(), spec.chip, spec.embedding, embed)


def student(path: str | None) -> Tested:
    """A released or exported student; UserError like `find_model`."""
    model = find_model(path)
    recognizer = Recognizer(model)
    digest = hashlib.sha256(model.data).hexdigest()
    return Tested(model.path.name, digest, recognizer.size, model.card["network"]["embedding"], recognizer.embed)


def load_models(given: Sequence[str] | None) -> list[Tested]:
    """The models by path or by the word `teacher`, the released student without any; UserError if one name comes twice."""
    models = [direct_feed_teacher() if path == TEACHER else student(path) for path in given or [None]]
    names = [model.name for model in models]
    for name in names:
        if names.count(name) > 1:
            raise UserError(
                f"--model: two models are called {name}, which the table could not tell apart; rename one with its card."
            )
    return models


def detected_points(mtcnn: Any, image: Image.Image) -> np.ndarray | None:
    """MTCNN's points (5, 2) of the largest certain face, looked for as in photographs (`faces.look`); None if there is none."""
    return max(
        (points for *_, points in look(mtcnn, image)), key=lambda points: np.ptp(points, axis=0).prod(), default=None
    )


def locator(policy: str, images: Images) -> Callable[[int, np.ndarray], np.ndarray | None]:
    """(i, pixels) -> points (5, 2) by which image i is aligned, None for the whole image; UserError if no face is found."""
    if policy == "whole":
        return lambda i, pixels: None
    if policy == "landmarks":
        return lambda i, pixels: images.points(i)
    mtcnn = detector()

    def locate(i: int, pixels: np.ndarray) -> np.ndarray:
        points = detected_points(mtcnn, Image.fromarray(pixels))
        if points is None:
            raise UserError(f"{images.name(i)}: no face found.")
        return points

    return locate


def embed_images(images: Images, models: Sequence[Tested], policy: str, flip: bool, description: str) -> Embedded:
    """Every image by every model; each is decoded once, and only the models' views of one batch are held.

    policy: a key of `FACES`. flip: add the unit vector of the mirror image. insightface adds vectors before they have unit
    length; exported students give unit vectors only, so that rule could not be one for all models.
    """
    vectors = {model.name: np.full((images.size, model.dimensions), np.nan, np.float32) for model in models}
    sides, locate, problems = {model.side for model in models}, locator(policy, images), []
    for start in bar(range(0, images.size, BATCH), description):
        rows: list[int] = []
        views: dict[int, list[np.ndarray]] = {side: [] for side in sides}
        for i in range(start, min(start + BATCH, images.size)):
            try:
                pixels = images.read(i)
                points = locate(i, pixels)
                seen = {
                    s: view(pixels, s) if points is None else align(Image.fromarray(pixels), points, s)[0]
                    for s in sides
                }
            except UserError as error:
                problems.append(str(error))
                continue
            rows.append(i)
            for side, face in seen.items():
                views[side].append(face)
        for model in models if rows else ():
            faces = views[model.side]
            vectors[model.name][rows] = model.embed(faces) + (model.embed([*map(mirror, faces)]) if flip else 0)
    return Embedded(vectors, problems)
