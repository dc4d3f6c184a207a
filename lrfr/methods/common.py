"""What several methods share: ramps, the attention map, the embedding projector, and the check of a named option."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lrfr.errors import UserError
from lrfr.models.features import Shapes


def ramp(progress: float, warmup: float) -> float:
    """Factor in [0, 1]: rises linearly while `progress` (fraction of training done) goes from 0 to `warmup`, then stays 1."""
    return min(progress / warmup, 1.0) if warmup > 0 else 1.0


class MeanSquare(torch.autograd.Function):
    """Mean over channels of the squares, (B, C, H, W) -> (B, 1, H, W), with its gradient 2 x / C in one pass."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return (
            torch.linalg.vector_norm(x, dim=1, keepdim=True).square_() / x.shape[1]
        )  # the norm writes no array of squares

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return x * (gradient * (2 / x.shape[1]))


def attention_map(features: Tensor) -> Tensor:
    """Where a stage is active: mean over channels of the squared activations, (B, C, H, W) -> (B, 1, H, W), not negative.

    Zagoruyko and Komodakis (ICLR 2017), their F_sum^2 up to a constant. It has no parameters.
    """
    return MeanSquare.apply(features)


def entries(maps: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, H W C): in this order nothing is copied if the maps lie channels last in memory, as students' do."""
    return maps.permute(0, 2, 3, 1).flatten(1)


def embedding_projector(shapes: Shapes) -> nn.Module:
    """P: identity if the embeddings have the same dimension, else a linear map of the student's; never exported."""
    if shapes.student_embedding == shapes.teacher_embedding:
        return nn.Identity()
    return nn.Linear(shapes.student_embedding, shapes.teacher_embedding, bias=False)


def one_of(option: str, value: str, allowed: tuple[str, ...]) -> str:
    """The value, if it is allowed.

    Raises
    ------
    UserError
        if it is not.
    """
    if value not in allowed:
        raise UserError(f"option '{option}': '{value}' does not exist; choose one of {', '.join(allowed)}.")
    return value
