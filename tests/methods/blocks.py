"""Every block and ablation arm of conf/config.yaml, one of `joint`, and random batches to try them on."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_type_hints

import torch
import torch.nn.functional as F
import yaml
from torch import Tensor, nn

from lrfr.methods import METHODS
from lrfr.methods.common import Weight, attention_map
from lrfr.models.features import Features, Shapes, Targets
from lrfr.models.heads import cosine_logits

CONF = Path(__file__).resolve().parents[2] / "conf" / "config.yaml"

JOINT = {"soft": 1, "nckd": 1, "temperature": 2, "feature": 10}  # only some studies have a block of it


def blocks() -> dict[str, tuple[str, dict[str, Any]]]:
    """'model' or 'model-arm' -> method and complete options, as written in conf/."""
    conf = yaml.safe_load(CONF.read_text(encoding="utf-8"))
    found = {name: (block["method"], block["options"]) for name, block in conf["models"].items()}
    for name, change in conf["arms"].items():
        method, options = found[change["like"]]
        found[name] = method, {**options, **change.get("options", {})}
    return found | {"joint": ("joint", JOINT)}


BLOCKS = blocks()
N, CLASSES, SIDES = 12, 5, (8, 4, 3, 2)
EQUAL = Shapes(
    tuple(zip((3, 4, 5, 6), SIDES, strict=True)), tuple(zip((3, 4, 5, 6), SIDES, strict=True)), 7, 7, CLASSES, 40
)
DIFFERENT = EQUAL._replace(teacher_maps=tuple(zip((4, 6, 8, 9), SIDES, strict=True)), teacher_embedding=10)
LABELS = torch.arange(N) % 4  # class 4 is missing
IDS = torch.arange(N) + 20


def build(block: str, shapes: Shapes) -> nn.Module:
    method, options = BLOCKS[block]
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return METHODS[method](shapes, **options)


def count_terms(block: str) -> int:
    """How many of the block's weights are not 0."""
    method, options = BLOCKS[block]
    hints = get_type_hints(METHODS[method].__init__, include_extras=True)
    return sum(hints[name] == Weight and value != 0 for name, value in options.items())


def random(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def batch(shapes: Shapes, scale: float = 16.0, seed: int = 0) -> tuple[Features, Tensor, Targets]:
    """A random student and a random teacher of the given shapes, float64, every field present."""
    maps = [random(seed + n, N, c, side, side) for n, (c, side) in enumerate(shapes.student_maps)]
    others = tuple(random(seed + 10 + n, N, c, side, side) for n, (c, side) in enumerate(shapes.teacher_maps))
    embedding, other = random(seed + 20, N, shapes.student_embedding), random(seed + 21, N, shapes.teacher_embedding)
    weights = random(seed + 22, CLASSES, shapes.student_embedding), random(seed + 23, CLASSES, shapes.teacher_embedding)
    logits, other_logits = cosine_logits(embedding, weights[0], scale), cosine_logits(other, weights[1], scale)
    targets = Targets(IDS, other, other_logits, others, tuple(attention_map(each) for each in others))
    return Features(tuple(maps), embedding), logits, targets


def teacher_as_student(targets: Targets) -> tuple[Features, Tensor]:
    return Features(targets.maps, targets.embedding), targets.logits


def select(rows: Tensor, student: Features, logits: Tensor, targets: Targets) -> tuple[Features, Tensor, Targets]:
    """The same batch with other rows."""
    picked = Features(tuple(each[rows] for each in student.maps), student.embedding[rows])
    maps, attention = tuple(each[rows] for each in targets.maps), tuple(each[rows] for each in targets.attention)
    return (
        picked,
        logits[rows],
        Targets(targets.ids[rows], targets.embedding[rows], targets.logits[rows], maps, attention),
    )


def fill(method: nn.Module, shapes: Shapes, same: bool = False) -> nn.Module:
    """Show the method another batch with other images of the same people, so that banks hold something."""
    student, logits, targets = batch(shapes, seed=100)
    if same:
        student, logits = teacher_as_student(targets)
    method.double()(student, logits, targets._replace(ids=IDS - 20), LABELS, 1.0)
    return method


def values(terms: dict[str, Tensor]) -> dict[str, float]:
    return {name: term.item() for name, term in terms.items()}


class TinyNet(nn.Module):
    """Two convolutions, and a linear layer that can tell 32 images apart."""

    def __init__(self, channels: tuple[int, int], embedding: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, channels[0], 5, padding=2)
        self.second = nn.Conv2d(channels[0], channels[1], 3, stride=2, padding=1)
        self.last = nn.Linear(64, embedding)

    def forward(self, images: Tensor) -> Features:
        first = F.leaky_relu(self.first(images))
        second = F.leaky_relu(self.second(first))
        return Features((first, second), self.last(images.flatten(1)))
