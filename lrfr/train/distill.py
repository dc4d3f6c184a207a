"""The one loop that trains every student, and its stage `distill`: the same faces, draws, recipe and budget for all.

From top to bottom: what is seen (`batches`, `inputs`), what is lost (`losses`), how it is stepped (`epoch`), when it is
measured and saved (`train_one`). Torch's global generator is used for initialisation only; what an image looks like
is a function of (seed, epoch, image), so an interrupted training resumes bit for bit.
"""

import hashlib
import json
import math
import shutil
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from lrfr.config import Study
from lrfr.data.draws import Draw, epoch_batches, epoch_draws, move, view_index
from lrfr.errors import UserError
from lrfr.evaluate.scores import pair_error
from lrfr.files import atomic_folder, write_table
from lrfr.methods import METHODS
from lrfr.models.features import Features, Shapes
from lrfr.models.heads import FaceHead, unit
from lrfr.models.student import build_student, kind_of, normalise
from lrfr.models.teachers import TEACHERS
from lrfr.parallel import parallel_map
from lrfr.progress import bar
from lrfr.train.checkpoint import load_state, resume_folder, save_state, save_tensors
from lrfr.train.fold import Fold, drawn_views, read_fold
from lrfr.train.targets import Source
from lrfr.train.trainings import Training, plan_file

MARGIN_RAMP = 0.3  # fraction of training in which the margin grows from 0: full, it stalls the first steps (our choice)
MEASURED = 20  # batches of an epoch whose gradients are measured: enough for a mean, and an epoch may have hundreds
BATCH = 100  # validation faces a forward pass
SAVE_EVERY = 5  # epochs between resumable states
VALIDATE_EVERY = 5  # epochs between measurements of the validation people's EER,
VALIDATED = (8, 12, 16)  # at these pixels: where students are to be better than their teacher
EARLY = 0.4  # progress at which gradients are measured a second time: every method's warm-up is over
Rows = list[tuple]  # of a table
Ratios = dict[tuple[str, str], float]  # (term, name of a stage) -> ratio of gradient norms there


class Trainer:
    """Student, face head, method and optimiser of one training, in one fold and with one seed."""

    def __init__(self, training: Training, fold: Fold, seed: int) -> None:
        self.model, self.train, self.views = training.model, training.train, training.views
        self.fold, self.seed, self.drawn, self.name = fold, seed, training.seed, training.name
        self.kinds = self.views.kinds[:1] if self.model.views == "area" else self.views.kinds
        self.fabric = Fabric(accelerator=training.accelerator, devices=1)
        teacher, size = TEACHERS[training.teacher.name], self.views.size
        if self.model.teacher == "own":
            assert training.student.pretrained is not None  # `config.Study` asks for it
            teacher = TEACHERS[training.student.pretrained.name]
        self.kind = kind = kind_of(training.student, self.model.student, size)
        embedding, sides = kind.embedding, [side for _, side in kind.maps]
        teacher_maps, classes = tuple(zip(teacher.channels, sides, strict=True)), int(fold.labels.max()) + 1
        shapes = Shapes(kind.maps, teacher_maps, embedding, teacher.embedding, classes, len(fold.people))
        student = build_student(training.student, self.model.student, size, seed)
        self.source = Source(training, fold)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            start = self.source.class_weight if self.train.head == "teacher" else None
            head = FaceHead(classes, embedding, self.train.scale, start)
            method = METHODS[self.model.method](shapes, **self.model.options)
        assert isinstance(method, nn.Module)  # the other half of the contract
        self.head, self.method = head.to(self.fabric.device), method.to(self.fabric.device)
        parameters = [p for module in (student, self.head, self.method) for p in module.parameters()]
        groups = [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": self.train.weight_decay},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},  # norms and biases, as usual
        ]
        optimizer = torch.optim.AdamW(groups, lr=self.train.learning_rate)
        self.student, self.optimizer = self.fabric.setup(student, optimizer)
        self.class_of = fold.class_of

    def batches(self, epoch: int) -> list[tuple[np.ndarray, Draw]]:
        """The epoch's batches: image numbers and what is drawn for each."""
        train, views, fold = self.train, self.views, self.fold
        hr = 1.0 if self.model.views == "hr" else views.hr_probability
        drawn = views.smallest, views.largest, hr, train.jitter, train.grey, train.cast, len(self.kinds)
        draws = epoch_draws(self.seed, epoch, len(fold.people), *drawn)
        order = epoch_batches(self.seed, epoch, fold.images, fold.persons, train.batch, train.people_per_batch)
        return [(ids, Draw(*(field[ids, half] for field in draws))) for ids, half in order]

    def pixels(self, ids: np.ndarray, draw: Draw, kinds: tuple[str, ...]) -> Tensor:
        """The student's views of a batch before any jitter, uint8 (B, S, S, 3); `draw.kind` numbers `kinds`."""
        if self.model.student == "adapted":
            return drawn_views(self.kind.see, self.fold, ids, draw, kinds, self.drawn)
        view = view_index(draw.resolution, self.views.smallest, self.views.largest)
        pixels = torch.empty(len(ids), self.kind.input, self.kind.input, 3, dtype=torch.uint8)
        for number, name in enumerate(kinds):
            rows = draw.kind == number
            pixels[torch.from_numpy(rows)] = torch.from_numpy(self.fold.views[name][ids[rows], view[rows]])
        mirrored = torch.from_numpy(draw.mirrored)
        pixels[mirrored] = pixels[mirrored].flip(2)
        return pixels

    def inputs(self, ids: np.ndarray, draw: Draw) -> Tensor:
        """The student's views of a batch, float (B, 3, S, S)."""
        pixels = self.pixels(ids, draw, self.kinds)
        gain, bias = (torch.from_numpy(x)[:, None, None, None] for x in (draw.gain, draw.bias))
        train, views = self.train, normalise(pixels)
        if train.rotate or train.zoom or train.shift:
            views = move(views, torch.from_numpy(draw.moves), train.rotate, train.zoom, train.shift)
        if train.grey or train.cast:
            views = (torch.from_numpy(draw.colour) @ views.flatten(2)).view(views.shape)  # x'_i = sum_j M_ij x_j
        return (views * gain + bias).contiguous(memory_format=torch.channels_last)

    def losses(self, ids: np.ndarray, draw: Draw, progress: float) -> dict[str, Tensor]:
        """The face loss and the method's weighted terms for one batch."""
        device = self.fabric.device
        labels = self.class_of[ids].to(device)
        targets = self.source(ids, draw).to(device)
        features = Features(*self.student(self.inputs(ids, draw).to(device)))
        logits = self.head(features.embedding)
        face = self.head.loss(features.embedding, labels, self.train.margin * min(1.0, progress / MARGIN_RAMP))
        return {"face": face, **self.method(features, logits, targets, labels, progress)}

    def learning_rate(self, progress: float) -> float:
        """Linear warm-up, then half a cosine to 0."""
        warmup = self.train.warmup
        if progress < warmup:
            return self.train.learning_rate * (progress / warmup)
        return self.train.learning_rate * (0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup))))

    def epoch(self, epoch: int, measure: bool = False, most: int | None = None) -> tuple[dict[str, float], Ratios]:
        """Train one epoch, or its first `most` batches; the terms' means and, if asked, their gradient ratios."""
        self.student.train()
        batches, sums, ratios = self.batches(epoch), dict[str, list[float]](), dict[tuple[str, str], list[float]]()
        for step, (ids, draw) in enumerate(batches[:most]):
            progress = (epoch + (step + 1) / len(batches)) / self.train.epochs
            for group in self.optimizer.param_groups:
                group["lr"] = self.learning_rate(progress)
            terms = self.losses(ids, draw, progress)
            values = {name: t.item() for name, t in terms.items()}
            if wrong := [name for name, value in values.items() if not math.isfinite(value)]:
                what = f"the term '{wrong[0]}' is {values[wrong[0]]} in epoch {epoch + 1}, step {step + 1}"
                raise UserError(f"{self.name}, seed {self.seed}: {what}; lower learning_rate or its weight.")
            if measure and step < MEASURED:
                for where, ratio in gradient_ratios(terms, self.student.stages).items():
                    ratios.setdefault(where, []).append(ratio)
            self.optimizer.zero_grad(set_to_none=True)
            self.fabric.backward(torch.stack(list(terms.values())).sum())
            self.optimizer.step()
            for term, value in {**values, **self.method.logs()}.items():
                sums.setdefault(term, []).append(value)
        means = {term: float(np.mean(values)) for term, values in sums.items()}
        return means, {where: float(np.mean(found)) for where, found in ratios.items()}

    def validation_error(self, resolution: int, kind: str) -> float:
        """EER of the validation people's pairs, both faces at `resolution` pixels, of a kind in `views.kinds`."""
        faces, parts = self.fold.validation, []
        sizes, number = np.full(BATCH, resolution), np.full(BATCH, self.views.kinds.index(kind))
        none = np.zeros(BATCH, np.float32)
        plain = Draw(sizes, none.astype(bool), none, none, none, none, number)
        self.student.eval()
        with torch.no_grad():
            for ids in np.array_split(faces, range(BATCH, len(faces), BATCH)):
                draw = Draw(*(field[: len(ids)] for field in plain))
                pixels = normalise(self.pixels(ids, draw, self.views.kinds)).to(self.fabric.device)
                parts.append(unit(Features(*self.student(pixels)).embedding))
        return pair_error(torch.cat(parts).cpu().numpy(), self.fold.people[faces])


def gradient_ratios(terms: dict[str, Tensor], stages: nn.ModuleList) -> Ratios:
    """‖∇ term‖ / ‖∇ face‖ on every stage that a term reaches: is it dead, does it drown the rest? 0 for constants."""
    weights = list(stages.parameters())

    def norms(loss: Tensor) -> dict[str, float]:
        if not loss.requires_grad:
            return {f"stage{depth}": 0.0 for depth in range(1, len(stages) + 1)}
        found = torch.autograd.grad(loss, weights, retain_graph=True, allow_unused=True)
        squares = {p: float(g.square().sum()) for p, g in zip(weights, found, strict=True) if g is not None}
        parts = [[squares[p] for p in stage.parameters() if p in squares] for stage in stages]
        return {f"stage{depth}": math.sqrt(sum(part)) for depth, part in enumerate(parts, 1) if part}

    face = norms(terms["face"])
    pulls = {term: norms(loss) for term, loss in terms.items() if term != "face"}
    return {(term, stage): size / face[stage] for term, found in pulls.items() for stage, size in found.items()}


def read_hashes(training: Training, number: int) -> dict[str, str]:
    """Path -> sha256 of everything that the training of one fold reads."""
    runs = training.runs
    paths = [runs / "index.csv", runs / "folds.csv", *sorted((runs / "views").iterdir())]
    own = (path for kind in ("teacher", "targets") for path in (runs / kind / f"fold{number}").rglob("*"))
    paths += sorted(path for path in own if path.is_file())
    hashes = {}
    for path in paths:
        with path.open("rb") as file:
            hashes[path.as_posix()] = hashlib.file_digest(file, "sha256").hexdigest()
    return hashes


def train_one(training: Training, number: int, seed: int, state: Path, folder: Path, heads: Path) -> tuple[Rows, Rows]:
    """Train one student of one fold and seed, from the state in `state` if there is one; return its log and gradients.

    The student goes to `folder` in float16, as it is released and tested; the head and the method's state to `heads`.
    """
    trainer = Trainer(training, read_fold(training, number), seed)
    modules = {"student": trainer.student.module, "head": trainer.head, "method": trainer.method}
    progress = load_state(state, modules, trainer.optimizer)
    if progress is None:
        progress = {"epoch": 0, "log": [(number, seed, *row) for row in trainer.source.log], "gradients": []}
    epochs = training.train.epochs
    measured = {0: "start", min(round(EARLY * epochs), epochs - 1): "early", epochs - 1: "end"}
    for epoch in bar(range(progress["epoch"], epochs), f"fold {number} seed {seed}"):
        means, ratios = trainer.epoch(epoch, measure=epoch in measured)
        progress["log"] += [(number, seed, epoch, term, value) for term, value in means.items()]
        now = (number, seed, measured.get(epoch), (epoch + 1) / epochs)
        progress["gradients"] += [(*now, *where, ratio) for where, ratio in ratios.items()]
        if (epoch + 1) % VALIDATE_EVERY == 0 or epoch + 1 == epochs:
            for kind, resolution in product(training.views.kinds, VALIDATED):
                name = f"validation_eer_{resolution}" if kind == "area" else f"validation_eer_{kind}_{resolution}"
                progress["log"].append((number, seed, epoch, name, trainer.validation_error(resolution, kind)))
        progress["epoch"] = epoch + 1
        if (epoch + 1) % SAVE_EVERY == 0 and epoch + 1 < epochs:
            save_state(state, modules, trainer.optimizer, progress)
    name = f"fold{number}-seed{seed}.safetensors"
    save_tensors(folder / name, halved(trainer.student.module.state_dict()))
    method = {f"method.{k}": t for k, t in trainer.method.state_dict().items()}
    save_tensors(heads / name, trainer.head.state_dict() | method)
    shutil.rmtree(state, ignore_errors=True)  # done: a forced rerun starts from the beginning
    return progress["log"], progress["gradients"]


def halved(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Floating-point tensors as float16, which halves the files in git; whole numbers as they are."""
    return {name: t.half() if t.is_floating_point() else t for name, t in state.items()}


def run(study: Study, name: str) -> None:
    """The `distill` stage of one training: all its folds and seeds."""
    plan = plan_file(study, name).read_text(encoding="utf-8")
    training = Training(**json.loads(plan)["parameters"])
    places = study.reports / "students" / name, study.runs / "heads" / name
    with atomic_folder(places[0]) as folder, atomic_folder(places[1]) as heads:
        tasks = []
        for number in training.folds:
            files = read_hashes(training, number)
            for seed in training.train.seeds:
                state = resume_folder({"plan": plan, "fold": number, "seed": seed, "files": files})
                tasks.append((training, number, seed, state, folder, heads))
        outcomes = parallel_map(train_one, tasks, study.jobs, training.threads, name)
        columns = {"log": "fold seed epoch term value", "gradients": "fold seed when progress term stage ratio"}
        for k, table in enumerate(columns):
            rows = [row for outcome in outcomes for row in outcome[k]]
            write_table(folder / f"{table}.csv", pd.DataFrame(rows, columns=columns[table].split()), "%.6g")
