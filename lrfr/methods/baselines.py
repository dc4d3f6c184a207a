"""What the five papers are compared with: no teacher, and five classic ways of using one.

`scratch` has no term: the face loss on low-resolution views does everything.
`kd`      Hinton et al. 2015: match softened class probabilities, T^2 KL(p_t || p_s) with p = softmax(z / T). The factor T^2
          keeps the gradient's size while T varies. Summed over classes, averaged over the batch.
`feature` 1 - cos(f_s, f_t) between embeddings, the plainest embedding distillation.
`fitnet`  Romero et al. 2015: mean (r(F_s) - F_t)^2 at one hint level; r is a 1x1 convolution of the student's map.
`at`      Zagoruyko and Komodakis 2017: mean (q_s - q_t)^2 of L2-normalised attention maps, averaged over stages (the paper
          sums them; averaging keeps the weight independent of depth: our choice).
`rkd`     Park et al. 2019: match relations instead of points, namely distances (divided by their mean) and cosines of the
          angles that triplets form, both under the Huber loss. Embeddings are L2-normalised first (our choice: students
          are compared as unit vectors). Coinciding rows contribute a zero gradient.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lrfr.errors import UserError
from lrfr.methods.common import attention_map, embedding_projector
from lrfr.models.features import Features, Shapes, Targets
from lrfr.models.heads import cosine_to, unit

EQUAL = 1e-12  # squared distance of rows that count as equal, relative to their squared lengths: float32's resolution


def soft_targets(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """T^2 KL(p_teacher || p_student), a scalar >= 0: logits (B, C), sum over classes, mean over the batch."""
    student = (student_logits / temperature).log_softmax(1)
    teacher = (teacher_logits.detach() / temperature).log_softmax(1)
    return temperature**2 * F.kl_div(student, teacher, reduction="batchmean", log_target=True)


def cosine_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean over the batch of 1 - cosine, a scalar in [0, 2]: embeddings (B, D) of equal dimension."""
    return 1 - cosine_to(teacher, student).mean()


def attention_transfer(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean over batch and positions of the squared difference of L2-normalised maps: (B, 1, H, W) both, a scalar."""
    return (unit(student.flatten(1)) - unit(teacher.detach().flatten(1))).square().mean()


def distances(embedding: Tensor) -> tuple[Tensor, Tensor]:
    """Inner products and Euclidean distances of all rows, float64 (B, B) both.

    In float64 |a|^2 + |b|^2 - 2ab loses nothing that float32 embeddings have, and no array of size B x B x D is formed. Rows that
    differ by less than a millionth of their length have no direction: distance 0, and no gradient.
    """
    inner = embedding.double() @ embedding.double().T
    lengths = inner.diagonal()
    total = lengths[:, None] + lengths[None]
    squared = total - 2 * inner
    apart = squared > EQUAL * total
    return inner, torch.where(apart, torch.where(apart, squared, 1.0).sqrt(), 0.0)


def relative_distances(embedding: Tensor) -> Tensor:
    """Euclidean distances (B, B), divided by the mean of those that are not zero; all zero if no two rows differ."""
    _, found = distances(embedding)
    mean = found.sum() / (found > 0).sum().clamp_min(1)
    return (found / torch.where(mean > 0, mean, 1.0)).to(embedding.dtype)


def angle_cosines(embedding: Tensor) -> Tensor:
    """Cosines (B, B, B) of the angle at row i between the directions to rows j and k; zero where a direction is missing."""
    inner, found = distances(embedding)
    inner = inner.to(embedding.dtype)
    # (e_j - e_i) (e_k - e_i) = e_j e_k - e_i e_j - e_i e_k + e_i e_i
    product = inner[None] + (inner.diagonal()[:, None] - inner)[:, :, None] - inner[:, None, :]
    inverse = torch.where(found > 0, torch.where(found > 0, found, 1.0).reciprocal(), 0.0).to(embedding.dtype)
    return product * inverse[:, :, None] * inverse[:, None, :]


def relational_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """RKD-D: Huber loss between relative distances, mean over all B^2 entries: embeddings (B, D_s), (B, D_t)."""
    return F.smooth_l1_loss(relative_distances(student), relative_distances(teacher.detach()))


def relational_angle(student: Tensor, teacher: Tensor) -> Tensor:
    """RKD-A: Huber loss between angle cosines, mean over all B^3 entries: embeddings (B, D_s), (B, D_t)."""
    return F.smooth_l1_loss(angle_cosines(student), angle_cosines(teacher.detach()))


class Scratch(nn.Module):
    """No teacher."""

    needs: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, shapes: Shapes) -> None:
        super().__init__()

    def forward(
        self, student: Features, student_logits: Tensor, targets: Targets, labels: Tensor, progress: float
    ) -> dict[str, Tensor]:
        return {}


class KD(nn.Module):
    """Hinton's soft targets on logits without margin."""

    needs: ClassVar[frozenset[str]] = frozenset({"logits"})

    def __init__(self, shapes: Shapes, *, weight: float, temperature: float) -> None:
        super().__init__()
        self.weight, self.temperature = weight, temperature

    def forward(
        self, student: Features, student_logits: Tensor, targets: Targets, labels: Tensor, progress: float
    ) -> dict[str, Tensor]:
        return (
            {"kd": self.weight * soft_targets(student_logits, targets.logits, self.temperature)} if self.weight else {}
        )


class Feature(nn.Module):
    """Cosine distance of embeddings."""

    needs: ClassVar[frozenset[str]] = frozenset({"embedding"})

    def __init__(self, shapes: Shapes, *, weight: float) -> None:
        super().__init__()
        self.weight = weight
        self.project = embedding_projector(shapes)

    def forward(
        self, student: Features, student_logits: Tensor, targets: Targets, labels: Tensor, progress: float
    ) -> dict[str, Tensor]:
        if not self.weight:
            return {}
        return {"feature": self.weight * cosine_distance(self.project(student.embedding), targets.embedding)}


class FitNet(nn.Module):
    """One hint level, index `stage` from shallow (0) to deep; the regressor sits on the student's side."""

    needs: ClassVar[frozenset[str]] = frozenset({"maps"})

    def __init__(self, shapes: Shapes, *, weight: float, stage: int) -> None:
        super().__init__()
        if not 0 <= stage < len(shapes.student_maps):
            raise UserError(f"option 'stage': {stage} is no stage; choose 0 ... {len(shapes.student_maps) - 1}.")
        self.weight, self.stage = weight, stage
        self.regressor = nn.Conv2d(shapes.student_maps[stage][0], shapes.teacher_maps[stage][0], kernel_size=1)

    def forward(
        self, student: Features, student_logits: Tensor, targets: Targets, labels: Tensor, progress: float
    ) -> dict[str, Tensor]:
        if not self.weight:
            return {}
        hint = self.regressor(student.maps[self.stage])
        return {"fitnet": self.weight * F.mse_loss(hint, targets.maps[self.stage].detach())}


class AT(nn.Module):
    """Attention transfer at every stage."""

    needs: ClassVar[frozenset[str]] = frozenset({"attention"})

    def __init__(self, shapes: Shapes, *, weight: float) -> None:
        super().__init__()
        self.weight = weight

    def forward(
        self, student: Features, student_logits: Tensor, targets: Targets, labels: Tensor, progress: float
    ) -> dict[str, Tensor]:
        if not self.weight:
            return {}
        pairs = zip(student.maps, targets.attention, strict=True)
        stages = [attention_transfer(attention_map(features), target) for features, target in pairs]
        return {"at": self.weight * torch.stack(stages).mean()}


class RKD(nn.Module):
    """Relational distillation; `distance` and `angle` are the weights of its two terms."""

    needs: ClassVar[frozenset[str]] = frozenset({"embedding"})

    def __init__(self, shapes: Shapes, *, distance: float, angle: float) -> None:
        super().__init__()
        self.distance, self.angle = distance, angle

    def forward(
        self, student: Features, student_logits: Tensor, targets: Targets, labels: Tensor, progress: float
    ) -> dict[str, Tensor]:
        own, other = unit(student.embedding), unit(targets.embedding)
        terms = {}
        if self.distance:
            terms["distance"] = self.distance * relational_distance(own, other)
        if self.angle:
            terms["angle"] = self.angle * relational_angle(own, other)
        return terms
