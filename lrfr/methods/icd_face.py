"""ICD-Face: intra-class compactness distillation (ICCV 2023).

Idea. Pulling every student embedding to its teacher's (feature consistency, FCD) still leaves two faces of one person less
similar under the student than under the teacher. So the *distribution* of these intra-class similarities is matched too
(similarity-distribution consistency, SDC). One batch holds few pairs of one person; feature banks supply many.

Known from the abstract: L2 feature consistency, feature banks, KL between the similarity distributions of teacher and student.
From a third party (a public adaptation citing the paper's Algorithm 1): paired per-class banks, a validity counter and
replacement of the oldest slot, the soft histogram with node step delta and spread gamma, the factor 1/2, SDC switched on late.
DDL's released code (ECCV 2020) has the same histogram and KL(teacher || student).
Not known, so our choice: log space throughout (clamped histograms lose their gradient when the distributions lie apart),
step .01, the weights, the number of slots. The bank stores the image behind each slot, and a pair of an image with itself,
mirrored or not, never counts: such a pair is a spike at 1 in both histograms. An image has at most one slot and overwrites it.
A person with one photograph may hold a slot but forms no pair.

    L_fcd = (1/2B) sum_i || P f_i^s/|.| - f_i^t/|.| ||^2
    a_ik^t = <f_i^t, M_{y_i k}^t>,  a_ik^s = <f_i^s, M_{y_i k}^s>   over the usable slots k; unit vectors, banks without gradient
    p_r proportional to sum_ik exp(-gamma (a_ik - t_r)^2),   t_r = -1 + r delta
    L_sdc = KL(p^t || p^s)
    L = L_face + fcd L_fcd + sdc [progress >= start] L_sdc
Like MMD, L_sdc compares two collections and is blind to which pair is which.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from lrfr.methods.common import embedding_projector, one_of
from lrfr.methods.se_dfd import feature_distillation
from lrfr.models.features import Features, Shapes, Targets
from lrfr.models.heads import unit

Candidates = tuple[Tensor, Tensor, Tensor]  # student (B, K, D_s), teacher (B, K, D_t), usable: bool (B, K)


def log_histogram(similarities: Tensor, step: float, gamma: float) -> Tensor:
    """Log of the soft histogram of similarities (N,), N >= 1, over the nodes -1, -1 + step, ... 1; sums to 1 after exp."""
    nodes = step * torch.arange(round(2 / step) + 1, device=similarities.device, dtype=similarities.dtype) - 1
    return (-gamma * (similarities[:, None] - nodes).square()).logsumexp(0).log_softmax(0)


def similarity_distribution_consistency(
    student_similarities: Tensor, teacher_similarities: Tensor, step: float = 0.01, gamma: float = 50.0
) -> Tensor:
    """KL(p_teacher || p_student) of soft histograms, a scalar >= 0.

    Cosines (N,) of the same pairs in any order, in [-1, 1]; `step` between nodes, `gamma` = 1 / (2 sigma^2) of the Gaussian
    that spreads a similarity over them (step should stay below sigma / 2). Without pairs the result is 0, with a graph.
    """
    if student_similarities.numel() == 0:
        return student_similarities.sum()
    student = log_histogram(student_similarities, step, gamma)
    teacher = log_histogram(teacher_similarities.detach(), step, gamma)
    return (teacher.exp() * (teacher - student)).sum()


class Bank(nn.Module):
    """Unit embeddings of recent images, `slots` per person, the same slot for teacher and student; saved with the state.

    image: the image in a slot, -1 if empty. written: the write that filled it. writes: number of writes so far.
    """

    def __init__(self, shapes: Shapes, slots: int, max_age: int) -> None:
        super().__init__()
        self.max_age = max_age
        self.register_buffer("student", torch.zeros(shapes.classes, slots, shapes.student_embedding))
        self.register_buffer("teacher", torch.zeros(shapes.classes, slots, shapes.teacher_embedding))
        self.register_buffer("image", torch.full((shapes.classes, slots), -1))
        self.register_buffer("written", torch.full((shapes.classes, slots), -1))
        self.register_buffer("writes", torch.zeros((), dtype=torch.int64))

    def candidates(self, labels: Tensor, ids: Tensor) -> Candidates:
        """The slots of each row's person; usable ones are filled, at most `max_age` writes old, and of another image."""
        image = self.image[labels]
        fresh = self.writes - self.written[labels] <= self.max_age
        return self.student[labels], self.teacher[labels], (image >= 0) & fresh & (image != ids[:, None])

    @torch.no_grad()
    def write(self, labels: Tensor, ids: Tensor, student: Tensor, teacher: Tensor) -> None:
        """Store a batch. An image goes to its own slot if it has one, else to the person's oldest (empty ones first).

        Of an image that occurs twice in the batch the last row is kept. New images of one person beyond the number of slots
        are dropped.
        """
        last = ~(ids[:, None] == ids[None]).triu(1).any(1)
        labels, ids, student, teacher = labels[last], ids[last], student[last].detach(), teacher[last].detach()
        own = self.image[labels] == ids[:, None]
        held = own.any(1)
        self._put(labels[held], own[held].int().argmax(1), ids[held], student[held], teacher[held])
        labels, ids, student, teacher = labels[~held], ids[~held], student[~held], teacher[~held]
        rank = (labels[:, None] == labels[None]).tril(-1).sum(1)  # how many rows of the same person come before
        oldest = self.written[labels].argsort(dim=1, stable=True)
        fits = rank < oldest.shape[1]
        slot = oldest[fits].gather(1, rank[fits, None]).squeeze(1)
        self._put(labels[fits], slot, ids[fits], student[fits], teacher[fits])
        self.writes += 1

    def _put(self, labels: Tensor, slot: Tensor, ids: Tensor, student: Tensor, teacher: Tensor) -> None:
        self.student[labels, slot] = student.to(self.student.dtype)
        self.teacher[labels, slot] = teacher.to(self.teacher.dtype)
        self.image[labels, slot] = ids
        self.written[labels, slot] = self.writes


def batch_candidates(labels: Tensor, ids: Tensor, student: Tensor, teacher: Tensor) -> Candidates:
    """The batch as its own bank: every other image of the same person (for the ablation)."""
    usable = (labels[:, None] == labels[None]) & (ids[:, None] != ids[None])
    n = len(labels)
    return student.detach().expand(n, -1, -1), teacher.detach().expand(n, -1, -1), usable


class ICDFace(nn.Module):
    """Options: `fcd`, `sdc` weigh the terms; `slots` per person; `start` = progress from which SDC counts; `step`, `gamma` of
    the histogram; `pairs` = "bank" or "batch"; `max_age` = writes (training steps) for which a slot stays usable.

    The attribute `pairs` tells how many pairs the last call used. The bank is read before the batch is written to it.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"embedding"})

    def __init__(
        self,
        shapes: Shapes,
        *,
        fcd: float,
        sdc: float,
        slots: int,
        start: float,
        step: float,
        gamma: float,
        pairs: str,
        max_age: int,
    ) -> None:
        super().__init__()
        self.fcd, self.sdc, self.start, self.step, self.gamma = fcd, sdc, start, step, gamma
        self.project = embedding_projector(shapes) if fcd else nn.Identity()
        banked = one_of("pairs", pairs, ("bank", "batch")) == "bank" and sdc
        self.bank = Bank(shapes, slots, max_age) if banked else None
        self.pairs = 0

    def forward(
        self, student: Features, student_logits: Tensor, targets: Targets, labels: Tensor, progress: float
    ) -> dict[str, Tensor]:
        terms = {}
        if self.fcd:
            projected = self.project(student.embedding)
            terms["fcd"] = self.fcd * 0.5 * feature_distillation(projected, targets.embedding)
        if self.sdc:
            known = labels >= 0  # a person with one photograph has no second one to be similar to
            own, other = unit(student.embedding)[known], unit(targets.embedding.detach())[known]
            labels, ids = labels[known], targets.ids[known]
            if self.bank is None:
                student_bank, teacher_bank, usable = batch_candidates(labels, ids, own, other)
            else:
                student_bank, teacher_bank, usable = self.bank.candidates(labels, ids)
            student_cosines = (own[:, None] * student_bank).sum(-1)[usable]
            teacher_cosines = (other[:, None] * teacher_bank).sum(-1)[usable]
            self.pairs = student_cosines.numel()
            weight = self.sdc if progress >= self.start else 0.0
            terms["sdc"] = weight * similarity_distribution_consistency(
                student_cosines, teacher_cosines, self.step, self.gamma
            )
            if self.bank is not None and self.training:
                self.bank.write(labels, ids, own, other)
        return terms
