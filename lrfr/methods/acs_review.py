"""Attention cosine similarity review (IET Computer Vision 2024).

Idea. Transfer attention maps instead of features, compare them by cosine instead of L2, and let every stage be reviewed
together with the deeper ones: attention maps of several stages are fused (AMFM) and compared at several pooled sizes (HCCSL).

Known from the abstract and its figure: attention maps, cosine loss, the fusion module AMFM, the spatial pyramid HCCSL, and
that the teacher's shallow stages guide a deeper map of the student.
From third parties (released code): ReviewKD's fusion (1x1 convolution and norm, gate, 3x3 convolution and norm) and pyramid,
A-SKD's cosine loss on attention.
Not known, so our choice: the attention operator (mean over channels of squared activations: no parameters, and the teacher
needs no retraining), fusing on the *student's* side (a learnable map of the teacher could collapse), 4 fused channels, the
pyramid's sizes. The spatial mean of both maps is subtracted before they are compared: maps without negative values are all
nearly parallel, so their plain cosine distance is close to zero whatever they show.

    A^l = mean_c |F_c^l|^2,   R^L = phi_L(A^L),   for l = L-1 ... 1:  U = upsample(R^{l+1})
    G = sigmoid(W [phi_l(A^l); U]),   R^l = phi_l(A^l) G_1 + U G_2,   reviewed map = psi_l(R^l)
    HCCSL = sum_q w_q (1 - cos(pool_q reviewed, pool_q A^t)) / sum_q w_q,   w = 1, 1/2, 1/4 ... over the kept sizes q
    L = L_face + weight ramp(progress) mean_l HCCSL_l
`distance: l2` replaces 1 - cos by the mean squared difference of maps in units of their own level's root mean square over the
batch; L2 between maps of unit norm would be the cosine again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lrfr.methods.common import attention_map, one_of, ramp
from lrfr.models.features import Features, Shapes, Targets
from lrfr.models.heads import cosine_to

FUSED_CHANNELS = 4  # our choice: the maps to be fused have one channel each, and 8 cost a third of an epoch


def map_cosine(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean over the batch of 1 - cosine of flattened maps: (B, C, H, W) both, a scalar in [0, 2]."""
    return 1 - cosine_to(teacher.flatten(1), student.flatten(1)).mean()


def map_l2(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference: (B, C, H, W) both, a scalar >= 0."""
    return F.mse_loss(student, teacher)


def pyramid(
    distance: Callable[[Tensor, Tensor], Tensor], student_map: Tensor, teacher_map: Tensor, levels: Sequence[int]
) -> Tensor:
    """Weighted mean of a distance at full size (weight 1) and at those of `levels` below H (weights 1/2, 1/4, ... as kept)."""
    if student_map.shape != teacher_map.shape:
        raise ValueError(f"maps differ in shape: {tuple(student_map.shape)} and {tuple(teacher_map.shape)}")
    teacher_map = teacher_map.detach()
    total, weights, weight = distance(student_map, teacher_map), 1.0, 1.0
    for size in levels:
        if size < student_map.shape[2]:
            weight /= 2
            weights += weight
            pooled = (F.adaptive_avg_pool2d(each, size) for each in (student_map, teacher_map))
            total = total + weight * distance(*pooled)
    return total / weights


def pyramid_cosine(student_map: Tensor, teacher_map: Tensor, levels: Sequence[int] = (4, 2)) -> Tensor:
    """HCCSL of one stage, a scalar in [0, 2]: maps (B, C, H, W) of equal shape (ValueError otherwise), used as given.

    A pooled size of 1 says nothing about one-channel maps: the cosine of two numbers is their sign.
    """
    return pyramid(map_cosine, student_map, teacher_map, levels)


def pointwise(maps: Tensor, weight: Tensor) -> Tensor:
    """1x1 convolution without bias: maps (B, C, H, W), weight (D, C, 1, 1) -> (B, D, H, W).

    As a matrix product: for so few channels a convolution's set-up costs several times its arithmetic.
    """
    return F.linear(maps.permute(0, 2, 3, 1), weight.flatten(1)).permute(0, 3, 1, 2)


def fuse(shallow: Tensor, deeper: Tensor, gate: Tensor) -> Tensor:
    """AMFM's step R = shallow G_1 + U G_2: shallow (B, C, H, W), deeper (B, C, h, w), gate (2, 2C, 1, 1) -> (B, C, H, W).

    U is `deeper`, enlarged to H x W (nearest neighbour, which is exact for doubling and defined for odd sizes).
    """
    enlarged = deeper
    if deeper.shape[2:] != shallow.shape[2:]:
        enlarged = F.interpolate(deeper, size=shallow.shape[2:], mode="nearest")
    gates = pointwise(torch.cat([shallow, enlarged], 1), gate).sigmoid()
    return shallow * gates[:, :1] + enlarged * gates[:, 1:]


def centred(maps: Tensor) -> Tensor:
    """Maps (B, 1, H, W) without their spatial mean."""
    return maps - maps.mean((2, 3), keepdim=True)


def scaled(maps: Tensor) -> Tensor:
    """Maps in units of their root mean square over the batch (1e-12, our choice, keeps all-zero maps at zero)."""
    return maps * (maps.square().mean() + 1e-12).rsqrt()


class Fusion(nn.Module):
    """AMFM: attention maps of all stages, shallow to deep, (B, 1, H_l, W_l) -> reviewed maps of the same shapes."""

    def __init__(self, stages: int) -> None:
        super().__init__()

        self.enter = nn.ModuleList(nn.Conv2d(1, FUSED_CHANNELS, 1, bias=False) for _ in range(stages))
        self.enter_norm = nn.ModuleList(nn.BatchNorm2d(FUSED_CHANNELS) for _ in range(stages))
        self.leave = nn.ModuleList(nn.Conv2d(FUSED_CHANNELS, 1, 3, padding=1, bias=False) for _ in range(stages))
        self.leave_norm = nn.ModuleList(nn.BatchNorm2d(1) for _ in range(stages))
        self.gates = nn.ModuleList(nn.Conv2d(2 * FUSED_CHANNELS, 2, 1, bias=False) for _ in range(stages - 1))

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        entered = [
            norm(pointwise(m, conv.weight)) for m, conv, norm in zip(maps, self.enter, self.enter_norm, strict=True)
        ]
        fused = [entered[-1]]
        for shallow, gate in zip(entered[-2::-1], list(self.gates)[::-1], strict=True):
            fused.append(fuse(shallow, fused[-1], gate.weight))
        return [norm(conv(m)) for m, conv, norm in zip(fused[::-1], self.leave, self.leave_norm, strict=True)]


class ACSReview(nn.Module):
    """Options: `weight`; `warmup` = fraction of training over which it is ramped in; `levels` = pooled sizes of the pyramid,
    empty for none; `review` = fuse the student's maps; `distance` = "cosine" or "l2"."""

    needs: ClassVar[frozenset[str]] = frozenset({"attention"})

    def __init__(
        self, shapes: Shapes, *, weight: float, warmup: float, levels: Sequence[int], review: bool, distance: str
    ) -> None:
        super().__init__()
        self.weight, self.warmup, self.levels = weight, warmup, tuple(levels)
        self.distance = one_of("distance", distance, ("cosine", "l2"))
        self.fusion = Fusion(len(shapes.student_maps)) if review and weight else None

    def compare(self, student_map: Tensor, teacher_map: Tensor) -> Tensor:
        """HCCSL, or its L2 variant, of one stage; attention maps (B, 1, H, W)."""
        student_map, teacher_map = centred(student_map), centred(teacher_map)
        if self.distance == "l2":
            return pyramid(map_l2, scaled(student_map), scaled(teacher_map), self.levels)
        return pyramid_cosine(student_map, teacher_map, self.levels)

    def forward(
        self, student: Features, student_logits: Tensor, targets: Targets, labels: Tensor, progress: float
    ) -> dict[str, Tensor]:
        if not self.weight:
            return {}
        maps = [attention_map(features) for features in student.maps]
        if self.fusion is not None:
            maps = self.fusion([scaled(each) for each in maps])  # faint maps would drown in the batch norms' 1e-5
        stages = [self.compare(own, other) for own, other in zip(maps, targets.attention, strict=True)]
        return {"review": self.weight * ramp(progress, self.warmup) * torch.stack(stages).mean()}
