"""The one loop that trains every student: face loss + the method's terms, the same data, draws, recipe and budget for all."""

from __future__ import annotations

import math

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from lrfr.config import Study
from lrfr.data.draws import Draw, epoch_batches, epoch_draws, view_index
from lrfr.evaluate.scores import pair_error
from lrfr.methods import METHODS
from lrfr.models.features import Features, Shapes, Targets
from lrfr.models.heads import FaceHead, unit
from lrfr.models.student import build_student, map_shapes, normalise
from lrfr.models.teachers import TEACHERS
from lrfr.parameters import Model
from lrfr.train.augment import move
from lrfr.train.fold import Fold
from lrfr.train.source import Source

MARGIN_RAMP = (
    0.3  # fraction of training over which the margin grows from 0: a full margin stalls the first steps (our choice)
)
MEASURED = 20  # batches of an epoch whose gradients are measured: enough for a mean, and an epoch may have hundreds
BATCH = 100  # validation faces a forward pass


class Trainer:
    """Student, face head, method and optimiser of one training."""

    def __init__(self, study: Study, model: Model, fold: Fold, seed: int) -> None:
        self.study, self.model, self.fold, self.seed = study, model, fold, seed
        self.fabric = Fabric(accelerator=study.accelerator, devices=1)
        size, teacher = study.views.size, TEACHERS[study.teacher.name]
        student_maps = map_shapes(study.student, model.student, size)
        shapes = Shapes(
            student_maps,
            tuple((channels, side) for channels, (_, side) in zip(teacher.channels, student_maps, strict=True)),
            study.student.embedding,
            teacher.embedding,
            int(fold.labels.max()) + 1,
            len(fold.people),
        )
        student = build_student(study.student, model.student, size, seed)
        self.source = Source(study, model, fold)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            start = self.source.class_weight if study.train.head == "teacher" else None
            head = FaceHead(shapes.classes, study.student.embedding, study.train.scale, start)
            self.method = METHODS[model.method](shapes, **model.options).to(self.fabric.device)
        self.head = head.to(self.fabric.device)
        parameters = [p for module in (student, self.head, self.method) for p in module.parameters()]
        groups = [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": study.train.weight_decay},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},  # norms and biases, as usual
        ]
        optimizer = torch.optim.AdamW(groups, lr=study.train.learning_rate)
        self.student, self.optimizer = self.fabric.setup(student, optimizer)
        self.persons = fold.persons
        self.class_of = torch.full((len(fold.people),), -1)
        self.class_of[fold.images] = torch.from_numpy(fold.labels)

    def batches(self, epoch: int) -> list[tuple[np.ndarray, Draw]]:
        """The epoch's batches: image numbers and what is drawn for each."""
        train, views = self.study.train, self.study.views
        hr = 1.0 if self.model.views == "hr" else views.hr_probability
        draws = epoch_draws(self.seed, epoch, len(self.fold.people), views.smallest, views.largest, hr, train.jitter)
        order = epoch_batches(self.seed, epoch, self.fold.images, self.persons, train.batch, train.people_per_batch)
        return [(ids, Draw(*(field[ids, half] for field in draws))) for ids, half in order]

    def inputs(self, ids: np.ndarray, draw: Draw) -> Tensor:
        """The student's views of a batch, float (B, 3, S, S)."""
        view = view_index(draw.resolution, self.study.views.smallest, self.study.views.largest)
        pixels = torch.from_numpy(self.fold.views[ids, view])
        mirrored = torch.from_numpy(draw.mirrored)
        pixels[mirrored] = pixels[mirrored].flip(2)
        gain, bias = (torch.from_numpy(x)[:, None, None, None] for x in (draw.gain, draw.bias))
        train, views = self.study.train, normalise(pixels)
        if train.rotate or train.zoom or train.shift:
            views = move(views, torch.from_numpy(draw.moves), train.rotate, train.zoom, train.shift)
        return (views * gain + bias).contiguous(memory_format=torch.channels_last)

    def losses(self, ids: np.ndarray, draw: Draw, progress: float) -> dict[str, Tensor]:
        """The face loss and the method's weighted terms for one batch."""
        device = self.fabric.device
        labels = self.class_of[ids].to(device)
        targets = Targets(*(to_device(field, device) for field in self.source(ids, draw)))
        features = Features(*self.student(self.inputs(ids, draw).to(device)))
        logits = self.head(features.embedding)
        margin = self.study.train.margin * min(1.0, progress / MARGIN_RAMP)
        face = self.head.loss(features.embedding, labels, margin)
        return {"face": face, **self.method(features, logits, targets, labels, progress)}

    def learning_rate(self, progress: float) -> float:
        """Linear warm-up, then half a cosine to 0."""
        warmup = self.study.train.warmup
        factor = (
            progress / warmup
            if progress < warmup
            else 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))
        )
        return self.study.train.learning_rate * factor

    def epoch(
        self, epoch: int, measure: bool = False, most: int | None = None
    ) -> tuple[dict[str, float], dict[str, tuple[str, float]]]:
        """Train one epoch, or its first `most` batches; return every term's mean and, if asked, every term's gradient ratio."""
        self.student.train()
        batches = self.batches(epoch)
        sums: dict[str, list[float]] = {}
        ratios: dict[str, list[tuple[str, float]]] = {}
        for step, (ids, draw) in enumerate(batches[:most]):
            progress = (epoch + (step + 1) / len(batches)) / self.study.train.epochs
            for group in self.optimizer.param_groups:
                group["lr"] = self.learning_rate(progress)
            terms = self.losses(ids, draw, progress)
            if measure and step < MEASURED:
                for term, found in gradient_ratios(terms, self.student.stages).items():
                    ratios.setdefault(term, []).append(found)
            self.optimizer.zero_grad(set_to_none=True)
            self.fabric.backward(torch.stack(list(terms.values())).sum())
            self.optimizer.step()
            for term, value in terms.items():
                sums.setdefault(term, []).append(value.item())
            if hasattr(self.method, "pairs"):  # of ICD-Face's banks: too few, and its histograms mean nothing
                sums.setdefault("pairs", []).append(self.method.pairs)
        means = {term: float(np.mean(values)) for term, values in sums.items()}
        return means, {term: (found[0][0], float(np.mean([r for _, r in found]))) for term, found in ratios.items()}

    def validation_error(self, resolution: int) -> float:
        """EER of the validation people's pairs, both faces at `resolution` pixels."""
        faces = self.fold.validation
        view = int(view_index(np.array(resolution), self.study.views.smallest, self.study.views.largest))
        self.student.eval()
        with torch.no_grad():
            pixels = normalise(torch.from_numpy(self.fold.views[faces, view])).to(self.fabric.device)
            parts = [unit(Features(*self.student(part)).embedding) for part in pixels.split(BATCH)]
        return pair_error(torch.cat(parts).cpu().numpy(), self.fold.people[faces])


def to_device(field: Tensor | tuple[Tensor, ...] | None, device: torch.device) -> Tensor | tuple[Tensor, ...] | None:
    if field is None:
        return None
    return tuple(t.to(device) for t in field) if isinstance(field, tuple) else field.to(device)


def gradient_ratios(terms: dict[str, Tensor], stages: nn.ModuleList) -> dict[str, tuple[str, float]]:
    """‖∇ term‖ / ‖∇ face‖ on the deepest stage that both reach: is a term dead, or does it drown the rest?

    Returns term -> (name of the stage, ratio); a term that reaches no stage (yet) has ratio 0 on the last one.
    """

    def norm(loss: Tensor, stage: nn.Module) -> float:
        if not loss.requires_grad:
            return 0.0
        gradients = torch.autograd.grad(loss, list(stage.parameters()), retain_graph=True, allow_unused=True)
        return math.sqrt(sum(float(g.square().sum()) for g in gradients if g is not None))

    found = {}
    for term, loss in terms.items():
        if term == "face":
            continue
        found[term] = (f"stage{len(stages)}", 0.0)
        for depth in range(len(stages), 0, -1):
            size = norm(loss, stages[depth - 1])
            if size > 0:
                found[term] = (f"stage{depth}", size / norm(terms["face"], stages[depth - 1]))
                break
    return found
