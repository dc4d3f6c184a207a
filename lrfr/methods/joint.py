"""Joint distillation: soft targets, their non-target part, and embedding regression, each where the others are silent.

From no paper: our own sixth method, of what the five's ablations left standing. No formula is new. Where each term
acts, with p = softmax(z / T), q = p without the right class y made to sum to 1, z_c = s cos(f, W_c) of the student:
  soft     d(T^2 KL) / dz_c = T (p_c^s - p_c^t). Since KL = TCKD + (1 - p_y^t) NCKD, a sure teacher hardly says whom
           else a face resembles.
  nckd     d(T^2 NCKD) / dz_c = T (q_c^s - q_c^t) for c != y, 0 for z_y: only that, however sure the teacher. Both are
           one loss, soft TCKD + [soft (1 - p_y^t) + nckd] NCKD: soft targets whose non-target part has a floor.
  feature  Both reach f through dz_c / df, so along the class weights alone, which are the training people, and NCKD
           needs a class. 1 - cos pulls in every direction of f and on every row: for people nobody trained on.
TCKD has no weight of its own (the face loss sees to y). Weights, one temperature and no ramp: our choice.

    L = L_face + soft T^2 KL(p^t || p^s) + nckd T^2 NCKD + feature (1 - cos)
"""

from torch import Tensor, nn

from lrfr.methods.baselines import cosine_distance, soft_targets
from lrfr.methods.common import Temperature, Weight, embedding_projector, no_logs
from lrfr.methods.hkdd import decoupled_kd
from lrfr.models.features import Features, Shapes, Targets, given


class Joint(nn.Module):
    """Options: `soft`, `nckd` and `feature` weigh the terms; `temperature` of both terms about logits."""

    needs, matches_embeddings, logs = frozenset({"embedding", "logits"}), True, no_logs

    def __init__(self, shapes: Shapes, *, soft: Weight, nckd: Weight, temperature: Temperature, feature: Weight):
        super().__init__()
        self.soft, self.nckd, self.temperature, self.feature = soft, nckd, temperature, feature
        self.project = embedding_projector(shapes) if feature else nn.Identity()

    def forward(self, student: Features, student_logits: Tensor, targets: Targets, labels: Tensor, progress: float):
        terms, logits, T = {}, given(targets.logits), self.temperature
        if self.soft:
            terms["soft"] = self.soft * soft_targets(student_logits, logits, T)
        if self.nckd:
            known = labels >= 0  # without a class there are no others
            rows = student_logits[known], logits[known], labels[known]
            terms["nckd"] = self.nckd * decoupled_kd(*rows, T, alpha=0.0, beta=1.0)  # T^2 NCKD
        if self.feature:
            f_s, f_t = self.project(student.embedding), given(targets.embedding)
            terms["feature"] = self.feature * cosine_distance(f_s, f_t)
        return terms
