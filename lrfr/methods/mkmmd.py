"""MK-MMD: improved knowledge distillation for fast low-resolution face recognition (Wang et al., ICCV Workshops 2019).

Idea. The usual scheme first fine-tunes the teacher on low-resolution faces. Here the teacher and its high-resolution training
set stay untouched and only the student is trained, on low-resolution views. Since the two now see different distributions,
the distance between the distributions of their outputs is penalised.

Known from the abstract: frozen teacher, low-resolution student, multi-kernel maximum mean discrepancy (MMD) between outputs.
From a third party (a public re-implementation): three terms, hard labels, soft labels with both sides softened (T = 2), and
a feature term at the last layer. The five bandwidths are those of the Transfer-Learning-Library.
Not known, so our choice: embeddings as "outputs", L2-normalised; the factor T^2; the biased estimate as the loss because it
is smooth, not negative, and zero if and only if the two sets are equal; weights.

With K = (1/U) sum_u exp(-|a - b|^2 / (2 * 2^u sigma^2)), u = -3 ... 1, over the teacher's t_i and the student's u_i
    MMD^2 = mean_ij K(t_i, t_j) + mean_ij K(u_i, u_j) - 2 mean_ij K(t_i, u_j)                   ("biased")
    the same with i != j in all three means                                                     ("paired")
    L = L_face + soft T^2 KL(p^t || p^s) + mmd MMD^2
sigma^2 is the mean squared distance of two different points of the pooled set; no gradient passes through it, or the network
would learn to inflate distances. The textbook unbiased estimate keeps i = j in the cross term only; t_i and u_i come from the
same face, so it would be biased here, hence "paired".
MMD is blind to who is who: permuting the student's rows changes nothing. It aligns clouds, not identities.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from lrfr.methods.baselines import soft_targets
from lrfr.methods.common import embedding_projector
from lrfr.models.features import Features, Shapes, Targets
from lrfr.models.heads import unit

SMALLEST_VARIANCE = 1e-12  # our choice: if all points coincide, every kernel value is 1 and the discrepancy 0


def mk_mmd(
    x: Tensor, y: Tensor, log2_bandwidths: Sequence[float] = (-3, -2, -1, 0, 1), estimator: str = "biased"
) -> Tensor:
    """Squared MMD between two sets of n points, (n, D) both and used as given; a scalar, "biased" >= 0 up to rounding.

    log2_bandwidths: the u above; the kernels weigh the same. estimator: "biased" or "paired" (row i of x belongs to row i of
    y; zero for n = 1). Raises ValueError for sets of different shape or an unknown estimator.
    The root is never taken: its gradient is infinite at zero.
    """
    if x.shape != y.shape:
        raise ValueError(f"the sets differ in shape: {tuple(x.shape)} and {tuple(y.shape)}")
    if estimator not in ("biased", "paired"):
        raise ValueError(f"estimator {estimator!r} is neither 'biased' nor 'paired'")
    n = len(x)
    with torch.autocast(x.device.type, enabled=False):  # distances are differences of near-equal numbers
        points = torch.cat([x, y])
        points = points.float() if points.dtype in (torch.float16, torch.bfloat16) else points
        points = points - points.detach().mean(0)  # distances stay, rounding shrinks
        norms = points.square().sum(1)
        squared = (norms[:, None] + norms[None] - 2 * points @ points.T).clamp_min(0)
        apart = ~torch.eye(2 * n, dtype=torch.bool, device=x.device)
        variance = squared.detach()[apart].mean().clamp_min(SMALLEST_VARIANCE)
        kernel = torch.stack([torch.exp(-squared / (2 * 2.0**u * variance)) for u in log2_bandwidths]).mean(0)
    blocks = kernel[:n, :n] + kernel[n:, n:] - kernel[:n, n:] - kernel[n:, :n]
    if estimator == "biased":
        return blocks.mean()
    return blocks[apart[:n, :n]].sum() / max(n * (n - 1), 1)


class MKMMD(nn.Module):
    """Options: `soft` and `mmd` weigh the terms; `temperature` of the soft labels; `log2_bandwidths` of the kernels."""

    needs: ClassVar[frozenset[str]] = frozenset({"embedding", "logits"})

    def __init__(
        self, shapes: Shapes, *, soft: float, temperature: float, mmd: float, log2_bandwidths: Sequence[float]
    ) -> None:
        super().__init__()
        self.soft, self.temperature, self.mmd = soft, temperature, mmd
        self.log2_bandwidths = tuple(log2_bandwidths)
        self.project = embedding_projector(shapes) if mmd else nn.Identity()

    def forward(
        self, student: Features, student_logits: Tensor, targets: Targets, labels: Tensor, progress: float
    ) -> dict[str, Tensor]:
        terms = {}
        if self.soft:
            terms["soft"] = self.soft * soft_targets(student_logits, targets.logits, self.temperature)
        if self.mmd:
            own, other = unit(self.project(student.embedding)), unit(targets.embedding.detach())
            terms["mmd"] = self.mmd * mk_mmd(other, own, self.log2_bandwidths)
        return terms
