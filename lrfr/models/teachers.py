"""The teachers, and what each of them states about itself.

A teacher is a module with `forward(x) -> Features`, in three steps: `prefix(x) -> maps` (the shallow stages that stay
frozen), `pooled(map) -> (last map, pooled)` and `head(pooled) -> embedding`. It takes float32 (B, 3, S, S) RGB in 0 ...
255, channels last in memory for speed, and normalises inside. A new one is a file, its class in `TeacherNet`, and an
entry in `TEACHERS`.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from lrfr.data.align import CHIP
from lrfr.data.degrade import bicubic, middle, window
from lrfr.errors import UserError
from lrfr.gate.dlib_weights import embedded_path, read_dlib
from lrfr.gate.state import insert_state, read_state
from lrfr.models import dlib_resnet, edgeface, inception
from lrfr.models.heads import unit

SEED = 0  # of what is not loaded: gates, and networks of random weights; their first state is part of no comparison


TeacherNet = dlib_resnet.DlibResNet | inception.InceptionTeacher | edgeface.EdgeFace


class TeacherSpec(NamedTuple):
    """What a teacher states.

    chip: side of its aligned faces in pixels. mean, scale: it computes on (x - mean) / scale, RGB.
    score: the space in which its L2 distances decide, "raw" embeddings or "unit" vectors. channels, sides: of its stage
    maps for one chip, shallow to deep. embedding: dimensions. weights: names that `build` knows; everything else is a
    path. build: (weights, SE reduction or None) -> module.
    """

    chip: int
    mean: tuple[float, float, float]
    scale: float
    score: Literal["raw", "unit"]
    channels: tuple[int, ...]
    sides: tuple[int, ...]
    embedding: int
    weights: tuple[str, ...]
    see: Callable[[Tensor, int], Tensor]
    build: Callable[[str, int | None], TeacherNet]

    def comparable(self, embedding: Tensor) -> Tensor:
        """Embeddings (B, D) in the space in which plain L2 distance decides."""
        return unit(embedding) if self.score == "unit" else embedding


def see_chip(images: Tensor, side: int) -> Tensor:
    """The chip alone, enlarged to 150 pixels by bicubic interpolation; a sharp one as it is."""
    chip = middle(images, side)
    return chip if side == CHIP else bicubic(chip, CHIP)


def see_arcface(images: Tensor, side: int) -> Tensor:
    """ArcFace's crop, at 112 pixels by bicubic interpolation: wider than the chip, so it looks into the margin."""
    margin, unit = (images.shape[1] - side) // 2, side / CHIP  # unit: small pixels in a pixel of the chip
    left, top, width = (unit * edge for edge in edgeface.WINDOW)
    return window(images, margin + left, margin + top, width, edgeface.CHIP)


def _build_dlib(weights: str, se_reduction: int | None) -> TeacherNet:
    net = dlib_resnet.DlibResNet(se_reduction)
    path = embedded_path() if weights == "embedded" else weights
    dlib_resnet.load_dlib(net, read_dlib(path), path)
    return net


def _build_inception(weights: str, se_reduction: int | None) -> TeacherNet:
    if se_reduction is not None:
        raise UserError("inception_resnet_v1: has no squeeze-excitation variant; take dlib_resnet for se_dfd.")
    teacher = inception.InceptionTeacher()
    if weights != "random":
        path = inception.fetch(weights) if weights in inception.PUBLISHED else Path(weights)
        state = read_state(path)  # published with a classifier of its training people
        insert_state(teacher.net, {name: t for name, t in state.items() if not name.startswith("logits.")}, path)
    return teacher


def _build_edgeface(name: str, weights: str, se_reduction: int | None) -> TeacherNet:
    if se_reduction is not None:
        raise UserError(f"{name}: has no squeeze-excitation variant; take dlib_resnet for se_dfd.")
    return edgeface.build(name, weights)


def _edgeface(name: str) -> TeacherSpec:
    return TeacherSpec(
        chip=edgeface.CHIP,
        mean=(127.5, 127.5, 127.5),
        scale=127.5,
        score="unit",
        channels=edgeface.NETWORKS[name][2],
        sides=edgeface.SIDES,
        embedding=edgeface.EMBEDDING,
        weights=("random",),
        see=see_arcface,
        build=partial(_build_edgeface, name),
    )


TEACHERS: dict[str, TeacherSpec] = {
    "dlib_resnet": TeacherSpec(
        chip=dlib_resnet.CHIP,
        mean=(122.782, 117.001, 104.298),
        scale=256.0,
        score="raw",
        channels=dlib_resnet.CHANNELS,
        sides=dlib_resnet.SIDES,
        embedding=dlib_resnet.EMBEDDING,
        weights=("embedded",),
        see=see_chip,
        build=_build_dlib,
    ),
    "inception_resnet_v1": TeacherSpec(
        chip=inception.CHIP,
        mean=(127.5, 127.5, 127.5),
        scale=128.0,
        score="unit",
        channels=inception.CHANNELS,
        sides=inception.SIDES,
        embedding=inception.EMBEDDING,
        weights=("random", *inception.PUBLISHED),
        see=see_chip,
        build=_build_inception,
    ),
    "edgeface_xs": _edgeface("edgeface_xs"),
    "edgeface_xxs": _edgeface("edgeface_xxs"),
}


def build_teacher(name: str, weights: str, se_reduction: int | None = None) -> TeacherNet:
    """A teacher in eval mode whose parameters ask for no gradient; the same bits every time.

    name: a key of `TEACHERS`. weights: one of the names in its spec, or a path. se_reduction: of gates that start as
    the identity (`lrfr.models.se.IdentityGate`); None means no gates. Raises UserError if there is no such teacher, or
    its weights cannot be had.
    """
    if name not in TEACHERS:
        raise UserError(f"params.yaml: there is no teacher '{name}'; known are {', '.join(TEACHERS)}.")
    spec = TEACHERS[name]
    if weights not in spec.weights and not Path(weights).exists():
        raise UserError(
            f"{name}: '{weights}' is no file; give a path of its weights or one of {', '.join(spec.weights)}."
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        teacher = spec.build(weights, se_reduction)
    return teacher.to(memory_format=torch.channels_last).requires_grad_(False).eval()
