"""From the images of a benchmark set to unit vectors: where faces come from, what a model sees of them, what failed.

Whatever goes wrong with an image, undecodable or without a face, leaves a row of NaN: a failed acquisition, a miss.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import nn

from lrfr.benchmarks.outcomes import Images
from lrfr.data.degrade import mirror
from lrfr.deploy.find_faces import align, detector, look, view
from lrfr.errors import UserError
from lrfr.gate.dlib_weights import embedded_path
from lrfr.models import inception
from lrfr.models.heads import unit
from lrfr.models.teachers import TEACHERS, build_teacher
from lrfr.progress import bar
from lrfr.train.fold import teacher_input

BATCH = 64  # faces a forward pass
TEACHER = "teacher"  # instead of a model's path: dlib's network, or that of a study's teacher, fed with upsampled faces
RESAMPLER = "area down, bicubic up (lrfr.data.degrade)"
FACES = {  # what a model sees of an image; detectors fail on native low-resolution crops
    "whole": "whole image as it is",
    "landmarks": "landmarks of the set, similarity to dlib's chip",
    "detect": "landmarks of MTCNN (facenet-pytorch), largest face, similarity to dlib's chip",
}
FLIP = {False: "no", True: "unit vectors of face and mirror image added"}


class Tested(NamedTuple):
    """A model: faces uint8 (H, W, 3), `side` pixels or any other number -> unit vectors float32 (N, dimensions)."""

    name: str
    sha256: str
    side: int
    dimensions: int
    embed: Callable[[Sequence[np.ndarray]], np.ndarray]


class Embedded(NamedTuple):
    """vectors: model -> float32 (N, D), NaN rows where the acquisition failed. problems: a sentence each."""

    vectors: dict[str, np.ndarray]
    problems: list[str]


def direct_feed_teacher(name: str = "dlib_resnet", weights: str = "embedded", net: nn.Module | None = None) -> Tested:
    """A teacher fed with upsampled faces: the hard baseline that every student is held against.

    name, weights: as `build_teacher` takes them. net: the same network, fine-tuned by a study, or None.
    """
    spec, net = TEACHERS[name], build_teacher(name, weights) if net is None else net
    published = inception.fetch(weights) if weights in inception.PUBLISHED else Path(weights)
    path = embedded_path() if weights == "embedded" else published

    def embed(faces: Sequence[np.ndarray]) -> np.ndarray:
        views = torch.from_numpy(np.stack([view(face, spec.chip) for face in faces]))
        with torch.inference_mode():
            return unit(net(teacher_input(views)).embedding).numpy()

    return Tested(TEACHER, hashlib.sha256(path.read_bytes()).hexdigest(), spec.chip, spec.embedding, embed)


def embed_images(images: Images, models: Sequence[Tested], policy: str, flip: bool, description: str) -> Embedded:
    """Every image by every model; each is decoded once, and only the models' views of one batch are held.

    policy: a key of `FACES`. flip: add the unit vector of the mirror image (insightface adds raw vectors; exported
    students give unit vectors only).
    """
    vectors = {model.name: np.full((images.size, model.dimensions), np.nan, np.float32) for model in models}
    sides, problems, mtcnn = {model.side for model in models}, [], detector() if policy == "detect" else None
    for start in bar(range(0, images.size, BATCH), description):
        seen: dict[int, dict[int, np.ndarray]] = {}  # image -> side -> view
        for i in range(start, min(start + BATCH, images.size)):
            try:
                pixels = images.read(i)
                if policy == "whole":
                    seen[i] = {side: view(pixels, side) for side in sides}
                    continue
                picture = Image.fromarray(pixels)
                found = [points for *_, points in look(mtcnn, picture)] if mtcnn else [images.points(i)]
                if not found:
                    raise UserError(f"{images.name(i)}: no face found.")
                points = max(found, key=lambda points: np.ptp(points, axis=0).prod())  # the largest face
                seen[i] = {side: align(picture, points, side)[0] for side in sides}
            except UserError as error:
                problems.append(str(error))
        for model in models if seen else ():
            faces = [views[model.side] for views in seen.values()]
            found = model.embed(faces) + (model.embed([*map(mirror, faces)]) if flip else 0)
            vectors[model.name][list(seen)] = found
    return Embedded(vectors, problems)
