"""MK-MMD: improved knowledge distillation for fast low-resolution face recognition (Wang et al., ICCV Workshops 2019).

Idea. The usual scheme first fine-tunes the teacher on low-resolution faces. Here the teacher and its high-resolution
training set stay untouched and only the student is trained, on low-resolution views. Since the two now see different
distributions, the distance between the distributions of their outputs is penalised.
Known from the abstract: frozen teacher, low-resolution student, multi-kernel maximum mean discrepancy (MMD) of outputs.
From a third party (a public re-implementation): three terms, hard labels, soft labels with both sides softened (T = 2),
and a feature term at the last layer. The five bandwidths are those of the Transfer-Learning-Library.
Not known, so our choice: embeddings as "outputs", L2-normalised; the factor T^2; the biased estimate as the loss
because it is smooth, not negative, and zero if and only if the two sets are equal; weights.

    L = L_face + soft T^2 KL(p^t || p^s) + mmd MMD^2
The textbook unbiased estimate keeps i = j in the cross term only; rows i of teacher and student are the same face, so
it would be biased here. "paired" leaves i = j out of all three means. MMD aligns clouds, not identities: permuting the
student's rows changes nothing.
"""

from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from lrfr.methods.baselines import soft_targets
from lrfr.methods.common import Temperature, Weight, embedding_projector, no_logs
from lrfr.models.features import Features, Shapes, Targets, given
from lrfr.models.heads import unit

Log2s = Annotated[Sequence[Annotated[float, Field(ge=-20, le=20, allow_inf_nan=False)]], Field(min_length=1)]
SMALLEST_VARIANCE = 1e-12  # our choice: if all points coincide, every kernel value is 1 and the discrepancy 0


def mk_mmd(
    x: Tensor, y: Tensor, log2_bandwidths: Sequence[float] = (-3, -2, -1, 0, 1), estimator: str = "biased"
) -> Tensor:
    """Squared MMD between two sets of n points, (n, D) both and used as given; a scalar, "biased" >= 0 up to rounding.

    log2_bandwidths: the u of the kernels, which weigh the same. estimator: "biased" or "paired" (row i of x belongs to
    row i of y; zero for n = 1). Raises ValueError for sets of different shape or an unknown estimator. The root is
    never taken: its gradient is infinite at zero.

    >>> x = torch.tensor([[0.0], [1.0]])
    >>> [abs(round(mk_mmd(x, y).item(), 4)) for y in (x + 2, x.flip(0))]  # shifted; the same set in another order
    [0.916, 0.0]
    """
    if x.shape != y.shape:
        raise ValueError(f"the sets differ in shape: {tuple(x.shape)} and {tuple(y.shape)}")
    if estimator not in ("biased", "paired"):
        raise ValueError(f"estimator {estimator!r} is neither 'biased' nor 'paired'")
    n = len(x)
    with torch.autocast(x.device.type, enabled=False):  # distances are differences of near-equal numbers
        points = torch.cat([x, y])  # (2n, D)
        points = points.float() if points.dtype in (torch.float16, torch.bfloat16) else points
        points = points - points.detach().mean(0)  # distances stay, rounding shrinks
        norms = points.square().sum(1)
        squared = (norms[:, None] + norms[None] - 2 * points @ points.T).clamp_min(0)  # |a - b|^2, (2n, 2n)
        apart = ~torch.eye(2 * n, dtype=torch.bool, device=x.device)
        # sigma^2 = mean_{a != b} |a - b|^2; with a gradient through it, the network would learn to inflate distances
        sigma2 = squared.detach()[apart].mean().clamp_min(SMALLEST_VARIANCE)
        k = [torch.exp(-squared / (2 * 2.0**u * sigma2)) for u in log2_bandwidths]  # exp(-|a - b|^2 / 2 2^u sigma^2)
        K = torch.stack(k).mean(0)  # K = (1/U) sum_u k_u, (2n, 2n)
    h = K[:n, :n] + K[n:, n:] - K[:n, n:] - K[n:, :n]  # K(x_i, x_j) + K(y_i, y_j) - K(x_i, y_j) - K(y_i, x_j), (n, n)
    if estimator == "biased":
        return h.mean()  # MMD^2 = mean_ij K(x_i, x_j) + mean_ij K(y_i, y_j) - 2 mean_ij K(x_i, y_j)
    return h[apart[:n, :n]].sum() / max(n * (n - 1), 1)  # the same with i != j in all three means


class MKMMD(nn.Module):
    """Options: `soft` and `mmd` weigh the terms; `temperature` of the soft labels; `log2_bandwidths` of the kernels."""

    needs, matches_embeddings, logs = frozenset({"embedding", "logits"}), False, no_logs  # it is blind to who is who

    def __init__(self, shapes: Shapes, *, soft: Weight, temperature: Temperature, mmd: Weight, log2_bandwidths: Log2s):
        super().__init__()
        self.soft, self.temperature, self.mmd = soft, temperature, mmd
        self.log2_bandwidths = tuple(log2_bandwidths)
        self.project = embedding_projector(shapes) if mmd else nn.Identity()

    def forward(self, student: Features, student_logits: Tensor, targets: Targets, labels: Tensor, progress: float):
        terms = {}
        if self.soft:
            terms["soft"] = self.soft * soft_targets(student_logits, given(targets.logits), self.temperature)
        if self.mmd:
            f_s, f_t = unit(self.project(student.embedding)), unit(given(targets.embedding).detach())
            terms["mmd"] = self.mmd * mk_mmd(f_t, f_s, self.log2_bandwidths)
        return terms
