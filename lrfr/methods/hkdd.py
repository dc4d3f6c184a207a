"""HKDD: hierarchical feature distillation and decoupled knowledge distillation for low-resolution faces.

Idea. The student's intermediate features on a low-resolution face are pulled, stage by stage, to the teacher's on the
high-resolution face; and the soft-target loss is split into the part about the true class and the part about all others,
so that a confident teacher no longer silences what it knows about the others.

Known from the paper's abstract: the two ingredients, "hierarchical" features and the target/non-target split (TCKD/NCKD).
Known from a third party, the released code of decoupled KD (DKD, CVPR 2022): the formulas below, alpha = 1, beta = 8, T = 4
as its CIFAR-100 setting, and that the term is ramped in.
Not known, so our choice: the stages (all), the distance (cosine, which F-SKD reports to converge better than L_p across
resolutions), the projectors, weights, temperature. Grouped KD (AAAI 2023) finds that the near-zero tail of the teacher's
prediction hurts face recognition, so a larger beta need not help: it is an ablation arm.

With p = softmax(z / T), target y, b = (p_y, 1 - p_y) and q_c = p_c / (1 - p_y) for c != y, per sample
    TCKD = sum_k b_k^t log(b_k^t / b_k^s)        NCKD = sum_{c != y} q_c^t log(q_c^t / q_c^s)
    KL(p^t || p^s) = TCKD + (1 - p_y^t) NCKD     (what decoupling removes is the factor 1 - p_y^t)
    L_dkd = T^2 mean_i [alpha TCKD_i + beta NCKD_i]
    L_hfd = mean_l mean_i [1 - cos(vec g_l(F_i^{s,l}), vec F_i^{t,l})],   g_l = 1x1 convolution and batch norm
    L = L_face + hfd L_hfd + dkd w(progress) L_dkd,   w rising linearly from 0 to 1 over the warm-up
g_l is the identity where student and teacher have the same number of channels. It sits on the student's side: a learnable
map of the teacher's features could shrink both to a constant.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from lrfr.methods.baselines import soft_targets
from lrfr.methods.common import entries, one_of, ramp
from lrfr.models.features import Features, Shapes, Targets
from lrfr.models.heads import cosine_to


def log_split(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """log b (B, 2) = log(p_y, 1 - p_y) and log q (B, C-1), the other classes renormalised; logits (B, C), C >= 2.

    Everything stays in log space: softmax, sum, log would give log 0 for a certain teacher in float32.
    """
    classes = logits.shape[1]
    columns = torch.arange(classes - 1, device=logits.device)
    columns = columns + (columns >= labels.unsqueeze(1))  # every class but the row's own
    others = logits.gather(1, columns)
    total = logits.logsumexp(1, keepdim=True)
    rest = others.logsumexp(1, keepdim=True)
    return torch.cat([logits.gather(1, labels.unsqueeze(1)), rest], 1) - total, others - rest


def decoupled_terms(
    student_logits: Tensor, teacher_logits: Tensor, labels: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """TCKD and NCKD per sample, (B,) each and >= 0, without the factor T^2; logits (B, C), labels int64 (B,)."""
    student = log_split(student_logits / temperature, labels)
    teacher = log_split(teacher_logits.detach() / temperature, labels)
    target, others = ((t.exp() * (t - s)).sum(1) for s, t in zip(student, teacher, strict=True))
    return target, others


def decoupled_kd(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    temperature: float = 4.0,
    alpha: float = 1.0,
    beta: float = 8.0,
) -> Tensor:
    """T^2 mean(alpha TCKD + beta NCKD), a scalar: logits without margin (B, C), labels int64 (B,)."""
    target, others = decoupled_terms(student_logits, teacher_logits, labels, temperature)
    return temperature**2 * (alpha * target + beta * others).sum() / max(len(labels), 1)


def hierarchical_cosine(student_maps: Sequence[Tensor], teacher_maps: Sequence[Tensor]) -> Tensor:
    """Mean over levels and batch of 1 - cosine of flattened maps, a scalar in [0, 2].

    Both sequences hold float (B, C_l, H_l, W_l), shallow to deep, of equal shapes per level (ValueError otherwise).
    """
    levels = []
    for student, teacher in zip(student_maps, teacher_maps, strict=True):
        if student.shape != teacher.shape:
            raise ValueError(f"maps differ in shape: {tuple(student.shape)} and {tuple(teacher.shape)}")
        levels.append(1 - cosine_to(entries(teacher), entries(student)).mean())
    return torch.stack(levels).mean()


def projector(student: int, teacher: int) -> nn.Module:
    """g_l: identity for equal channel counts, else a 1x1 convolution (no bias, the norm has one) and batch norm."""
    if student == teacher:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(student, teacher, kernel_size=1, bias=False), nn.BatchNorm2d(teacher))


class HKDD(nn.Module):
    """Options: `hfd` and `dkd` weigh the terms; `temperature`, `alpha`, `beta` as above; `warmup` is the fraction of training
    over which the logit term is ramped in; `logits` is "dkd", or "kd" for undivided soft targets (an ablation)."""

    needs: ClassVar[frozenset[str]] = frozenset({"maps", "logits"})

    def __init__(
        self,
        shapes: Shapes,
        *,
        hfd: float,
        dkd: float,
        temperature: float,
        alpha: float,
        beta: float,
        warmup: float,
        logits: str,
    ) -> None:
        super().__init__()
        self.hfd, self.dkd, self.warmup = hfd, dkd, warmup
        self.temperature, self.alpha, self.beta = temperature, alpha, beta
        self.logits = one_of("logits", logits, ("dkd", "kd"))
        channels = zip(shapes.student_maps, shapes.teacher_maps, strict=True)
        self.projectors = nn.ModuleList(projector(s, t) for (s, _), (t, _) in channels) if hfd else nn.ModuleList()

    def forward(
        self, student: Features, student_logits: Tensor, targets: Targets, labels: Tensor, progress: float
    ) -> dict[str, Tensor]:
        terms = {}
        if self.hfd:
            maps = [project(features) for project, features in zip(self.projectors, student.maps, strict=True)]
            terms["hfd"] = self.hfd * hierarchical_cosine(maps, targets.maps)
        if self.dkd:
            weight = self.dkd * ramp(progress, self.warmup)
            if self.logits == "kd":
                terms["kd"] = weight * soft_targets(student_logits, targets.logits, self.temperature)
            else:
                known = labels >= 0  # without a target class there is nothing to divide
                rows = student_logits[known], targets.logits[known], labels[known]
                terms["dkd"] = weight * decoupled_kd(*rows, self.temperature, self.alpha, self.beta)
        return terms
