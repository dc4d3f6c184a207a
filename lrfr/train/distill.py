"""The one loop that trains every student: face loss + the method's terms, the same data, draws, recipe and budget for all.

One call of the `distill` stage trains all folds and seeds of one model. Torch's global generator is used for initialisation
only; what an image looks like is a function of (seed, epoch, image), so an interrupted training resumes bit for bit.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from lrfr.config import Model, Study
from lrfr.data.files import atomic_folder
from lrfr.data.loading import Draw, epoch_batches, epoch_draws, view_index
from lrfr.evaluate.verification import equal_error_rate
from lrfr.methods import METHODS
from lrfr.models.features import Features, Shapes, Targets
from lrfr.models.heads import FaceHead, unit
from lrfr.models.student import build_student, map_shapes, normalise
from lrfr.models.teachers import TEACHERS
from lrfr.parallel import parallel_map
from lrfr.train.checkpoint import load_state, resume_folder, save_state, save_tensors
from lrfr.train.faces import Fold, read_fold
from lrfr.train.source import Source

MARGIN_RAMP = 0.3  # fraction of training over which the margin grows from 0: a full margin stalls the first steps (our choice)
SAVE_EVERY = 10  # epochs between resumable states
VALIDATE_EVERY = 5  # epochs between measurements of the validation people's EER, at VALIDATED pixels: for the curves only
VALIDATED = 16
EARLY = 0.4  # progress at which gradients are measured a second time: every method's warm-up is over


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
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            head = FaceHead(shapes.classes, study.student.embedding, study.train.scale)
            self.method = METHODS[model.method](shapes, **model.options).to(self.fabric.device)
        self.head = head.to(self.fabric.device)
        parameters = [p for module in (student, self.head, self.method) for p in module.parameters()]
        groups = [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": study.train.weight_decay},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},  # norms and biases, as usual
        ]
        optimizer = torch.optim.AdamW(groups, lr=study.train.learning_rate)
        self.student, self.optimizer = self.fabric.setup(student, optimizer)
        self.source = Source(study, model, fold)
        self.class_of = dict(zip(fold.images.tolist(), fold.labels.tolist(), strict=True))

    def batches(self, epoch: int) -> list[tuple[np.ndarray, Draw]]:
        """The epoch's batches: image numbers and what is drawn for each."""
        train, views = self.study.train, self.study.views
        hr = 1.0 if self.model.views == "hr" else views.hr_probability
        draws = epoch_draws(self.seed, epoch, len(self.fold.people), views.smallest, views.largest, hr, train.jitter)
        order = epoch_batches(self.seed, epoch, self.fold.images, self.fold.labels, train.batch, train.people_per_batch)
        return [(ids, Draw(*(field[ids, half] for field in draws))) for ids, half in order]

    def inputs(self, ids: np.ndarray, draw: Draw) -> Tensor:
        """The student's views of a batch, float (B, 3, S, S)."""
        view = view_index(draw.resolution, self.study.views.smallest, self.study.views.largest)
        pixels = torch.from_numpy(self.fold.views[ids, draw.mirrored.astype(np.int64), view])
        gain, bias = (torch.from_numpy(x)[:, None, None, None] for x in (draw.gain, draw.bias))
        return (normalise(pixels) * gain + bias).contiguous(memory_format=torch.channels_last)

    def losses(self, ids: np.ndarray, draw: Draw, progress: float) -> dict[str, Tensor]:
        """The face loss and the method's weighted terms for one batch."""
        device = self.fabric.device
        labels = torch.tensor([self.class_of[image] for image in ids.tolist()], device=device)
        targets = Targets(*(move(field, device) for field in self.source(ids, draw)))
        features = Features(*self.student(self.inputs(ids, draw).to(device)))
        logits = self.head(features.embedding)
        margin = self.study.train.margin * min(1.0, progress / MARGIN_RAMP)
        face = self.head.loss(features.embedding, labels, margin)
        return {"face": face, **self.method(features, logits, targets, labels, progress)}

    def learning_rate(self, progress: float) -> float:
        """Linear warm-up, then half a cosine to 0."""
        warmup = self.study.train.warmup
        factor = progress / warmup if progress < warmup else 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))
        return self.study.train.learning_rate * factor

    def epoch(self, epoch: int, measure: bool = False) -> tuple[dict[str, float], dict[str, tuple[str, float]]]:
        """Train one epoch; return the mean of every term and, if asked, of every term's gradient ratio."""
        self.student.train()
        batches = self.batches(epoch)
        sums: dict[str, list[float]] = {}
        ratios: dict[str, list[tuple[str, float]]] = {}
        for step, (ids, draw) in enumerate(batches):
            progress = (epoch + (step + 1) / len(batches)) / self.study.train.epochs
            for group in self.optimizer.param_groups:
                group["lr"] = self.learning_rate(progress)
            terms = self.losses(ids, draw, progress)
            if measure:
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

    def validation_error(self) -> float:
        """EER of the validation people's pairs, both at `VALIDATED` pixels; chooses nothing."""
        faces = self.fold.validation
        view = int(view_index(np.array(VALIDATED), self.study.views.smallest, self.study.views.largest))
        self.student.eval()
        with torch.no_grad():
            pixels = normalise(torch.from_numpy(self.fold.views[faces, 0, view]))
            x = unit(Features(*self.student(pixels.to(self.fabric.device))).embedding).double().cpu().numpy()
        first, second = np.triu_indices(len(faces), 1)
        people = self.fold.people[faces]
        return equal_error_rate(-np.linalg.norm(x[first] - x[second], axis=1), people[first] == people[second])


def move(field: Tensor | tuple[Tensor, ...] | None, device: torch.device) -> Tensor | tuple[Tensor, ...] | None:
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


def resume_key(study: Study, model: Model, number: int, seed: int, code: str) -> dict[str, object]:
    """Everything that shapes one training: parameters, code, and what it reads of faces, teachers and targets."""
    settings = study.model_dump(mode="json", include={"views", "student", "train", "teacher", "seed", "threads", "accelerator"})
    shared = [study.runs / name for name in ("index.csv", "folds.csv", "chips.npy", "views.npy")]
    own = [path for kind in ("teacher", "targets") for path in (study.runs / kind / f"fold{number}").rglob("*") if path.is_file()]
    files = {path.as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in (*shared, *sorted(own))}
    return {"model": model.model_dump(), "fold": number, "draw": seed, "code": code, "files": files, **settings}


def train_one(study: Study, model: Model, number: int, seed: int, code: str, folder: Path) -> None:
    """Train one student of one fold and seed, from its last saved state if there is one, and write what it leaves."""
    trainer = Trainer(study, model, read_fold(study, number), seed)
    state = resume_folder(resume_key(study, model, number, seed, code))
    modules = {"student": trainer.student.module, "head": trainer.head, "method": trainer.method}
    start = {"epoch": 0, "log": [(number, seed, *row) for row in trainer.source.log], "gradients": []}
    progress = load_state(state, modules, trainer.optimizer) or start
    epochs = study.train.epochs
    measured = {0: "start", min(round(EARLY * epochs), epochs - 1): "early", epochs - 1: "end"}
    for epoch in range(progress["epoch"], epochs):
        means, ratios = trainer.epoch(epoch, measure=epoch in measured)
        progress["log"] += [(number, seed, epoch, term, value) for term, value in means.items()]
        progress["gradients"] += [(number, seed, measured[epoch], (epoch + 1) / epochs, t, s, r) for t, (s, r) in ratios.items()]
        if (epoch + 1) % VALIDATE_EVERY == 0 or epoch + 1 == epochs:
            progress["log"].append((number, seed, epoch, "validation_eer", trainer.validation_error()))
        progress["epoch"] = epoch + 1
        if (epoch + 1) % SAVE_EVERY == 0 and epoch + 1 < epochs:
            save_state(state, modules, trainer.optimizer, progress)
    stem = folder / f"fold{number}-seed{seed}"
    save_tensors(stem.with_suffix(".safetensors"), trainer.student.module.state_dict())
    save_tensors(
        folder / f"fold{number}-seed{seed}-head.safetensors",
        trainer.head.state_dict() | {f"method.{k}": t for k, t in trainer.method.state_dict().items()},
    )
    stem.with_suffix(".json").write_text(
        json.dumps({"log": progress["log"], "gradients": progress["gradients"]}), encoding="utf-8"
    )
    shutil.rmtree(state, ignore_errors=True)  # done: a forced rerun starts from the beginning


def run(study: Study, name: str) -> None:
    """The `distill` stage of one model: all its folds and seeds."""
    model = study.models[name]
    code = (study.runs / "code" / f"distill-{name}.txt").read_text(encoding="utf-8")
    tasks = [(number, seed) for number in study.folds_of(name) for seed in study.train.seeds]
    with atomic_folder(study.runs / "students" / name) as folder:
        threads = model.tuned.threads if model.tuned else study.threads
        parallel_map(train_one, [(study, model, *task, code, folder) for task in tasks], study.jobs, threads, name)
        logs, gradients = [], []
        for number, seed in tasks:
            path = folder / f"fold{number}-seed{seed}.json"
            written = json.loads(path.read_text(encoding="utf-8"))
            path.unlink()
            logs += written["log"]
            gradients += written["gradients"]
        write = {"float_format": "%.6g", "index": False, "lineterminator": "\n"}
        pd.DataFrame(logs, columns=["fold", "seed", "epoch", "term", "value"]).to_csv(folder / "log.csv", **write)
        columns = ["fold", "seed", "when", "progress", "term", "stage", "ratio"]
        pd.DataFrame(gradients, columns=columns).to_csv(folder / "gradients.csv", **write)
