"""Fine-tune the teacher on the HR faces of a fold's training people, as much or as little as a setting says.

- `pretrained`: nothing; class weights are the people's mean directions.
- `head`: the embedding layer and the class weights.
- `last_stage`: these and the 256-channel stage.
- `se`: the SE gates of every block (which start as the identity), the embedding layer, the class weights; for `se_dfd`.

The embedding is standardised, (t - mean) / rms with the training faces' statistics: dlib's vectors lie in a narrow
cone, where raw cosines say nothing. The frozen part of the network is run once per face; the rest is trained on what it
left, which lies in a file: for 50,000 faces it takes 7 GB. An epoch is as many faces as the fold has, drawn from faces
and mirror images.

`tune` is the conventional scheme that the MK-MMD paper compares with, whose abstract says that keeping the HR teacher
saves this step: fine-tune on low-resolution views. Everything in it is our choice: all layers, the face loss with the
student's draw of views, until the validation people's EER has stopped improving. The result depends on the view, so it
cannot be cached: the student's training runs it on line, which is half of what the scheme costs.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from lrfr.config import FineTune, Study
from lrfr.data.draws import epoch_batches, epoch_draws
from lrfr.evaluate.scores import pair_error
from lrfr.files import atomic_folder, write_table
from lrfr.gate.state import insert_state, read_state
from lrfr.models.heads import FaceHead, unit
from lrfr.models.teachers import TEACHERS, TeacherNet, build_teacher
from lrfr.parallel import parallel_map
from lrfr.streams import stream
from lrfr.train.checkpoint import save_tensors
from lrfr.train.fold import Fold, See, read_fold, teacher_input, teacher_view
from lrfr.train.trainings import Training

SE_REDUCTION = 16  # SE-Net's default
BATCH = 40  # images a forward pass; no influence on the numbers beyond float sums
MARGIN_RAMP = 0.3  # as for students
VALIDATED = (8, 16)  # pixels at which the validation EER is averaged: where the study looks first


Rows = list[tuple]  # of a table
Inputs = Callable[[Tensor], Tensor]  # row numbers, int64 (b,) -> what a network takes, (b, ...)


class Trained(NamedTuple):
    """A teacher ready to teach one fold.

    net: in eval mode, without gradients. mean: float (D,), rms: float (), of the training faces' raw embeddings.
    class_weight: float (C, D), the training people's directions in the standardised space. scale: of the cosine logits.
    """

    net: TeacherNet
    mean: Tensor
    rms: Tensor
    class_weight: Tensor
    scale: float


def standardisation(embeddings: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (D,) of raw embeddings t (n, D) and the root of the mean square norm of t - mean, ()."""
    mean = embeddings.mean(0)
    return mean, (embeddings - mean).square().sum(1).mean().sqrt()


def class_means(embeddings: Tensor, labels: Tensor) -> Tensor:
    """Mean direction of every class, (C, D), of standardised embeddings (n, D)."""
    return torch.stack([unit(embeddings[labels == c]).mean(0) for c in range(int(labels.max()) + 1)])


def both_views(see: See, fold: Fold) -> Inputs:
    """The training faces (rows 0 ... n-1) and their mirror images as a teacher sees them, uint8 (b, s, s, 3)."""

    def read(rows: Tensor) -> Tensor:
        mirrored, ids = rows.numpy() >= len(fold.images), fold.images[rows.numpy() % len(fold.images)]
        return teacher_view(see, fold.chips[ids], np.zeros(len(ids), np.int64), mirrored)

    return read


def embed(function: Callable[[Tensor], Tensor], inputs: Inputs, count: int) -> Tensor:
    """`function` of rows 0 ... count-1 of the inputs, in batches, without gradients."""
    with torch.no_grad():
        return torch.cat([function(inputs(rows)) for rows in torch.arange(count).split(BATCH)])


def stored(function: Callable[[Tensor], Tensor], inputs: Inputs, count: int, file: Path) -> Inputs:
    """`embed` into a new .npy file, from which rows are read."""
    array = None
    with torch.no_grad():
        for rows in torch.arange(count).split(BATCH):
            found = function(inputs(rows)).numpy()
            if array is None:
                array = np.lib.format.open_memmap(file, "w+", found.dtype, (count, *found.shape[1:]))
            array[rows.numpy()] = found
    assert array is not None
    return lambda rows: torch.from_numpy(array[rows.numpy()])


class Part(NamedTuple):
    """What a setting trains of a network: from what the frozen part left to the raw embedding (B, D)."""

    forward: Callable[[Tensor], Tensor]
    parameters: dict[str, nn.Parameter]


def part_of(net: TeacherNet, setting: str) -> Part:
    """It takes pooled features (pretrained, head), the map before the last stage, or uint8 chips (se)."""
    wanted = {"pretrained": (), "head": net.HEAD, "last_stage": net.LAST_STAGE, "se": net.HEAD}[setting]
    named = {n: p for n, p in net.named_parameters() if n.startswith(wanted) or (setting == "se" and ".gate." in n)}
    if setting == "se":
        return Part(lambda x: net(teacher_input(x)).embedding, named)
    return Part((lambda x: net.head(net.pooled(x)[1])) if setting == "last_stage" else net.head, named)


def fine_tune(study: Study, part: Part, inputs: Inputs, labels: Tensor, spec: FineTune | None) -> tuple[Tensor, Rows]:
    """Train a part in place on inputs, labels (n,); return class weights and (epoch, mean loss, accuracy).

    Without `spec` nothing is trained: class weights are the class means, from which training starts.
    """
    mean, rms = standardisation(raw := embed(part.forward, inputs, len(labels)))
    weight = class_means((raw - mean) / rms, labels)
    if spec is None:
        return weight, []
    head = FaceHead(len(weight), raw.shape[1], study.teacher.scale, weight)
    for parameter in part.parameters.values():
        parameter.requires_grad_(True)
    optimizer = torch.optim.AdamW([*part.parameters.values(), *head.parameters()], lr=spec.learning_rate)
    log: Rows = []
    for epoch in range(spec.epochs):
        order = torch.from_numpy(stream("teacher_order", study.seed, epoch).permutation(len(labels)))
        order = order[: len(labels) // 2]
        margin = study.teacher.margin * min(1.0, (epoch + 1) / (MARGIN_RAMP * spec.epochs))
        losses, hits = [], 0
        for rows in order.split(spec.batch):
            embedding = (part.forward(inputs(rows)) - mean) / rms
            loss = head.loss(embedding, labels[rows], margin)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            hits += int((head(embedding).argmax(1) == labels[rows]).sum())
        log.append((epoch, float(np.mean(losses)), hits / int((labels[order] >= 0).sum())))
    for parameter in part.parameters.values():
        parameter.requires_grad_(False)
    return head.weight, log


def train(study: Study, number: int, settings: tuple[str, ...], folder: str) -> Rows:
    """Settings of one fold that share their frozen part: write one file each, return the log."""
    fold = read_fold(study, number)
    chips, labels = both_views(TEACHERS[study.teacher.name].see, fold), torch.from_numpy(np.tile(fold.labels, 2))
    rows: Rows = []
    frozen, count = {"se": chips}, len(labels)
    with tempfile.TemporaryDirectory(dir=study.runs) as temporary:
        if settings != ("se",):
            net = build(study, "pretrained")
            maps = stored(lambda x: net.prefix(teacher_input(x))[-1], chips, count, Path(temporary) / "maps.npy")
            pooled = embed(lambda x: net.pooled(x)[1], maps, count)
            frozen |= {"last_stage": maps, "head": pooled.__getitem__, "pretrained": pooled.__getitem__}
        for setting in settings:
            part = part_of(build(study, setting), setting)
            spec = None if setting == "pretrained" else getattr(study.teacher, setting)
            weight, log = fine_tune(study, part, frozen[setting], labels, spec)
            mean, rms = standardisation(embed(part.forward, frozen[setting], count))
            tensors: dict[str, Tensor] = {f"net.{name}": p for name, p in part.parameters.items()}
            tensors |= {"mean": mean, "rms": rms.reshape(1), "class_weight": weight}
            save_tensors(f"{folder}/fold{number}/{setting}.safetensors", tensors)
            rows += [(number, setting, *row) for row in log]
    return rows


def build(study: Study | Training, setting: str) -> TeacherNet:
    """The network of a setting, before any fine-tuning."""
    return build_teacher(study.teacher.name, study.teacher.weights, SE_REDUCTION if setting == "se" else None)


def load_trained(study: Study | Training, number: int, setting: str) -> Trained:
    """Read what the `teacher` stage wrote for one fold and setting."""
    path = study.runs / "teacher" / f"fold{number}" / f"{setting}.safetensors"
    tensors, net = read_state(path), build(study, setting)
    changed = {name.removeprefix("net."): t for name, t in tensors.items() if name.startswith("net.")}
    insert_state(net, net.state_dict() | changed, path)
    return Trained(net, tensors["mean"], tensors["rms"][0], tensors["class_weight"], study.teacher.scale)


def own(training: Training, fold: Fold) -> tuple[Trained, np.ndarray]:
    """The published network that an adapted student starts from, frozen: it sees the sharp face.

    Its embedding is not centred, or the student would begin with another answer than its teacher's. Returns its answers
    for the training faces and their mirror images as well, float32 (n, 2, D).
    """
    assert training.student.pretrained is not None  # `config.Study` asks for it
    name, labels = training.student.pretrained.name, torch.from_numpy(np.tile(fold.labels, 2))
    net, views = build_teacher(name, training.student.pretrained.weights), both_views(TEACHERS[name].see, fold)
    raw = embed(lambda x: net(teacher_input(x)).embedding, views, len(labels))
    rms = standardisation(raw)[1]
    trained = Trained(net, torch.zeros(raw.shape[1]), rms, class_means(raw / rms, labels), training.teacher.scale)
    return trained, np.stack([*(raw / rms).reshape(2, len(fold.images), -1).numpy()], axis=1)


def validation_error(teacher: str, trained: Trained, fold: Fold) -> float:
    """Mean EER of the validation people's pairs over `VALIDATED` pixels."""
    spec, people = TEACHERS[teacher], fold.people[fold.validation]
    errors = []
    for size in VALIDATED:
        chips = fold.chips[fold.validation]
        views = teacher_view(spec.see, chips, np.full(len(chips), size), np.zeros(len(chips), bool))
        raw = embed(lambda x: trained.net(teacher_input(x)).embedding, views.__getitem__, len(views))
        errors.append(pair_error(spec.comparable(raw).numpy(), people))
    return float(np.mean(errors))


class Tuner:
    """The teacher, a face head over it, and one optimiser over all their weights."""

    def __init__(self, training: Training, fold: Fold) -> None:
        assert training.model.tuned is not None  # the block of a model with `teacher: tuned`
        self.training, self.spec, self.fold, self.class_of = training, training.model.tuned, fold, fold.class_of
        self.see = TEACHERS[training.teacher.name].see
        self.trained = trained = load_trained(training, fold.number, "pretrained")
        classes, dimension = trained.class_weight.shape
        self.head = FaceHead(classes, dimension, training.teacher.scale, trained.class_weight)
        parameters = [*trained.net.requires_grad_(True).parameters(), *self.head.parameters()]
        self.optimizer = torch.optim.AdamW(parameters, lr=self.spec.learning_rate)

    def epoch(self, epoch: int, most: int | None = None) -> float:
        """Train one epoch, or its first `most` batches, with students' draw of views; return the mean face loss."""
        views, fold, seed, batch = self.training.views, self.fold, self.training.seed, self.spec.batch
        drawn = views.smallest, views.largest, views.hr_probability, 0.0, 0.0, 0.0, 1
        draws = epoch_draws(seed, epoch, len(fold.people), *drawn)
        losses = []
        for ids, half in epoch_batches(seed, epoch, fold.images, fold.persons, batch, batch // 8)[:most]:
            chips = teacher_view(self.see, fold.chips[ids], draws.resolution[ids, half], draws.mirrored[ids, half])
            embedding = (self.trained.net(teacher_input(chips)).embedding - self.trained.mean) / self.trained.rms
            loss = self.head.loss(embedding, self.class_of[ids], self.training.teacher.margin)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()
            losses.append(loss.item())
        return float(np.mean(losses))

    def state(self) -> dict[str, dict[str, torch.Tensor]]:
        tensors = {"net": self.trained.net.state_dict(), "head": self.head.state_dict()}
        return {part: {name: t.clone() for name, t in state.items()} for part, state in tensors.items()}


def tune(training: Training, fold: Fold) -> tuple[Trained, list[tuple[int, str, float]]]:
    """Fine-tune all layers; return the teacher of the epoch with the best validation EER, and (epoch, term, value)."""
    tuner, teacher = Tuner(training, fold), training.teacher.name
    best, kept, since = validation_error(teacher, tuner.trained, fold), tuner.state(), 0
    log = [(0, "teacher_validation_eer", best)]
    for epoch in range(1, tuner.spec.max_epochs + 1):
        log.append((epoch, "teacher_face", tuner.epoch(epoch)))
        error = validation_error(teacher, tuner.trained, fold)
        log.append((epoch, "teacher_validation_eer", error))
        if error < best:
            best, kept, since = error, tuner.state(), 0
        elif (since := since + 1) == tuner.spec.patience:
            break
    net = tuner.trained.net.requires_grad_(False)
    net.load_state_dict(kept["net"])
    net.zero_grad(set_to_none=True)
    raw = embed(lambda x: net(teacher_input(x)).embedding, both_views(tuner.see, fold), len(fold.images))
    return Trained(net, *standardisation(raw), kept["head"]["weight"], training.teacher.scale), log


def run(study: Study) -> None:
    """The `teacher` stage: every setting for every fold."""
    groups: list[tuple[str, ...]] = [] if study.teacher.se is None else [("se",)]  # first: slow, and shares nothing
    groups.append(("pretrained", "head", "last_stage"))
    with atomic_folder(study.runs / "teacher") as folder:
        tasks = [(study, number, settings, str(folder)) for settings in groups for number in study.faces.run_folds]
        logs = parallel_map(train, tasks, study.jobs, study.threads, "teacher")
        rows = sorted((row for log in logs for row in log), key=lambda row: row[:3])
        table = pd.DataFrame(rows, columns=["fold", "setting", "epoch", "loss", "accuracy"])
        write_table(folder / "log.csv", table, "%.6g")
