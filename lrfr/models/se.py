"""Squeeze-and-excitation: channel attention (Hu et al., "Squeeze-and-Excitation Networks", CVPR 2018, equations 2-4).

    q = mean of x over its pixels,   g = sigmoid(W2 relu(W1 q)),   y = g x        (per channel, no bias)

Two gates share it. `SEBlock` is the paper's own, for networks trained from scratch. `IdentityGate` is for a network
that was trained without gates: 2 sigmoid(W2 ...) with W2 = 0 is exactly 1, so gating changes nothing before it has been
fine-tuned, whereas the paper's gate would halve every branch (our choice).
"""

import torch
from torch import Tensor, nn


def gates(x: Tensor, w1: Tensor, w2: Tensor) -> Tensor:
    """Channel gates in (0, 1), float (B, C), of maps x (B, C, H, W); w1 (C/r, C) squeezes, w2 (C, C/r) excites."""
    return torch.sigmoid(torch.relu(x.mean((2, 3)) @ w1.T) @ w2.T)


def squeeze_excite(x: Tensor, w1: Tensor, w2: Tensor) -> Tensor:
    """Maps (B, C, H, W) times their `gates`, same shape."""
    return x * gates(x, w1, w2)[:, :, None, None]


def _hidden(channels: int, reduction: int) -> int:
    return max(1, channels // reduction)  # narrow networks keep at least one hidden unit


class SEBlock(nn.Module):
    """The paper's gate: maps (B, C, H, W) -> the same shape. `reduction` is r (16 in the paper); 2 C^2 / r weights."""

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        hidden = _hidden(channels, reduction)
        self.w1 = nn.Parameter(nn.init.kaiming_normal_(torch.empty(hidden, channels), nonlinearity="relu"))
        self.w2 = nn.Parameter(nn.init.xavier_normal_(torch.empty(channels, hidden)))

    def forward(self, x: Tensor) -> Tensor:
        return squeeze_excite(x, self.w1, self.w2)


class IdentityGate(nn.Module):
    """A gate 2 sigmoid(.) in (0, 2) that starts as the identity: maps (B, C, H, W) -> the same shape.

    Rows of W1 start in pairs a, -a: a gate whose hidden units are off for every face and whose W2 is 0 never learns.
    """

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        hidden = _hidden(channels, reduction)
        half = nn.init.kaiming_normal_(torch.empty((hidden + 1) // 2, channels), nonlinearity="relu")
        self.w1 = nn.Parameter(torch.cat([half, -half])[:hidden])
        self.w2 = nn.Parameter(torch.zeros(channels, hidden))

    def forward(self, x: Tensor) -> Tensor:
        return 2 * squeeze_excite(x, self.w1, self.w2)
