"""What the five papers are compared with: no teacher, and five classic ways of using one.

`scratch` has no term: the face loss on low-resolution views does everything.
`kd`      Hinton et al. 2015: match softened class probabilities.
`feature` the plainest embedding distillation, by the cosine.
`fitnet`  Romero et al. 2015: regress the teacher's map at one hint level; r is a 1x1 convolution of the student's map.
`at`      Zagoruyko and Komodakis 2017: L2 between normalised attention maps, averaged over stages (the paper sums them;
          averaging keeps the weight independent of depth: our choice).
`rkd`     Park et al. 2019: match relations instead of points, namely distances and the angles that triplets form.
          Embeddings are L2-normalised first (our choice: students are compared as unit vectors). Coinciding rows
          contribute a zero gradient.
"""

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from lrfr.methods.common import Temperature, Weight, attention_map, embedding_projector, no_logs
from lrfr.models.features import Features, Shapes, Targets, given
from lrfr.models.heads import cosine_to, unit

EQUAL = 1e-12  # squared distance of rows that count as equal, relative to their squared lengths: float32's resolution


def soft_targets(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """Hinton's loss, a scalar >= 0: logits (B, C), mean over the batch.

    >>> teacher, student = torch.tensor([[4.0, 0.0]]), torch.tensor([[2.0, 0.0]])
    >>> [round(soft_targets(student, teacher, T).item(), 3) for T in (1, 2, 4)]  # T^2 keeps the size while T varies
    [0.073, 0.269, 0.422]
    """
    log_p_s = (student_logits / temperature).log_softmax(1)  # p = softmax(z / T), (B, C)
    log_p_t = (teacher_logits.detach() / temperature).log_softmax(1)
    return temperature**2 * F.kl_div(log_p_s, log_p_t, reduction="batchmean", log_target=True)  # T^2 KL(p^t || p^s)


def cosine_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean over the batch of 1 - cosine, a scalar in [0, 2]: embeddings (B, D) or maps (B, C, H, W) of equal shape."""
    return 1 - cosine_to(teacher.flatten(1), student.flatten(1)).mean()  # (1/B) sum_i [1 - cos(f_i^s, f_i^t)]


def attention_transfer(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean over batch and positions of the squared difference of L2-normalised maps: (B, 1, H, W) both, a scalar.

    >>> left, right = torch.tensor([[[[1.0, 0.0]]]]), torch.tensor([[[[0.0, 7.0]]]])
    >>> attention_transfer(left, right)  # 2 (1 - cos) / (H W)
    tensor(1.)
    """
    q_s, q_t = unit(student.flatten(1)), unit(teacher.detach().flatten(1))  # q = vec A / |vec A|, (B, H W)
    return (q_s - q_t).square().mean()  # mean (q^s - q^t)^2


def _distances(embedding: Tensor) -> tuple[Tensor, Tensor]:
    """Inner products and Euclidean distances of all rows, float64 (B, B) both.

    In float64 |a|^2 + |b|^2 - 2ab loses nothing that float32 embeddings have, and no array B x B x D is formed. Rows
    that differ by less than a millionth of their length have no direction: distance 0, and no gradient.
    """
    inner = embedding.double() @ embedding.double().T
    lengths = inner.diagonal()
    total = lengths[:, None] + lengths[None]
    squared = total - 2 * inner  # |e_i - e_j|^2 = |e_i|^2 + |e_j|^2 - 2 e_i e_j
    apart = squared > EQUAL * total
    return inner, torch.where(apart, torch.where(apart, squared, 1.0).sqrt(), 0.0)


def relative_distances(embedding: Tensor) -> Tensor:
    """Euclidean distances (B, B), divided by the mean of those that are not zero; all zero if no two rows differ.

    >>> relative_distances(torch.tensor([[0.0], [1.0], [3.0]]))[0]  # 1, 2 and 3 have the mean 2
    tensor([0.0000, 0.5000, 1.5000])
    """
    _, d = _distances(embedding)
    mu = d.sum() / (d > 0).sum().clamp_min(1)
    return (d / torch.where(mu > 0, mu, 1.0)).to(embedding.dtype)  # psi_D = |e_i - e_j| / mu


def angle_cosines(embedding: Tensor) -> Tensor:
    """Cosines (B, B, B) of the angle at row i between the directions to rows j and k; zero where one is missing.

    >>> angle_cosines(torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]]))[0, 1, 2]  # 45 degrees at the first point
    tensor(0.7071)
    """
    inner, d = _distances(embedding)
    inner = inner.to(embedding.dtype)
    # (e_j - e_i) (e_k - e_i) = e_j e_k - e_i e_j - e_i e_k + e_i e_i
    product = inner[None] + (inner.diagonal()[:, None] - inner)[:, :, None] - inner[:, None, :]
    inverse = torch.where(d > 0, torch.where(d > 0, d, 1.0).reciprocal(), 0.0).to(embedding.dtype)
    return product * inverse[:, :, None] * inverse[:, None, :]  # psi_A = product / |e_j - e_i| |e_k - e_i|


def relational_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """RKD-D, mean over all B^2 entries: embeddings (B, D_s), (B, D_t); 0 if one set is an enlarged other."""
    psi_s, psi_t = relative_distances(student), relative_distances(teacher.detach())
    return F.smooth_l1_loss(psi_s, psi_t)  # Huber(psi_D^s, psi_D^t)


def relational_angle(student: Tensor, teacher: Tensor) -> Tensor:
    """RKD-A, mean over all B^3 entries: embeddings (B, D_s), (B, D_t)."""
    return F.smooth_l1_loss(angle_cosines(student), angle_cosines(teacher.detach()))  # Huber(psi_A^s, psi_A^t)


class Scratch(nn.Module):
    """No teacher."""

    needs, matches_embeddings, logs = frozenset[str](), False, no_logs

    def __init__(self, shapes: Shapes) -> None:
        super().__init__()

    def forward(self, student: Features, student_logits: Tensor, targets: Targets, labels: Tensor, progress: float):
        return {}


class KD(nn.Module):
    """Hinton's soft targets on logits without margin."""

    needs, matches_embeddings, logs = frozenset({"logits"}), False, no_logs

    def __init__(self, shapes: Shapes, *, weight: Weight, temperature: Temperature) -> None:
        super().__init__()
        self.weight, self.temperature = weight, temperature

    def forward(self, student: Features, student_logits: Tensor, targets: Targets, labels: Tensor, progress: float):
        logits = given(targets.logits)
        return {"kd": self.weight * soft_targets(student_logits, logits, self.temperature)} if self.weight else {}


class Feature(nn.Module):
    """Cosine distance of embeddings."""

    needs, matches_embeddings, logs = frozenset({"embedding"}), True, no_logs

    def __init__(self, shapes: Shapes, *, weight: Weight) -> None:
        super().__init__()
        self.weight = weight
        self.project = embedding_projector(shapes)

    def forward(self, student: Features, student_logits: Tensor, targets: Targets, labels: Tensor, progress: float):
        f_s, f_t = self.project(student.embedding), given(targets.embedding)
        return {"feature": self.weight * cosine_distance(f_s, f_t)} if self.weight else {}


class FitNet(nn.Module):
    """Regression of one stage's feature map; `stage` counts the student's four from 0, shallow to deep."""

    needs, matches_embeddings, logs = frozenset({"maps"}), False, no_logs

    def __init__(self, shapes: Shapes, *, weight: Weight, stage: Annotated[int, Field(ge=0, le=3)]) -> None:
        super().__init__()
        self.weight, self.stage = weight, stage
        self.regressor = nn.Conv2d(shapes.student_maps[stage][0], shapes.teacher_maps[stage][0], kernel_size=1)

    def forward(self, student: Features, student_logits: Tensor, targets: Targets, labels: Tensor, progress: float):
        hint, f_t = self.regressor(student.maps[self.stage]), given(targets.maps)[self.stage].detach()
        return {"fitnet": self.weight * F.mse_loss(hint, f_t)} if self.weight else {}  # mean (r(F^s) - F^t)^2


class AT(nn.Module):
    """Attention transfer at every stage."""

    needs, matches_embeddings, logs = frozenset({"attention"}), False, no_logs

    def __init__(self, shapes: Shapes, *, weight: Weight) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, student: Features, student_logits: Tensor, targets: Targets, labels: Tensor, progress: float):
        if not self.weight:
            return {}
        pairs = zip(student.maps, given(targets.attention), strict=True)
        stages = torch.stack([attention_transfer(attention_map(f_s), a_t) for f_s, a_t in pairs])
        return {"at": self.weight * stages.mean()}


class RKD(nn.Module):
    """Relational distillation, which leaves the two spaces turned; `distance` and `angle` weigh its two terms."""

    needs, matches_embeddings, logs = frozenset({"embedding"}), False, no_logs

    def __init__(self, shapes: Shapes, *, distance: Weight, angle: Weight) -> None:
        super().__init__()
        self.distance, self.angle = distance, angle

    def forward(self, student: Features, student_logits: Tensor, targets: Targets, labels: Tensor, progress: float):
        e_s, e_t = unit(student.embedding), unit(given(targets.embedding))
        terms = {}
        if self.distance:
            terms["distance"] = self.distance * relational_distance(e_s, e_t)
        if self.angle:
            terms["angle"] = self.angle * relational_angle(e_s, e_t)
        return terms
