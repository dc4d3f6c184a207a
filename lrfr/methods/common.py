"""What several methods share: the types of options, the ramp, the attention map, the embedding projector."""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from lrfr.models.features import Shapes

# What an option may be (`check_options`). The bounds are wide: they keep out what nobody can mean.
Weight = Annotated[float, Field(ge=0, le=100_000, allow_inf_nan=False)]  # of a term
Factor = Annotated[float, Field(ge=0, le=1000, allow_inf_nan=False)]  # of a part of a term
Temperature = Annotated[float, Field(ge=0.01, le=1000, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]  # of training
Count = Annotated[int, Field(ge=1, le=100_000)]


def ramp(progress: float, warmup: float) -> float:
    """Factor in [0, 1]: rises linearly while `progress`, the fraction of training done, goes to `warmup`, then is 1."""
    return min(progress / warmup, 1.0) if warmup > 0 else 1.0


class MeanSquare(torch.autograd.Function):
    """Mean over channels of the squares, (B, C, H, W) -> (B, 1, H, W), with its gradient 2 x / C in one pass."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        norm = torch.linalg.vector_norm(x, dim=1, keepdim=True)  # unlike x.square(), it writes no second array
        return norm.square_() / x.shape[1]

    @staticmethod
    def backward(ctx: torch.autograd.function.BackwardCFunction, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return x * (gradient * (2 / x.shape[1]))


def attention_map(features: Tensor) -> Tensor:
    """Where a stage is active: A = mean_c F_c^2, (B, C, H, W) -> (B, 1, H, W), not negative, without parameters.

    Zagoruyko and Komodakis (ICLR 2017), their F_sum^2 up to a constant.

    >>> attention_map(torch.tensor([3.0, -4.0]).reshape(1, 2, 1, 1)).item()  # (9 + 16) / 2
    12.5
    """
    return MeanSquare.apply(features)


def entries(maps: Tensor) -> Tensor:
    """vec F: (B, C, H, W) -> (B, H W C), without a copy of maps that lie channels last in memory, as students' do."""
    return maps.permute(0, 2, 3, 1).flatten(1)


def embedding_projector(shapes: Shapes) -> nn.Module:
    """P: identity if the embeddings have the same dimension, else a linear map of the student's; never exported."""
    if shapes.student_embedding == shapes.teacher_embedding:
        return nn.Identity()
    return nn.Linear(shapes.student_embedding, shapes.teacher_embedding, bias=False)


def no_logs(method: nn.Module) -> dict[str, float]:
    """`logs` of a method that has nothing to tell beside its terms."""
    return {}
