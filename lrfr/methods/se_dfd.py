"""SE-DFD: deep feature distillation with squeeze-and-excitation blocks in teacher and student (Wei et al. 2019).

Idea. A large pre-trained teacher guides a small student by regressing the deep feature (the embedding); channel
attention (SE blocks) is added to *both* networks; a new face loss is proposed.
Known from the abstract: feature distillation, a "new face loss" without formula, SE on both sides, a 3.22M student with
99.66 % on LFW and a teacher four times as large.
Not known, so our choice: regressing unit vectors (norms are arbitrary and differ between networks), summing over
dimensions and averaging over the batch; the face loss is ArcFace and stands in for the published one, which is **not
reproduced**. The SE blocks belong to the networks (`student: se`, `teacher: se`), so this file holds only the loss:
    L = L_face + dfd L_dfd          L_dfd is twice the cosine distance.
"""

from torch import Tensor, nn

from lrfr.methods.common import Weight, embedding_projector, no_logs
from lrfr.models.features import Features, Shapes, Targets, given
from lrfr.models.heads import unit


def feature_distillation(student: Tensor, teacher: Tensor) -> Tensor:
    """L_dfd, a scalar in [0, 4]: embeddings (B, D) both, of any norm.

    >>> import torch
    >>> feature_distillation(torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 0.5]]))  # 2 (1 - cos) at a right angle
    tensor(2.)
    """
    f_s, f_t = unit(student), unit(teacher.detach())  # f / |f|, (B, D)
    return (f_s - f_t).square().sum(-1).mean()  # L_dfd = (1/B) sum_i || f_i^s - f_i^t ||^2


class SEDFD(nn.Module):
    """Option: `dfd`, the weight of the feature distillation. The embeddings are those of a teacher with gates."""

    needs, matches_embeddings, logs = frozenset({"embedding"}), False, no_logs

    def __init__(self, shapes: Shapes, *, dfd: Weight) -> None:
        super().__init__()
        self.dfd = dfd
        self.project = embedding_projector(shapes)

    def forward(self, student: Features, student_logits: Tensor, targets: Targets, labels: Tensor, progress: float):
        f_s = self.project(student.embedding)
        return {"dfd": self.dfd * feature_distillation(f_s, given(targets.embedding))} if self.dfd else {}
