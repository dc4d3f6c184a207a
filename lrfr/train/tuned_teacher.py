"""The conventional scheme that the MK-MMD paper compares with: fine-tune the teacher itself on low-resolution views.

The paper's abstract says that keeping the HR teacher saves this step. Everything in it is our choice: all layers, the
face loss with the student's draw of views, until the validation people's EER has stopped improving. The result depends
on the view, so it cannot be cached: the student's training runs it on line, which is half of what the scheme costs.
"""

from __future__ import annotations

import numpy as np
import torch

from lrfr.config import Tuned
from lrfr.data.degrade import degrade
from lrfr.data.draws import epoch_batches, epoch_draws
from lrfr.evaluate.scores import pair_error
from lrfr.models.heads import FaceHead
from lrfr.models.teachers import TEACHERS
from lrfr.train.fold import Fold, teacher_input, teacher_view
from lrfr.train.teacher import Trained, embed, load_trained, standardised
from lrfr.train.trainings import Training

VALIDATED = (8, 16)  # pixels at which the validation EER is averaged: where the study looks first


def validation_error(teacher: str, trained: Trained, fold: Fold) -> float:
    """Mean EER of the validation people's pairs over `VALIDATED` pixels."""
    people = fold.people[fold.validation]
    errors = []
    for size in VALIDATED:
        views = degrade(torch.from_numpy(fold.chips[fold.validation]), size, fold.chips.shape[1])
        raw = embed(lambda x: trained.net(teacher_input(x)).embedding, views)
        errors.append(pair_error(TEACHERS[teacher].comparable(raw).numpy(), people))
    return float(np.mean(errors))


def spec_of(training: Training) -> Tuned:
    """The block `tuned` of a model whose teacher is tuned."""
    if training.model.tuned is None:
        raise ValueError(f"{training.name} has no block `tuned`")
    return training.model.tuned


class Tuner:
    """The teacher, a face head over it, and one optimiser over all their weights."""

    def __init__(self, training: Training, fold: Fold) -> None:
        self.training, self.fold, self.class_of = training, fold, fold.class_of
        self.trained = trained = load_trained(training, fold.number, "pretrained")
        classes, dimension = trained.class_weight.shape
        self.head = FaceHead(classes, dimension, training.teacher.scale, trained.class_weight)
        parameters = [*trained.net.requires_grad_(True).parameters(), *self.head.parameters()]
        self.optimizer = torch.optim.AdamW(parameters, lr=spec_of(training).learning_rate)

    def epoch(self, epoch: int, most: int | None = None) -> float:
        """Train one epoch, or its first `most` batches, with students' draw of views; return the mean face loss."""
        views, fold, seed, batch = self.training.views, self.fold, self.training.seed, spec_of(self.training).batch
        draws = epoch_draws(seed, epoch, len(fold.people), views.smallest, views.largest, views.hr_probability, 0.0)
        losses = []
        for ids, half in epoch_batches(seed, epoch, fold.images, fold.persons, batch, batch // 8)[:most]:
            chips = teacher_view(fold.chips[ids], draws.resolution[ids, half], draws.mirrored[ids, half])
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
    tuner, spec, teacher = Tuner(training, fold), spec_of(training), training.teacher
    best, kept, since = validation_error(teacher.name, tuner.trained, fold), tuner.state(), 0
    log = [(0, "teacher_validation_eer", best)]
    for epoch in range(1, spec.max_epochs + 1):
        log.append((epoch, "teacher_face", tuner.epoch(epoch)))
        error = validation_error(teacher.name, tuner.trained, fold)
        log.append((epoch, "teacher_validation_eer", error))
        if error < best:
            best, kept, since = error, tuner.state(), 0
        elif (since := since + 1) == spec.patience:
            break
    net = tuner.trained.net
    net.load_state_dict(kept["net"])
    net.requires_grad_(False)
    net.zero_grad(set_to_none=True)
    raw = embed(lambda x: net(teacher_input(x)).embedding, torch.from_numpy(fold.chips[fold.images]))
    return standardised(net, raw, kept["head"]["weight"], teacher.scale), log
