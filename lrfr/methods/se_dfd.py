"""SE-DFD: deep feature distillation with squeeze-and-excitation blocks in teacher and student (Wei et al. 2019).

Idea. A large pre-trained teacher guides a small student by regressing the deep feature (the embedding); channel attention
(SE blocks) is added to *both* networks; a new face loss is proposed.

Known from the abstract: feature distillation, a "new face loss" without formula, SE on both sides, a 3.22M student with
99.66 % on LFW and a teacher four times as large.
Not known, so our choice: regressing unit vectors (norms are arbitrary and differ between networks), summing over dimensions
and averaging over the batch; the face loss is ArcFace and stands in for the published one, which is **not reproduced**.
The SE blocks belong to the networks (`student: se`, `teacher: se` in the model's block), so this file holds only the loss:
    L = L_face + dfd (1/B) sum_i || f_i^s/|f_i^s| - f_i^t/|f_i^t| ||^2
which equals twice the cosine distance. If the dimensions differ, a linear map P of the student's embedding is trained along.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from lrfr.methods.common import embedding_projector
from lrfr.models.features import Features, Shapes, Targets
from lrfr.models.heads import unit


def feature_distillation(student: Tensor, teacher: Tensor) -> Tensor:
    """Batch mean of the squared distance between unit vectors, a scalar in [0, 4]: (B, D) both, of any norm."""
    return (unit(student) - unit(teacher.detach())).square().sum(-1).mean()


class SEDFD(nn.Module):
    """Option: `dfd`, the weight of the feature distillation."""

    needs: ClassVar[frozenset[str]] = frozenset({"embedding"})

    def __init__(self, shapes: Shapes, *, dfd: float) -> None:
        super().__init__()
        self.dfd = dfd
        self.project = embedding_projector(shapes)

    def forward(
        self, student: Features, student_logits: Tensor, targets: Targets, labels: Tensor, progress: float
    ) -> dict[str, Tensor]:
        if not self.dfd:
            return {}
        return {"dfd": self.dfd * feature_distillation(self.project(student.embedding), targets.embedding)}
