"""The one small student that every method trains.

A four-stage residual network for 32-pixel faces: a stem that halves the side, one basic block a stage (He et al., CVPR
2016), and a global depthwise convolution before the embedding, which weighs the places of a face differently where
average pooling would blur them together (MobileFaceNets, Chen et al., CCBR 2018). Widths are a parameter of the study;
block counts are our choice, made by images per second on one CPU core.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lrfr.config import Student
from lrfr.data.degrade import hr_view, middle
from lrfr.gate.state import insert_state, read_state
from lrfr.models.features import Features
from lrfr.models.se import IdentityGate, SEBlock

RELEASED = Path(__file__).parents[1] / "weights"
Gate = Callable[[int, int], nn.Module]  # (channels, reduction) -> maps (B, C, H, W) to the same shape

STRIDES = (1, 2, 2, 1)  # after the stem: maps of 16, 8, 4 and 4 pixels for a 32-pixel input


def normalise(views: Tensor) -> Tensor:
    """uint8 (B, H, W, 3) in 0 ... 255 -> float32 (B, 3, H, W) in -1 ... 1, channels last in memory."""
    return views.permute(0, 3, 1, 2).to(torch.float32).sub(127.5).div(127.5)


class Block(nn.Module):
    """conv3x3, BN, ReLU, conv3x3, BN, (SE,) + skip, ReLU; `reduction` 0 means no SE."""

    def __init__(self, inputs: int, outputs: int, stride: int, reduction: int, gate: Gate) -> None:
        super().__init__()
        branch: list[nn.Module] = [nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs)]
        branch += [nn.ReLU(inplace=True), nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs)]
        if reduction:
            branch.append(gate(outputs, reduction))
        self.branch = nn.Sequential(*branch)
        self.skip: nn.Module = nn.Identity()
        if stride > 1 or inputs != outputs:
            # average before the 1x1 convolution: a strided 1x1 would drop three of four pixels
            widen = nn.Conv2d(inputs, outputs, 1, bias=False)
            self.skip = nn.Sequential(nn.AvgPool2d(stride), widen, nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.branch(x) + self.skip(x))


class StudentNet(nn.Module):
    """Float (B, 3, S, S) in -1 ... 1 -> `Features` with maps of sides S/2, S/4, S/8, S/8 and an embedding (B, D)."""

    def __init__(self, channels: tuple[int, ...], embedding: int, size: int, reduction: int, gate: Gate) -> None:
        super().__init__()
        first, last, inputs = channels[0], channels[-1], (channels[0], *channels[:-1])
        halve = nn.Conv2d(3, first, 3, 2, 1, bias=False)
        self.stem = nn.Sequential(halve, nn.BatchNorm2d(first), nn.ReLU(inplace=True))
        sizes = zip(inputs, channels, STRIDES, strict=True)
        self.stages = nn.ModuleList(Block(i, o, s, reduction, gate) for i, o, s in sizes)
        weigh = nn.Conv2d(last, last, size // 8, groups=last, bias=False)
        self.pool = nn.Sequential(weigh, nn.BatchNorm2d(last), nn.Flatten())
        self.embed = nn.Linear(last, embedding)

    def forward(self, x: Tensor) -> Features:
        maps = [self.stem(x)]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        return Features(tuple(maps[1:]), self.embed(self.pool(maps[-1])))


class Pretrained(nn.Module):
    """A published network as a student: float (B, 3, 112, 112) in -1 ... 1 -> its `Features`."""

    def __init__(self, net: Any) -> None:  # `lrfr.models.edgeface.EdgeFace`, which other students do not depend on
        super().__init__()
        self.net, self.stages = net, net.net.stages

    def forward(self, x: Tensor) -> Features:
        return self.net(127.5 * x + 127.5)


class Kind(NamedTuple):
    """What a kind of student is to the rest: side of its input in pixels, (channels, side) of its maps, shallow to
    deep, dimensions of its embedding; see: (small images uint8 (B, h, w, 3), side of the chip in their middle) -> uint8
    (B, input, input, 3).
    """

    input: int
    maps: tuple[tuple[int, int], ...]
    embedding: int
    see: Callable[[Tensor, int], Tensor]


def kind_of(spec: Student, kind: str, size: int) -> Kind:
    """plain or se: our own network, for inputs of `size` pixels; adapted: a published one, which brings its own."""
    if kind == "adapted":
        from lrfr.models.teachers import TEACHERS  # here: a student in use needs no teacher

        assert spec.pretrained is not None  # `config.Study` asks for it
        own = TEACHERS[spec.pretrained.name]
        return Kind(own.chip, tuple(zip(own.channels, own.sides, strict=True)), own.embedding, own.see)
    channels = spec.se_channels if kind == "se" else spec.channels
    see = partial(student_view, size=size)
    return Kind(size, tuple(zip(channels, map_sides(size), strict=True)), spec.embedding, see)


def student_view(images: Tensor, side: int, size: int) -> Tensor:
    """What a student sees of small images whose middle side x side pixels are the chip, uint8 (B, h, w, 3): it enlarged
    (or, where it is sharp, reduced) to uint8 (B, size, size, 3).
    """
    return hr_view(middle(images, side), size)


def build_student(spec: Student, kind: str, size: int, seed: int) -> StudentNet | Pretrained:
    """A student before its training, the same for every method of a seed.

    kind: "plain"; "se", with squeeze-excitation gates and the narrower widths that keep the number of parameters; or
    "adapted", a published network with its weights. size: side of our own networks' input in pixels, a multiple of 8.
    Gates of a network that has released weights to start from begin as the identity, since its branches had none.
    """
    if kind == "adapted":
        from lrfr.models.teachers import build_teacher

        assert spec.pretrained is not None
        published = build_teacher(spec.pretrained.name, spec.pretrained.weights)
        return Pretrained(published.requires_grad_(True).train())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        channels, reduction = (spec.se_channels, spec.se_reduction) if kind == "se" else (spec.channels, 0)
        gate = SEBlock if spec.start is None else IdentityGate
        net = StudentNet(channels, spec.embedding, size, reduction, gate).to(memory_format=torch.channels_last)
    if spec.start is not None:
        file = RELEASED / f"{spec.start}.safetensors"
        state = {name: t.float() if t.dtype == torch.float16 else t for name, t in read_state(file).items()}
        insert_state(net, net.state_dict() | state, file)
    return net


def map_sides(size: int) -> tuple[int, ...]:
    """Sides of our own student's maps, shallow to deep, for an input of `size` pixels: 16, 8, 4 and 4 for 32."""
    return (size // 2, size // 4, size // 8, size // 8)
