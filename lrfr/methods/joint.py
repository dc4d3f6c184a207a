"""Joint distillation: soft targets, embedding regression and the non-target part, each where the others are silent.

From no paper: our own sixth method, put together from what the ablations of the five said. No formula is new.

Idea. What does each term pull on? Write p for softmax(z / T), q for p without the right class y, made to sum to 1, and
z_c = s cos(f, W_c) for the student's logits.
  soft     d(T^2 KL) / dz_c = T (p_c^s - p_c^t): all logits, but those of the other classes in proportion to 1 - p_y^t,
           since KL = TCKD + (1 - p_y^t) NCKD. The surer the teacher, the less is heard of whom a face also resembles.
  nckd     d(T^2 NCKD) / dz_c = T (q_c^s - q_c^t) for c != y, and 0 for z_y: only the others, whatever the teacher's
           confidence. So both together are one loss: soft TCKD + [soft (1 - p_y^t) + nckd] NCKD, soft targets whose
           non-target part has a floor. Beyond y it never contradicts them: q^s = q^t is a minimum of both.
  feature  Both reach the embedding f through dz_c / df alone, so they see f only along the class weights W, which are
           the training people, and say nothing of a row that is no class. 1 - cos pulls in every direction of f, and
           also on such rows: it is what ranks people nobody trained on.
All three are 0 for a student that agrees with the teacher, in embeddings and class weights alike. TCKD has no weight of
its own: the face loss sees to the right class. Weights, the one temperature and that nothing is ramped: our choice.

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
            terms["soft"] = self.soft * soft_targets(student_logits, logits, T)  # T^2 KL(p^t || p^s)
        if self.nckd:
            known = labels >= 0  # without a class there are no others
            rows = student_logits[known], logits[known], labels[known]
            terms["nckd"] = self.nckd * decoupled_kd(*rows, T, alpha=0.0, beta=1.0)  # T^2 NCKD
        if self.feature:
            f_s = self.project(student.embedding)
            terms["feature"] = self.feature * cosine_distance(f_s, given(targets.embedding))  # 1 - cos(f^s, f^t)
        return terms
