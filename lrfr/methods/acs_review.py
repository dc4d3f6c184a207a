"""Attention cosine similarity review (IET Computer Vision 2024).

Idea. Transfer attention maps instead of features, compare them by cosine instead of L2, and let every stage be reviewed
with the deeper ones: maps of several stages are fused (AMFM) and compared at several pooled sizes (HCCSL).
Known from the abstract and its figure: this, and that the teacher's shallow stages guide a deeper map of the student.
From third parties (released code): ReviewKD's fusion (1x1 convolution and norm, gate, 3x3 convolution and norm) and
pyramid, A-SKD's cosine loss on attention.
Not known, so our choice: the attention operator (mean over channels of squared activations: no parameters, and the
teacher needs no retraining), fusing on the *student's* side (a learnable map of the teacher could collapse), 4 fused
channels, the pyramid's sizes. The spatial mean of both maps is subtracted before they are compared: maps without
negative values are all nearly parallel, so their plain cosine distance is close to zero whatever they show.

    L = L_face + weight ramp(progress) mean_l HCCSL(psi_l(R^l), A^{t,l}),   R^l fused from A^l ... A^L of the student
`distance: l2` replaces 1 - cos by the mean squared difference of maps in units of their own level's root mean square
over the batch; L2 between maps of unit norm would be the cosine again.
"""

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lrfr.methods.baselines import cosine_distance
from lrfr.methods.common import Count, Fraction, Weight, attention_map, no_logs, ramp
from lrfr.models.features import Features, Shapes, Targets, given

Distance = Callable[[Tensor, Tensor], Tensor]  # of two maps (B, C, H, W), a scalar
Kind = Literal["cosine", "l2"]
FUSED_CHANNELS = 4  # our choice: the maps to be fused have one channel each, and 8 cost a third of an epoch


def pyramid_cosine(
    student_map: Tensor, teacher_map: Tensor, levels: Sequence[int] = (4, 2), distance: Distance = cosine_distance
) -> Tensor:
    """HCCSL of one stage, a scalar in [0, 2]: maps (B, C, H, W) of equal shape (ValueError otherwise), used as given.

    The weighted mean of a distance at full size (weight 1) and at those of `levels` below H (1/2, 1/4, ... as kept). A
    pooled size of 1 says nothing about one-channel maps: the cosine of two numbers is their sign.

    >>> corner, beside = torch.eye(16).reshape(16, 1, 4, 4)[:2].split(1)
    >>> pyramid_cosine(corner, beside, ()), pyramid_cosine(corner, beside, (2,))  # one pixel apart, in one quarter
    (tensor(1.), tensor(0.6667))
    """
    if student_map.shape != teacher_map.shape:
        raise ValueError(f"maps differ in shape: {tuple(student_map.shape)} and {tuple(teacher_map.shape)}")
    teacher_map = teacher_map.detach()
    total, weights, w_q = distance(student_map, teacher_map), 1.0, 1.0
    for q in levels:
        if q < student_map.shape[2]:
            w_q /= 2
            weights += w_q
            pooled = (F.adaptive_avg_pool2d(each, q) for each in (student_map, teacher_map))
            total = total + w_q * distance(*pooled)
    return total / weights  # sum_q w_q distance(pool_q A^s, pool_q A^t) / sum_q w_q,   w = 1, 1/2, 1/4 ...


def _pointwise(maps: Tensor, weight: Tensor) -> Tensor:
    """1x1 convolution without bias, maps (B, C, H, W), weight (D, C) -> (B, D, H, W), as a matrix product: for so few
    channels a convolution's set-up costs several times its arithmetic.
    """
    return F.linear(maps.permute(0, 2, 3, 1), weight).permute(0, 3, 1, 2)


def fuse(shallow: Tensor, deeper: Tensor, gate: Tensor) -> Tensor:
    """One step of AMFM: shallow (B, C, H, W), deeper (B, C, h, w), gate W (2, 2C) -> R (B, C, H, W).

    The deeper map is enlarged by nearest neighbour, which is exact for doubling and defined for odd sizes.

    >>> shallow, deeper = torch.full((1, 1, 2, 2), 4.0), torch.full((1, 1, 1, 1), 8.0)
    >>> fuse(shallow, deeper, torch.zeros(2, 2)).unique()  # undecided gates: half of each
    tensor([6.])
    """
    same = deeper.shape[2:] == shallow.shape[2:]
    u = deeper if same else F.interpolate(deeper, size=shallow.shape[2:], mode="nearest")  # U = upsample(R^{l+1})
    g = _pointwise(torch.cat([shallow, u], 1), gate).sigmoid()  # G = sigmoid(W [phi_l(A^l); U]), (B, 2, H, W)
    return shallow * g[:, :1] + u * g[:, 1:]  # R^l = phi_l(A^l) G_1 + U G_2


def scaled(maps: Tensor) -> Tensor:
    """Maps in units of their root mean square over the batch (1e-12, our choice, keeps all-zero maps at zero)."""
    return maps * (maps.square().mean() + 1e-12).rsqrt()


def _pointwise_weights(outputs: int, inputs: int, count: int) -> nn.ParameterList:
    """Weights (D, C) for `_pointwise`, drawn as torch draws those of a convolution."""
    drawn = (nn.init.kaiming_uniform_(torch.empty(outputs, inputs), a=math.sqrt(5)) for _ in range(count))
    return nn.ParameterList(drawn)


class Fusion(nn.Module):
    """AMFM: attention maps of all stages, shallow to deep, (B, 1, H_l, W_l) -> reviewed maps of the same shapes."""

    def __init__(self, stages: int) -> None:
        super().__init__()
        self.enter = _pointwise_weights(FUSED_CHANNELS, 1, stages)
        self.enter_norm = nn.ModuleList(nn.BatchNorm2d(FUSED_CHANNELS) for _ in range(stages))
        self.leave = nn.ModuleList(nn.Conv2d(FUSED_CHANNELS, 1, 3, padding=1, bias=False) for _ in range(stages))
        self.leave_norm = nn.ModuleList(nn.BatchNorm2d(1) for _ in range(stages))
        self.gates = _pointwise_weights(2, 2 * FUSED_CHANNELS, stages - 1)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        enter = zip(maps, self.enter, self.enter_norm, strict=True)
        entered = [norm(_pointwise(a_l, weight)) for a_l, weight, norm in enter]  # phi_l(A^l), (B, 4, H_l, W_l)
        fused = [entered[-1]]  # R^L = phi_L(A^L)
        for phi_l, gate in zip(entered[-2::-1], list(self.gates)[::-1], strict=True):
            fused.append(fuse(phi_l, fused[-1], gate))  # R^l from R^{l+1}
        leave = zip(fused[::-1], self.leave, self.leave_norm, strict=True)
        return [norm(conv(r_l)) for r_l, conv, norm in leave]  # psi_l(R^l), (B, 1, H_l, W_l)


class ACSReview(nn.Module):
    """Options: `weight`; `warmup` = fraction of training over which it is ramped in; `levels` = pooled sizes of the
    pyramid, empty for none; `review` = fuse the student's maps; `distance` = "cosine" or "l2".
    """

    needs, matches_embeddings, logs = frozenset({"attention"}), False, no_logs

    def __init__(
        self, shapes: Shapes, *, weight: Weight, warmup: Fraction, levels: Sequence[Count], review: bool, distance: Kind
    ) -> None:
        super().__init__()
        self.weight, self.warmup, self.levels, self.distance = weight, warmup, tuple(levels), distance
        self.fusion = Fusion(len(shapes.student_maps)) if review and weight else None

    def compare(self, student_map: Tensor, teacher_map: Tensor) -> Tensor:
        """HCCSL, or its L2 variant, of one stage; attention maps (B, 1, H, W)."""
        student_map, teacher_map = (each - each.mean((2, 3), keepdim=True) for each in (student_map, teacher_map))
        if self.distance == "l2":
            return pyramid_cosine(scaled(student_map), scaled(teacher_map), self.levels, F.mse_loss)
        return pyramid_cosine(student_map, teacher_map, self.levels)

    def forward(self, student: Features, student_logits: Tensor, targets: Targets, labels: Tensor, progress: float):
        if not self.weight:
            return {}
        maps = [attention_map(features) for features in student.maps]  # A^l = mean_c |F_c^l|^2
        if self.fusion is not None:
            maps = self.fusion([scaled(each) for each in maps])  # faint maps would drown in the batch norms' 1e-5
        stages = [self.compare(a_s, a_t) for a_s, a_t in zip(maps, given(targets.attention), strict=True)]
        return {"review": self.weight * ramp(progress, self.warmup) * torch.stack(stages).mean()}
