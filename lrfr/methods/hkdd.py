"""HKDD: hierarchical feature distillation and decoupled knowledge distillation for low-resolution faces.

Idea. The student's intermediate features on a low-resolution face are pulled, stage by stage, to the teacher's on the
high-resolution face; and the soft-target loss is split into the part about the true class and the part about all
others, so that a confident teacher no longer silences what it knows about the others.
Known from the paper's abstract: "hierarchical" features, and the target/non-target split (TCKD/NCKD).
From a third party, the released code of decoupled KD (DKD, CVPR 2022): its formulas, alpha = 1, beta = 8 and T = 4 as
its CIFAR-100 setting, and that the term is ramped in.
Not known, so our choice: the stages (all), the distance (cosine, which F-SKD reports to converge better than L_p across
resolutions), the projectors, weights, temperature. Grouped KD (AAAI 2023) finds that the near-zero tail of the
teacher's prediction hurts face recognition, so a larger beta need not help: it is an ablation arm.

    L = L_face + hfd L_hfd + dkd w(progress) L_dkd,   w rising linearly from 0 to 1 over the warm-up
    KL(p^t || p^s) = TCKD + (1 - p_y^t) NCKD          (what decoupling removes is the factor 1 - p_y^t)
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from lrfr.methods.baselines import cosine_distance, soft_targets
from lrfr.methods.common import Factor, Fraction, Temperature, Weight, entries, no_logs, ramp
from lrfr.models.features import Features, Shapes, Targets, given


def log_split(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """log b (B, 2) and log q (B, C-1) of logits (B, C), C >= 2: is it the class y, and if not, which one is it?

    Everything stays in log space: softmax, sum, log would give log 0 for a certain teacher in float32.

    >>> log_b, log_q = log_split(torch.tensor([[0.6, 0.3, 0.1]]).log(), torch.tensor([0]))
    >>> log_b.exp(), log_q.exp()
    (tensor([[0.6000, 0.4000]]), tensor([[0.7500, 0.2500]]))
    """
    y, columns = labels.unsqueeze(1), torch.arange(logits.shape[1] - 1, device=logits.device)
    z_others = logits.gather(1, columns + (columns >= y))  # z_c for c != y, (B, C-1)
    log_sum, log_others = logits.logsumexp(1, keepdim=True), z_others.logsumexp(1, keepdim=True)
    log_b = torch.cat([logits.gather(1, y), log_others], 1) - log_sum  # b = (p_y, 1 - p_y), (B, 2)
    log_q = z_others - log_others  # q_c = p_c / (1 - p_y) for c != y, (B, C-1)
    return log_b, log_q


def decoupled_terms(
    student_logits: Tensor, teacher_logits: Tensor, labels: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """TCKD and NCKD per sample, (B,) each and >= 0, without the factor T^2; logits (B, C), labels int64 (B,).

    >>> teacher, student = torch.tensor([[0.6, 0.3, 0.1], [0.98, 0.015, 0.005]]).log(), torch.zeros(2, 3)
    >>> decoupled_terms(student, teacher, torch.tensor([0, 0]), temperature=1.0)  # NCKD: a sure teacher teaches as much
    (tensor([0.1483, 0.9867]), tensor([0.1308, 0.1308]))
    """
    log_b_s, log_q_s = log_split(student_logits / temperature, labels)
    log_b_t, log_q_t = log_split(teacher_logits.detach() / temperature, labels)
    tckd = (log_b_t.exp() * (log_b_t - log_b_s)).sum(1)  # TCKD = sum_k b_k^t log(b_k^t / b_k^s), (B,)
    nckd = (log_q_t.exp() * (log_q_t - log_q_s)).sum(1)  # NCKD = sum_{c != y} q_c^t log(q_c^t / q_c^s), (B,)
    return tckd, nckd


def decoupled_kd(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    temperature: float = 4.0,
    alpha: float = 1.0,
    beta: float = 8.0,
) -> Tensor:
    """L_dkd, a scalar >= 0: logits without margin (B, C), labels int64 (B,)."""
    tckd, nckd = decoupled_terms(student_logits, teacher_logits, labels, temperature)
    summed = (alpha * tckd + beta * nckd).sum()
    return temperature**2 * summed / max(len(labels), 1)  # L_dkd = T^2 mean_i [alpha TCKD_i + beta NCKD_i]


def hierarchical_cosine(student_maps: Sequence[Tensor], teacher_maps: Sequence[Tensor]) -> Tensor:
    """L_hfd: mean over levels and batch of 1 - cosine of flattened maps, a scalar in [0, 2].

    Both sequences hold float (B, C_l, H_l, W_l), shallow to deep, of equal shapes per level (ValueError otherwise).

    >>> north, east = torch.tensor([1.0, 0.0]).reshape(1, 2, 1, 1), torch.tensor([0.0, 1.0]).reshape(1, 2, 1, 1)
    >>> hierarchical_cosine([north, north], [5 * north, east])  # the first level agrees, whatever its strength
    tensor(0.5000)
    """
    levels = []
    for f_s, f_t in zip(student_maps, teacher_maps, strict=True):
        if f_s.shape != f_t.shape:
            raise ValueError(f"maps differ in shape: {tuple(f_s.shape)} and {tuple(f_t.shape)}")
        levels.append(cosine_distance(entries(f_s), entries(f_t)))  # mean_i [1 - cos(vec F_i^s, vec F_i^t)]
    return torch.stack(levels).mean()  # L_hfd = mean_l of them


class HKDD(nn.Module):
    """Options: `hfd` and `dkd` weigh the terms; `temperature`, `alpha`, `beta` as above; `warmup` is the fraction of
    training over which the logit term is ramped in; `logits` is "dkd", or "kd" for whole soft targets (an ablation).
    """

    needs, matches_embeddings, logs = frozenset({"maps", "logits"}), False, no_logs

    def __init__(
        self,
        shapes: Shapes,
        *,
        hfd: Weight,
        dkd: Weight,
        temperature: Temperature,
        alpha: Factor,
        beta: Factor,
        warmup: Fraction,
        logits: Literal["dkd", "kd"],
    ) -> None:
        super().__init__()
        self.hfd, self.dkd, self.warmup, self.logits = hfd, dkd, warmup, logits
        self.temperature, self.alpha, self.beta = temperature, alpha, beta
        channels = zip(shapes.student_maps, shapes.teacher_maps, strict=True)
        # on the student's side: a learnable map of the teacher's features could shrink both to a constant
        self.projectors = nn.ModuleList(  # g_l, only where the numbers of channels differ; no bias, the norm has one
            nn.Identity() if s == t else nn.Sequential(nn.Conv2d(s, t, kernel_size=1, bias=False), nn.BatchNorm2d(t))
            for (s, _), (t, _) in (channels if hfd else ())
        )

    def forward(self, student: Features, student_logits: Tensor, targets: Targets, labels: Tensor, progress: float):
        terms = {}
        if self.hfd:
            maps = [g_l(f_s) for g_l, f_s in zip(self.projectors, student.maps, strict=True)]
            terms["hfd"] = self.hfd * hierarchical_cosine(maps, given(targets.maps))
        if self.dkd:
            weight = self.dkd * ramp(progress, self.warmup)
            if self.logits == "kd":
                terms["kd"] = weight * soft_targets(student_logits, given(targets.logits), self.temperature)
            else:
                known = labels >= 0  # without a target class there is nothing to divide
                rows = student_logits[known], given(targets.logits)[known], labels[known]
                terms["dkd"] = weight * decoupled_kd(*rows, self.temperature, self.alpha, self.beta)
        return terms
