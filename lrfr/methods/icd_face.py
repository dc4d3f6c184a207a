"""ICD-Face: intra-class compactness distillation (ICCV 2023).

Idea. Pulling every student embedding to its teacher's (feature consistency, FCD) still leaves two faces of one person
less similar under the student than under the teacher. So the *distribution* of these intra-class similarities is
matched too (similarity-distribution consistency, SDC). One batch holds few pairs of a person; feature banks hold many.
Known from the abstract: L2 feature consistency, feature banks, KL between the two similarity distributions.
From a third party (a public adaptation citing the paper's Algorithm 1): paired per-class banks, a validity counter and
replacement of the oldest slot, the soft histogram with node step delta and spread gamma, the factor 1/2, SDC switched
on late. DDL's released code (ECCV 2020) has the same histogram and KL(teacher || student).
Not known, so our choice: log space throughout (clamped histograms lose their gradient when the distributions lie
apart), step .01, the weights, the number of slots. The batch's own pairs count beside the bank's, as a third party's
note says (of an image in both, its embedding of now and of then). The bank stores the image behind each slot, and a
pair of an image with itself, mirrored or not, never counts: such a pair is a spike at 1 in both histograms.

    L = L_face + fcd L_fcd + sdc [progress >= start] L_sdc          L_sdc, like MMD, is blind to which pair is which.
"""

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from lrfr.methods.common import Count, Fraction, Weight, embedding_projector
from lrfr.methods.se_dfd import feature_distillation
from lrfr.models.features import Features, Shapes, Targets, given
from lrfr.models.heads import unit

Step = Annotated[float, Field(ge=0.0001, le=0.5, allow_inf_nan=False)]
Gamma = Annotated[float, Field(ge=0.1, le=100_000, allow_inf_nan=False)]
Candidates = tuple[Tensor, Tensor, Tensor]  # student (B, K, D_s), teacher (B, K, D_t), usable: bool (B, K)


def log_histogram(similarities: Tensor, step: float, gamma: float) -> Tensor:
    """log p, the soft histogram of similarities (N,), N >= 1, over the nodes -1, -1 + step, ... 1; sums to 1 after exp.

    >>> p = log_histogram(torch.tensor([0.0, 0.2]), step=0.5, gamma=8.0).exp()  # over -1, -0.5, 0, 0.5, 1
    >>> [round(p_r, 2) for p_r in p.tolist()]
    [0.0, 0.06, 0.69, 0.25, 0.0]
    """
    nodes = step * torch.arange(round(2 / step) + 1, device=similarities.device, dtype=similarities.dtype)
    t = nodes - 1  # t_r = -1 + r delta, (R,)
    squared = (similarities[:, None] - t).square()  # (a_ik - t_r)^2, (N, R)
    log_h = (-gamma * squared).logsumexp(0)  # h_r = sum_ik exp(-gamma (a_ik - t_r)^2), (R,)
    return log_h.log_softmax(0)  # p_r = h_r / sum_r h_r


def similarity_distribution_consistency(
    student_similarities: Tensor, teacher_similarities: Tensor, step: float = 0.01, gamma: float = 50.0
) -> Tensor:
    """L_sdc, a scalar >= 0, between soft histograms of the cosines (N,) of the same pairs in any order, in [-1, 1].

    step: between nodes. gamma: 1 / (2 sigma^2) of the Gaussian that spreads a similarity over them (step should stay
    below sigma / 2). Without pairs the result is 0, with a graph.

    >>> teacher = torch.tensor([0.8, 0.6])
    >>> [round(similarity_distribution_consistency(teacher - gap, teacher).item(), 2) for gap in (0.0, 0.2, 0.4)]
    [0.0, 1.12, 5.23]
    """
    if student_similarities.numel() == 0:
        return student_similarities.sum()
    log_p_s = log_histogram(student_similarities, step, gamma)
    log_p_t = log_histogram(teacher_similarities.detach(), step, gamma)
    return (log_p_t.exp() * (log_p_t - log_p_s)).sum()  # L_sdc = KL(p^t || p^s) = sum_r p_r^t log(p_r^t / p_r^s)


class Bank(nn.Module):
    """Unit embeddings of recent images, `slots` a person, the same slot for teacher and student; saved with the state.

    image: the image in a slot, -1 if empty. written: the write that filled it. writes: number of writes so far.
    """

    def __init__(self, shapes: Shapes, slots: int, max_age: int) -> None:
        super().__init__()
        self.max_age = max_age
        self.student = nn.Buffer(torch.zeros(shapes.classes, slots, shapes.student_embedding))
        self.teacher = nn.Buffer(torch.zeros(shapes.classes, slots, shapes.teacher_embedding))
        self.image = nn.Buffer(torch.full((shapes.classes, slots), -1))
        self.written = nn.Buffer(torch.full((shapes.classes, slots), -1))
        self.writes = nn.Buffer(torch.zeros((), dtype=torch.int64))

    def candidates(self, labels: Tensor, ids: Tensor) -> Candidates:
        """The slots of each row's person; usable are filled ones, at most `max_age` writes old, of another image."""
        image = self.image[labels]
        fresh = self.writes - self.written[labels] <= self.max_age
        return self.student[labels], self.teacher[labels], (image >= 0) & fresh & (image != ids[:, None])

    @torch.no_grad()
    def write(self, labels: Tensor, ids: Tensor, student: Tensor, teacher: Tensor) -> None:
        """Store a batch. An image goes to its own slot if it has one, else to the person's oldest (empty ones first).

        Of an image that occurs twice the last row is kept. New images of a person beyond the slots are dropped.
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
        self.writes.add_(1)

    def _put(self, labels: Tensor, slot: Tensor, ids: Tensor, student: Tensor, teacher: Tensor) -> None:
        self.student[labels, slot] = student.to(self.student.dtype)
        self.teacher[labels, slot] = teacher.to(self.teacher.dtype)
        self.image[labels, slot] = ids
        self.written[labels, slot] = self.writes


def batch_candidates(labels: Tensor, ids: Tensor, student: Tensor, teacher: Tensor) -> Candidates:
    """The batch as its own bank: every other image of the same person."""
    usable = (labels[:, None] == labels[None]) & (ids[:, None] != ids[None])
    n = len(labels)
    return student.detach().expand(n, -1, -1), teacher.detach().expand(n, -1, -1), usable


class ICDFace(nn.Module):
    """Options: `fcd`, `sdc` weigh the terms; `slots` per person; `start` = progress from which SDC counts; `step` and
    `gamma` of the histogram; `pairs` = "both", or "bank" or "batch" alone (ablations); `max_age` = writes (training
    steps) a slot stays usable: an epoch's, so that each image is met once, or more on a small set.

    Logs `pairs`, how many were used: of too few, histograms mean nothing. A batch is written after the bank was read.
    """

    needs, matches_embeddings = frozenset({"embedding"}), True

    def __init__(
        self,
        shapes: Shapes,
        *,
        fcd: Weight,
        sdc: Weight,
        slots: Count,
        start: Fraction,
        step: Step,
        gamma: Gamma,
        pairs: Literal["both", "bank", "batch"],
        max_age: Count,
    ) -> None:
        super().__init__()
        self.fcd, self.sdc, self.start, self.step, self.gamma = fcd, sdc, start, step, gamma
        self.project = embedding_projector(shapes) if fcd else nn.Identity()
        self.bank = Bank(shapes, slots, max_age) if pairs != "batch" and sdc else None
        self.within, self.pairs = pairs != "bank", 0  # do the batch's own pairs count; how many there were

    def forward(self, student: Features, student_logits: Tensor, targets: Targets, labels: Tensor, progress: float):
        terms = {}
        if self.fcd:
            f_s = self.project(student.embedding)
            terms["fcd"] = self.fcd * 0.5 * feature_distillation(f_s, given(targets.embedding))  # L_fcd = L_dfd / 2
        if self.sdc:
            known = labels >= 0  # a person with one photograph has no second one to be similar to
            f_s, f_t = unit(student.embedding)[known], unit(given(targets.embedding).detach())[known]
            labels, ids = labels[known], targets.ids[known]
            found = [self.bank.candidates(labels, ids)] if self.bank is not None else []
            found += [batch_candidates(labels, ids, f_s, f_t)] if self.within else []
            # a_ik = <f_i, M_{y_i k}>, (N,): M_{y_i k}, slot k of row i's person, (B, K, D), has no gradient
            a_s = torch.cat([(f_s[:, None] * m_s).sum(-1)[usable] for m_s, _, usable in found])
            a_t = torch.cat([(f_t[:, None] * m_t).sum(-1)[usable] for _, m_t, usable in found])
            self.pairs = a_s.numel()
            weight = self.sdc if progress >= self.start else 0.0
            terms["sdc"] = weight * similarity_distribution_consistency(a_s, a_t, self.step, self.gamma)
            if self.bank is not None and self.training:
                self.bank.write(labels, ids, f_s, f_t)
        return terms

    def logs(self) -> dict[str, float]:
        return {"pairs": self.pairs}
