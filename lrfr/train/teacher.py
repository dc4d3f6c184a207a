"""Fine-tune the teacher on the HR faces of a fold's training people, as much or as little as a setting says.

- `pretrained`: nothing; class weights are the people's mean directions.
- `head`: the embedding layer and the class weights.
- `last_stage`: these and the 256-channel stage.
- `se`: the SE gates of every block (which start as the identity), the embedding layer and the class weights; for `se_dfd`.

The embedding is standardised, (t - mean) / rms with the training faces' statistics: dlib's vectors lie in a narrow cone, where
raw cosines say nothing. Only the frozen part of the network is run once per face; the rest is trained on what it left.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from lrfr.config import FineTune, Study
from lrfr.data.files import atomic_folder
from lrfr.data.loading import stream
from lrfr.models.heads import FaceHead, unit
from lrfr.models.teachers import build_teacher
from lrfr.parallel import parallel_map
from lrfr.train.checkpoint import load_into, load_tensors, save_tensors
from lrfr.train.faces import Fold, read_fold, teacher_input

SETTINGS = ("pretrained", "head", "last_stage", "se")
SE_REDUCTION = 16  # SE-Net's default
STREAM = 1  # of `lrfr.data.loading.stream`: the order of the faces
BATCH = 40  # images a forward pass; no influence on the numbers beyond float sums
MARGIN_RAMP = 0.3  # as for students


class Trained(NamedTuple):
    """A teacher ready to teach one fold.

    net: in eval mode, without gradients. mean: float (D,), rms: float (), of the training faces' raw embeddings.
    class_weight: float (C, D), directions of the training people in the standardised space. scale: of the cosine logits.
    """

    net: nn.Module
    mean: Tensor
    rms: Tensor
    class_weight: Tensor
    scale: float


def standardisation(embeddings: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (D,) and root mean square norm () of centred raw embeddings (n, D): (t - mean) / rms has mean square norm 1."""
    mean = embeddings.mean(0)
    return mean, (embeddings - mean).square().sum(1).mean().sqrt()


def class_means(embeddings: Tensor, labels: Tensor) -> Tensor:
    """Mean direction of every class, (C, D), of standardised embeddings (n, D)."""
    return torch.stack([unit(embeddings[labels == c]).mean(0) for c in range(int(labels.max()) + 1)])


def both_views(fold: Fold) -> tuple[Tensor, Tensor]:
    """The training faces and their mirror images, uint8 (2n, H, W, 3), with labels int64 (2n,)."""
    chips = torch.from_numpy(fold.chips[fold.images])
    return torch.cat([chips, chips.flip(2)]), torch.from_numpy(np.tile(fold.labels, 2))


def embed(function: nn.Module, inputs: Tensor) -> Tensor:
    """`function(inputs)` in batches, without gradients."""
    with torch.inference_mode():
        return torch.cat([function(inputs[i : i + BATCH]) for i in range(0, len(inputs), BATCH)]).clone()


class Split(nn.Module):
    """The trained part of a teacher: from `inputs` (what the frozen part left) to the raw embedding (B, D)."""

    def __init__(self, net: nn.Module, setting: str) -> None:
        super().__init__()
        self.net, self.setting = net, setting

    def forward(self, x: Tensor) -> Tensor:
        if self.setting == "head":
            return self.net.fc(x)
        if self.setting == "last_stage":
            return self.net.suffix(x)[1]
        return self.net(teacher_input(x)).embedding

    def inputs(self, chips: Tensor) -> Tensor:
        """What `forward` takes, for uint8 chips: pooled features, the map before the last stage, or the chips themselves."""
        if self.setting == "se":
            return chips
        maps = embed(lambda x: self.net.prefix(teacher_input(x))[-1], chips)
        return maps if self.setting == "last_stage" else embed(lambda x: self.net.pooled(x)[1], maps)

    def trainable(self) -> list[nn.Parameter]:
        """The parameters that the setting trains."""
        prefixes = {"head": ("fc.",), "last_stage": ("last_stage.", "fc."), "se": ("fc.",)}[self.setting]
        named = dict(self.net.named_parameters())
        return [p for name, p in named.items() if name.startswith(prefixes) or (self.setting == "se" and ".gate." in name)]


def standardised(net: nn.Module, weight: Tensor, study: Study, fold: Fold) -> Trained:
    """A teacher with the standardisation of its own training embeddings."""
    chips, _ = both_views(fold)
    mean, rms = standardisation(embed(lambda x: net(teacher_input(x)).embedding, chips))
    return Trained(net, mean, rms, weight.detach(), study.teacher.scale)


def fine_tune(study: Study, fold: Fold, setting: str, spec: FineTune) -> tuple[nn.Module, Tensor, list[tuple[int, float, float]]]:
    """Train a setting; return the network, the class weights, and (epoch, mean loss, accuracy on the training faces)."""
    net = build_teacher(study.teacher.name, study.teacher.weights, SE_REDUCTION if setting == "se" else None)
    split = Split(net, setting)
    chips, labels = both_views(fold)
    inputs = split.inputs(chips)
    raw = embed(split, inputs)
    mean, rms = standardisation(raw)
    head = FaceHead(int(labels.max()) + 1, raw.shape[1], study.teacher.scale, class_means((raw - mean) / rms, labels))
    parameters = split.trainable()
    for parameter in parameters:
        parameter.requires_grad_(True)
    optimizer = torch.optim.AdamW([*parameters, *head.parameters()], lr=spec.learning_rate)
    log = []
    for epoch in range(spec.epochs):
        order = torch.from_numpy(stream(study.seed, epoch, STREAM).permutation(len(inputs)))
        if setting == "se":
            order = order[: len(order) // 2]  # the whole network is run: half of the mirrored set an epoch
        losses, hits = [], 0
        for rows in order.split(spec.batch):
            embedding = (split(inputs[rows]) - mean) / rms
            margin = study.teacher.margin * min(1.0, (epoch + 1) / (MARGIN_RAMP * spec.epochs))
            loss = head.loss(embedding, labels[rows], margin)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            hits += int((head(embedding).argmax(1) == labels[rows]).sum())
        log.append((epoch, float(np.mean(losses)), hits / len(order)))
    net.requires_grad_(False)
    return net, head.weight.detach(), log


def train(study: Study, number: int, setting: str, folder: str) -> list[tuple]:
    """One fold, one setting: write its file, return its log."""
    fold = read_fold(study, number)
    if setting == "pretrained":
        net = build_teacher(study.teacher.name, study.teacher.weights, None)
        chips, labels = both_views(fold)
        raw = embed(lambda x: net(teacher_input(x)).embedding, chips)
        mean, rms = standardisation(raw)
        weight, log = class_means((raw - mean) / rms, labels), []
    else:
        net, weight, log = fine_tune(study, fold, setting, getattr(study.teacher, setting))
    trained = standardised(net, weight, study, fold)
    trainable = [] if setting == "pretrained" else Split(net, setting).trainable()
    changed = {id(p) for p in trainable}
    tensors = {f"net.{name}": p for name, p in net.named_parameters() if id(p) in changed}
    tensors |= {"mean": trained.mean, "rms": trained.rms.reshape(1), "class_weight": trained.class_weight}
    save_tensors(f"{folder}/fold{number}/{setting}.safetensors", tensors)
    return [(number, setting, *row) for row in log]


def load_trained(study: Study, number: int, setting: str) -> Trained:
    """Read what the `teacher` stage wrote for one fold and setting."""
    path = study.runs / "teacher" / f"fold{number}" / f"{setting}.safetensors"
    tensors = load_tensors(path)
    net = build_teacher(study.teacher.name, study.teacher.weights, SE_REDUCTION if setting == "se" else None)
    changed = {name.removeprefix("net."): t for name, t in tensors.items() if name.startswith("net.")}
    load_into(net, net.state_dict() | changed, path)
    return Trained(net, tensors["mean"], tensors["rms"][0], tensors["class_weight"], study.teacher.scale)


def run(study: Study) -> None:
    """The `teacher` stage: every setting for every fold."""
    with atomic_folder(study.runs / "teacher") as folder:
        tasks = [(study, number, setting, str(folder)) for number in study.faces.run_folds for setting in SETTINGS]
        logs = parallel_map(train, tasks, study.jobs, study.threads, "teacher")
        rows = [row for log in logs for row in log]
        frame = pd.DataFrame(rows, columns=["fold", "setting", "epoch", "loss", "accuracy"])
        frame.to_csv(folder / "log.csv", index=False, float_format="%.6g", lineterminator="\n")
