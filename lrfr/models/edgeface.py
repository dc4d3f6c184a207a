"""EdgeFace (George et al., IEEE T-BIOM 2024, arXiv 2307.01838): EdgeNeXt from `timm`, 112-pixel faces to 512 numbers.

The user brings the authors' 8-bit checkpoints, whose hashes are known. Only their matrices are in 8 bits; they are
turned back into float32 here, and the network is an ordinary one. Faces are compared by angle.

EdgeFace sees ArcFace's crop, which is wider than our chip and shifted up. It is a fixed window of the aligned
photograph, so nothing is detected or warped a second time. ArcFace's template is turned by 0.3 degrees against dlib's;
the window leaves that out, which moves a corner by a third of a pixel (our choice).
"""

import hashlib
import io
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lrfr.gate.images import Damaged, read_regular, refusing
from lrfr.gate.state import insert_state
from lrfr.models.features import Features

CHIP = 112  # pixels
EMBEDDING = 512
SIDES = (28, 14, 7, 3)  # of the stage maps
# ArcFace's 112 x 112 crop in our 150-pixel chip: left and top edge, side, in its pixels. It is the least-squares
# similarity between the two templates of five points (`lrfr.data.align.similarity`), without its turn.
WINDOW = (-6.71, -28.32, 161.17)
LARGEST = 1 << 23  # bytes of a checkpoint
PACKED = "._packed_params._packed_params"  # an 8-bit matrix and its bias, as torch.ao stores a dynamic Linear
# our name -> timm's name, SHA-256 of the checkpoint, channels of the stages
NETWORKS = {
    "edgeface_xs": (
        "edgenext_x_small",
        "a31314377876ab9fa2a75e5638bc528efe79fd17d5c9c0a228fb7f846d7581a6",
        (32, 64, 100, 192),
    ),
    "edgeface_xxs": (
        "edgenext_xx_small",
        "46be7cc7e8d6e23501c0627fe5fbef101922ee9b85ccbef476987ab1a320b053",
        (24, 48, 88, 168),
    ),
}


class EdgeFace(nn.Module):
    """float32 (B, 3, 112, 112) RGB in 0 ... 255 -> `Features`; embedding (B, 512), not normalised."""

    HEAD = ("net.head.",)  # prefixes of the parameters of `head`; of `pooled` and `head`
    LAST_STAGE = ("net.stages.3.", "net.head.")
    net: Any  # timm's EdgeNeXt

    def __init__(self, name: str) -> None:
        import timm  # here: it takes a second, and most studies have no EdgeFace

        super().__init__()
        self.net = timm.create_model(NETWORKS[name][0])
        self.net.reset_classifier(EMBEDDING)

    def prefix(self, x: Tensor) -> tuple[Tensor, ...]:
        """The first three maps of faces in 0 ... 255; the last one is what `pooled` takes."""
        maps = [self.net.stem((x - 127.5) / 127.5)]
        for stage in self.net.stages[:3]:
            maps.append(stage(maps[-1]))
        return tuple(maps[1:])

    def pooled(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The third map -> the fourth, (B, C, 3, 3), and what `head` takes, (B, C)."""
        last = self.net.stages[3](x)
        return last, self.net.head.global_pool(self.net.norm_pre(last)).flatten(1)

    def head(self, x: Tensor) -> Tensor:
        """Pooled features, float (B, C) -> the embedding (B, 512)."""
        head = self.net.head
        return head.fc(head.drop(head.norm(x[:, :, None, None]).flatten(1)))

    def forward(self, x: Tensor) -> Features:
        maps = self.prefix(x)
        last, pooled = self.pooled(maps[-1])
        return Features((*maps, last), self.head(pooled))


def read_checkpoint(path: str | Path, sha256: str) -> dict[str, Tensor]:
    """The float32 state of a published 8-bit checkpoint, with timm's names; read without running code from it.

    Raises UserError if there is no such file, or it is not the published one.
    """
    with refusing(path, "a published EdgeFace checkpoint", "give the path of edgeface_xs_q.pt or edgeface_xxs_q.pt"):
        data = read_regular(Path(path), LARGEST)
        if hashlib.sha256(data).hexdigest() != sha256:
            raise Damaged("its SHA-256 is not the published one")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch announces the end of its 8-bit tensors
            packed = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    state: dict[str, Tensor] = {}
    for name, value in packed.items():
        name = name.removeprefix("model.")
        if name.endswith(PACKED):
            weight, bias = value
            state |= {
                name.replace(PACKED, ".weight"): weight.dequantize(),
                name.replace(PACKED, ".bias"): bias.detach(),
            }
        elif not name.endswith((".scale", ".zero_point", "._packed_params.dtype")):
            state[name] = value
    return state


def build(name: str, weights: str) -> EdgeFace:
    """The network of a key of `NETWORKS`, with the weights of a path, or random ones."""
    net = EdgeFace(name)
    if weights != "random":
        insert_state(net.net, read_checkpoint(weights, NETWORKS[name][1]), weights)
    return net
