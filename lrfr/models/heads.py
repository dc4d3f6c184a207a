"""The face loss that every student shares: cosine logits, and ArcFace's additive angular margin on the target class.

ArcFace (Deng et al., CVPR 2019) replaces the target's logit s cos(theta) by s cos(theta + m). The class weights and the
embedding are L2-normalised, so only angles count. Logits *without* margin are what the distillation methods compare;
the margin belongs to the cross-entropy alone.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SHORTEST = 1e-8  # our choice: a vector shorter than this has no direction


def unit(vectors: Tensor, dim: int = -1) -> Tensor:
    """Unit vectors along `dim`, same shape, at least float32.

    One shorter than 1e-8 becomes zero and receives no gradient; dividing by a small constant would hand it a huge one.

    >>> unit(torch.tensor([3.0, 4.0])), unit(torch.tensor([0.0, 0.0]))
    (tensor([0.6000, 0.8000]), tensor([0., 0.]))
    """
    f = vectors.float() if vectors.dtype in (torch.float16, torch.bfloat16) else vectors
    squared = f.square().sum(dim, keepdim=True)  # |f|^2
    alive = squared > SHORTEST**2
    return f * torch.where(alive, torch.where(alive, squared, 1.0).rsqrt(), 0.0)  # f / |f|


class RowCosine(torch.autograd.Function):
    """Cosines (B,) of rows a, r, both (B, D), and their gradient (r / |r| - cos a / |a|) / |a| with respect to a alone.

    Autograd would need five arrays of the size of a (a stage map), this two. A row shorter than `SHORTEST` has cosine 0
    and gradient 0.
    """

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, a: Tensor, r: Tensor) -> Tensor:
        lengths = (torch.linalg.vector_norm(x, dim=1) for x in (a, r))
        own, other = (torch.where(length > SHORTEST, length.reciprocal(), 0.0) for length in lengths)
        cosine = torch.linalg.vecdot(a, r) * own * other  # cos = <a, r> / |a| |r|
        ctx.save_for_backward(a, r, cosine, own, other)
        return cosine

    @staticmethod
    def backward(ctx: torch.autograd.function.BackwardCFunction, gradient: Tensor) -> tuple[Tensor, None]:
        saved: tuple[Tensor, ...] = ctx.saved_tensors
        a, r, cosine, own, other = saved
        towards = r * (gradient * own * other)[:, None]  # r / |a| |r| - cos a / |a|^2
        return towards.addcmul_(a, -(gradient * cosine * own.square())[:, None]), None


def cosine_to(references: Tensor, vectors: Tensor) -> Tensor:
    """Cosine of each row with its reference: (B, D) both -> (B,), 0 without a direction; references get no gradient.

    >>> cosine_to(torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([[5.0, 5.0], [0.0, 0.0]]))  # 45 degrees, none
    tensor([0.7071, 0.0000])
    """
    vectors = vectors.float() if vectors.dtype in (torch.float16, torch.bfloat16) else vectors
    return RowCosine.apply(vectors, references.detach().to(vectors.dtype))


def cosine_logits(embedding: Tensor, weight: Tensor, scale: float) -> Tensor:
    """Logits without margin, between embeddings (B, D) and class weights (C, D): float (B, C) in [-scale, scale].

    >>> cosine_logits(torch.tensor([[2.0, 2.0]]), torch.tensor([[1.0, 1.0], [0.0, 9.0], [-3.0, -3.0]]), scale=10.0)
    tensor([[ 10.0000,   7.0711, -10.0000]])
    """
    with torch.autocast(embedding.device.type, enabled=False):  # half precision would round cosines to about 1e-3
        return scale * F.linear(unit(embedding), unit(weight))  # z_c = s cos(theta_c), cos(theta_c) = f W_c / |f| |W_c|


def arcface_logits(
    embedding: Tensor, weight: Tensor, labels: Tensor, scale: float = 64.0, margin: float = 0.5
) -> Tensor:
    """ArcFace's logits (B, C): s cos(theta_c), with s cos(theta_y + m) at the label's class y.

    embedding: float (B, D) and weight: float (C, D), of any norm; labels: int64 (B,) in 0 ... C-1; margin in radians.
    cos(theta + m) = cos(theta) cos(m) - sin(theta) sin(m) needs no arc cosine, whose slope is infinite at cos = +-1.
    Where 1 - cos^2 is not positive (rounding can leave it below 0) the sine is 0 and passes no gradient. Beyond theta +
    m = pi the formula is kept as it stands (our choice; some implementations continue with a straight line): a face
    within m of the opposite of its class centre, at m = 0.3 beyond 162 degrees, is not pulled back.

    >>> face, centres = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0], [1.0, 1.0]])  # 90 and 45 degrees away
    >>> arcface_logits(face, centres, torch.tensor([1]), scale=10.0, margin=math.pi / 12)[0, 1]  # as if 60 degrees away
    tensor(5.0000)
    """
    cos, y = cosine_logits(embedding, weight, 1.0), labels.unsqueeze(1)  # cos(theta_c), (B, C)
    cos_y = cos.gather(1, y)
    squared = 1 - cos_y.square()
    alive = squared > 0
    sin_y = torch.where(alive, torch.where(alive, squared, 1.0).sqrt(), 0.0)
    shifted = cos_y * math.cos(margin) - sin_y * math.sin(margin)  # cos(theta_y + m), (B, 1)
    return scale * cos.scatter(1, y, shifted)  # s cos(theta_c), but s cos(theta_y + m) at c = y


class FaceHead(nn.Module):
    """Class weights (C, D) of the face loss; trained with the student and never exported.

    weight: float (C, D) to start from; None draws from torch's generator (normal, rows of about unit length).
    """

    def __init__(self, classes: int, dimension: int, scale: float, weight: Tensor | None = None) -> None:
        super().__init__()
        start = torch.randn(classes, dimension) / math.sqrt(dimension) if weight is None else weight.detach().clone()
        if start.shape != (classes, dimension):
            raise ValueError(f"initial weights have shape {tuple(start.shape)}, not ({classes}, {dimension})")
        self.weight = nn.Parameter(start)
        self.scale = scale

    def forward(self, embedding: Tensor) -> Tensor:
        """Logits without margin, (B, C)."""
        return cosine_logits(embedding, self.weight, self.scale)

    def loss(self, embedding: Tensor, labels: Tensor, margin: float) -> Tensor:
        """Mean cross-entropy over the margin logits, a scalar; `margin` is an argument because training ramps it.

        labels: int64 (B,), -1 for rows that belong to no class and do not count; without any other row the loss is 0.
        """
        known = labels >= 0
        logits = arcface_logits(embedding[known], self.weight, labels[known], self.scale, margin)
        return F.cross_entropy(logits, labels[known], reduction="sum") / known.sum().clamp_min(1)
