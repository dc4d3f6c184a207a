"""dlib's face ResNet (Davis King, 2017, public domain) in torch: 150-pixel RGB faces to 128 numbers.

7x7/2 convolution and 3x3/2 max pool, then 14 residual blocks in stages of 32, 64, 128 and 256 channels, global mean,
and a matrix without bias. A block is conv3x3, ReLU, conv3x3, (gate,) + skip, ReLU; dlib's affine layers (frozen batch
norms) are folded into the convolutions, which stay trainable. What decides whether descriptors agree with dlib's:

- no padding in any layer that strides by 2, padding 1 in the others: 150 -> 72 -> 35 -> 17 -> 8 -> 4 -> 2 pixels;
- the skip of a block that strides is a 2x2/2 average; the sum zero-pads *either* side to the larger number of channels,
  rows and columns, aligned at the first; in the last two such blocks the convolutions' side is a row and column short.

`prefix` runs what fine-tuning of the last stage leaves frozen, once per face; `pooled` and `head` run the rest.
"""

from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lrfr.errors import UserError
from lrfr.gate.dlib_weights import SCALE, Conv, DlibWeights
from lrfr.models.features import Features
from lrfr.models.se import IdentityGate

CHIP = 150  # pixels
EMBEDDING = 128
CHANNELS = (32, 64, 128, 256)  # of the four stages
SIDES = (35, 17, 8, 4)  # of their maps for a 150-pixel chip
BLOCKS = (3, 4, 3, 3)  # per stage; the first block of all stages but the first strides by 2, and one more block follows


def add_padded(a: Tensor, b: Tensor) -> Tensor:
    """dlib's `add_prev`: the sum of two maps (B, C, H, W), each zero-padded behind to the larger C, H and W."""

    def pad(x: Tensor) -> Tensor:
        sizes = zip(a.shape[1:], b.shape[1:], x.shape[1:], strict=True)
        channels, rows, columns = (max(have) - own for *have, own in sizes)
        return F.pad(x, (0, columns, 0, rows, 0, channels)) if channels or rows or columns else x

    return pad(a) + pad(b)


class Block(nn.Module):
    """A residual block (B, inputs, H, W) -> (B, outputs, H', W'); `se_reduction` None means no gate."""

    def __init__(self, inputs: int, outputs: int, stride: int, se_reduction: int | None) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1 if stride == 1 else 0)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.gate = nn.Identity() if se_reduction is None else IdentityGate(outputs, se_reduction)
        self.skip = nn.Identity() if stride == 1 else nn.AvgPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        branch = self.gate(self.conv2(torch.relu(self.conv1(x))))
        return torch.relu(add_padded(branch, self.skip(x)))


class DlibResNet(nn.Module):
    """float32 (B, 3, 150, 150) RGB in 0 ... 255 -> `Features`: maps (B, C, S, S) of `CHANNELS` and `SIDES`, after ReLU.

    The embedding is (B, 128) and raw: faces are compared by plain L2 distance, not by angle. With `se_reduction`, an
    `IdentityGate` ends the residual branch of every block.
    """

    HEAD = ("fc.",)  # prefixes of the parameters of `head`; of `pooled` and `head`
    LAST_STAGE = ("last_stage.", "fc.")

    def __init__(self, se_reduction: int | None = None) -> None:
        super().__init__()
        self.mean = nn.Buffer(torch.zeros(1, 3, 1, 1))
        self.stem = nn.Conv2d(3, CHANNELS[0], 7, stride=2)
        stages = []
        for inputs, outputs, count in zip((CHANNELS[0], *CHANNELS), CHANNELS, BLOCKS, strict=False):
            widths = pairwise((inputs, *(outputs,) * count))
            first = 1 if outputs == CHANNELS[0] else 2
            blocks = (Block(i, o, first if n == 0 else 1, se_reduction) for n, (i, o) in enumerate(widths))
            stages.append(nn.Sequential(*blocks))
        self.frozen_stages = nn.ModuleList(stages[:-1])
        top = Block(CHANNELS[-1], CHANNELS[-1], 2, se_reduction)
        self.last_stage = nn.ModuleDict({"blocks": stages[-1], "top": top})
        self.fc = nn.Linear(CHANNELS[-1], EMBEDDING, bias=False)

    def prefix(self, x: Tensor) -> tuple[Tensor, ...]:
        """The first three maps of chips, float32 (B, 3, 150, 150) in 0 ... 255; the last one is what `pooled` takes."""
        maps = [F.max_pool2d(torch.relu(self.stem((x - self.mean) / SCALE)), 3, 2)]
        for stage in self.frozen_stages:
            maps.append(stage(maps[-1]))
        return tuple(maps[1:])

    def pooled(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The 128-channel map (B, 128, 8, 8) -> the 256-channel map (B, 256, 4, 4) and what `head` takes, (B, 256)."""
        last = self.last_stage["blocks"](x)
        return last, self.last_stage["top"](last).mean((2, 3))

    def head(self, x: Tensor) -> Tensor:
        """Pooled features, float (B, 256) -> the raw embedding (B, 128)."""
        return self.fc(x)

    def forward(self, x: Tensor) -> Features:
        maps = self.prefix(x)
        last, pooled = self.pooled(maps[-1])
        return Features((*maps, last), self.head(pooled))


def fold(conv: Conv) -> tuple[np.ndarray, np.ndarray]:
    """Weight and bias of the one convolution that equals a convolution and its affine layer; computed in float64."""
    gamma = conv.gamma.astype(np.float64)
    weight = conv.weight * gamma[:, None, None, None]
    return weight.astype(np.float32), (conv.bias * gamma + conv.beta).astype(np.float32)


def load_dlib(net: DlibResNet, weights: DlibWeights, what: str | Path) -> None:
    """Copy dlib's weights into the network; gates stay as they are. `what` names the file in messages.

    Raises UserError if the weights belong to another architecture.
    """
    convs = [module for module in net.modules() if isinstance(module, nn.Conv2d)]  # as an image passes them
    own = [(tuple(c.weight.shape), c.stride[0], c.padding[0]) for c in convs] + [tuple(net.fc.weight.shape)]
    found = [(c.weight.shape, c.stride, c.padding) for c in weights.convs] + [weights.fc.shape]
    if own != found:
        wanted = "give dlib_face_recognition_resnet_model_v1.dat"
        raise UserError(f"{what}: a dlib network of another architecture; {wanted}.")
    with torch.no_grad():
        net.mean.copy_(torch.from_numpy(weights.mean).reshape(1, 3, 1, 1))
        net.fc.weight.copy_(torch.from_numpy(weights.fc))
        for module, conv in zip(convs, weights.convs, strict=True):
            weight, bias = (torch.from_numpy(array) for array in fold(conv))
            module.load_state_dict({"weight": weight, "bias": bias})
