"""The teachers, and what each of them states about itself.

A teacher is a module with `forward(x) -> Features`, `prefix(x) -> maps` (the shallow stages that stay frozen) and
`suffix(map) -> (last map, embedding)`. It takes float32 (B, 3, S, S) RGB in 0 ... 255, channels last in memory for speed, and
normalises inside. A new teacher is one file and one line in `TEACHERS`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from lrfr.errors import UserError
from lrfr.models import dlib_resnet, inception
from lrfr.models.dlib_weights import embedded_path, read_dlib

SEED = 0  # of what is not loaded: gates, and networks of random weights; their first state is part of no comparison


class TeacherSpec(NamedTuple):
    """What a teacher states.

    chip: side of its aligned faces in pixels. mean, scale: it computes on (x - mean) / scale, RGB.
    score: the space in which its L2 distances decide, "raw" embeddings or "unit" vectors. channels, sides: of its stage maps for
    one chip, shallow to deep. embedding: dimensions. weights: names that `build` knows; everything else is a path.
    build: (weights, SE reduction or None) -> module.
    """

    chip: int
    mean: tuple[float, float, float]
    scale: float
    score: Literal["raw", "unit"]
    channels: tuple[int, ...]
    sides: tuple[int, ...]
    embedding: int
    weights: tuple[str, ...]
    build: Callable[[str, int | None], nn.Module]


def read_state(path: str | Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file, or of a `.pt`/`.pth` state dict (read without running code from it).

    Raises
    ------
    UserError
        if the file is missing, is neither, or holds a value that is not finite.
    """
    path = Path(path)
    try:
        if path.suffix in (".pt", ".pth"):
            state = torch.load(path, map_location="cpu", weights_only=True)
        else:
            state = load_file(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}); give the path of a checkpoint.") from None
    except SafetensorError as error:
        raise UserError(f"{path}: not a safetensors file, or damaged ({error}); train again or fetch it again.") from None
    except Exception:  # torch.load raises almost anything on hostile bytes
        raise UserError(f"{path}: not a state dict that torch can read safely; fetch the file again.") from None
    if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise UserError(f"{path}: not a plain dictionary of tensors; save `module.state_dict()`.")
    for name, tensor in state.items():
        if not torch.isfinite(tensor).all():
            raise UserError(f"{path}: tensor '{name}' holds values that are not finite; the file is damaged or its training diverged.")
    return state


def insert_state(module: nn.Module, state: dict[str, Tensor], what: str | Path) -> None:
    """Load a complete state, by name; `what` names its file in messages.

    Raises
    ------
    UserError
        naming the first tensor by which the state belongs to another architecture; the module is then unchanged.
    """
    own = module.state_dict()
    for name in [*own, *state]:
        expected, found = (tuple(tensors[name].shape) if name in tensors else "absent" for tensors in (own, state))
        if expected != found:
            raise UserError(f"{what}: a checkpoint of another architecture: '{name}' should be {expected} and is {found}; check its network.")
    module.load_state_dict(state)


def load_state(module: nn.Module, path: str | Path) -> None:
    """`read_state`, then `insert_state`; raises UserError as they do."""
    insert_state(module, read_state(path), path)


def _build_dlib(weights: str, se_reduction: int | None) -> nn.Module:
    net = dlib_resnet.DlibResNet(se_reduction)
    path = embedded_path() if weights == "embedded" else weights
    dlib_resnet.load_dlib(net, read_dlib(path), path)
    return net


def _build_inception(weights: str, se_reduction: int | None) -> nn.Module:
    if se_reduction is not None:
        raise UserError("inception_resnet_v1: has no squeeze-excitation variant; take the teacher dlib_resnet for se_dfd.")
    teacher = inception.InceptionTeacher()
    if weights != "random":
        path = inception.fetch(weights) if weights in inception.PUBLISHED else Path(weights)
        state = {name: tensor for name, tensor in read_state(path).items() if not name.startswith("logits.")}  # published with a classifier
        insert_state(teacher.net, state, path)
    return teacher


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
        build=_build_inception,
    ),
}


def build_teacher(name: str, weights: str, se_reduction: int | None = None) -> nn.Module:
    """A teacher in eval mode whose parameters ask for no gradient; the same bits every time.

    Parameters
    ----------
    name : a key of `TEACHERS`.
    weights : one of the names in its spec, or a path.
    se_reduction : add squeeze-excitation gates that start as the identity (`lrfr.models.se.IdentityGate`) with this reduction.

    Raises
    ------
    UserError
        if there is no such teacher, or its weights cannot be had.
    """
    if name not in TEACHERS:
        raise UserError(f"teacher.name: there is no teacher '{name}'; known are {', '.join(TEACHERS)}.")
    spec = TEACHERS[name]
    if weights not in spec.weights and not Path(weights).exists():
        raise UserError(f"teacher.weights: '{weights}' is no file; give a path or one of {', '.join(spec.weights)}.")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        teacher = spec.build(weights, se_reduction)
    return teacher.to(memory_format=torch.channels_last).requires_grad_(False).eval()
