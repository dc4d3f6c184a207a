"""What several methods share: ramps, the attention map, the embedding projector, and the check of a named option."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lrfr.errors import UserError
from lrfr.models.features import Shapes


def ramp(progress: float, warmup: float) -> float:
    """Factor in [0, 1]: rises linearly while `progress` (fraction of training done) goes from 0 to `warmup`, then stays 1."""
    return min(progress / warmup, 1.0) if warmup > 0 else 1.0


def attention_map(features: Tensor) -> Tensor:
    """Where a stage is active: mean over channels of the squared activations, (B, C, H, W) -> (B, 1, H, W), not negative.

    Zagoruyko and Komodakis (ICLR 2017), their F_sum^2 up to a constant. It has no parameters.
    """
    # the norm writes no array of squares; its gradient at zero is zero
    return torch.linalg.vector_norm(features, dim=1, keepdim=True).square() / features.shape[1]


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
