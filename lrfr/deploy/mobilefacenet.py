"""MobileFaceNet (Chen et al., CCBR 2018, arXiv 1804.07573, Table 1): what one would use on a phone, of random weights.

For the benchmark of speed alone. 112-pixel faces; convolution, batch norm and PReLU throughout, "linear" layers without
PReLU; inverted residual blocks as in MobileNetV2; a global depthwise convolution (GDConv) over the last 7 x 7 map. With
the paper's 128 dimensions the network has 1.00 M parameters and 221 M multiply-accumulates, as published; with the 512
of most released weights it has 1.20 M and 221 M. The 228 M often given for these count batch norm too, with two
operations an element.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

INPUT = 112  # pixels
BLOCKS = ((2, 64, 5, 2), (4, 128, 1, 2), (2, 128, 6, 1), (4, 128, 1, 2), (2, 128, 2, 1))  # Table 1's t, c, n, s
LAST = 512  # channels of the 7 x 7 map


def linear(inputs: int, outputs: int, side: int, stride: int = 1, padding: int = 0, groups: int = 1) -> nn.Sequential:
    """A linear layer: convolution and batch norm."""
    layer = nn.Conv2d(inputs, outputs, side, stride, padding, groups=groups, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs))


def conv(inputs: int, outputs: int, *shape: int) -> nn.Sequential:
    """The same with PReLU."""
    return nn.Sequential(linear(inputs, outputs, *shape), nn.PReLU(outputs))


class Bottleneck(nn.Module):
    """1x1 to t * inputs channels, depthwise 3x3, linear 1x1; with a skip where stride and channels allow it."""

    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int) -> None:
        super().__init__()
        middle = inputs * expansion
        depthwise = conv(middle, middle, 3, stride, 1, middle)
        self.branch = nn.Sequential(conv(inputs, middle, 1), depthwise, linear(middle, outputs, 1))
        self.skip = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x) if self.skip else self.branch(x)


def build_mobilefacenet(embedding: int) -> nn.Sequential:
    """float (B, 3, 112, 112) in -1 ... 1 -> float (B, embedding), before L2 normalisation.

    Random weights, the same every time, in eval mode without gradients.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers, inputs = [conv(3, 64, 3, 2, 1), conv(64, 64, 3, 1, 1, 64)], 64
        for expansion, outputs, count, first in BLOCKS:
            for number in range(count):
                layers.append(Bottleneck(inputs, outputs, expansion, first if number == 0 else 1))
                inputs = outputs
        layers += [conv(inputs, LAST, 1), linear(LAST, LAST, INPUT // 16, groups=LAST), linear(LAST, embedding, 1)]
        net = nn.Sequential(*layers, nn.Flatten())
    return net.to(memory_format=torch.channels_last).requires_grad_(False).eval()
