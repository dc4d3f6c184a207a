"""InceptionResnetV1 of facenet-pytorch (Szegedy et al., AAAI 2017; weights by David Sandberg) as a teacher.

The library's network returns unit vectors only, so its own layers are run one after another here. Unlike dlib's network
it was trained on angles: faces are compared by the unit vectors of its embeddings.
"""

import hashlib
from pathlib import Path

import torch
from facenet_pytorch import InceptionResnetV1
from torch import Tensor, nn

from lrfr.errors import UserError
from lrfr.models.features import Features

CHIP = 160  # pixels, of the photographs the published weights were trained on
SMALLEST = 75  # pixels; below, the strided layers leave no pixel
EMBEDDING = 512
CHANNELS = (64, 256, 896, 1792)  # after the first pool, and after the blocks of 35, 17 and 8 pixels
SIDES = (38, 17, 8, 3)  # of their maps for a 160-pixel chip
RELEASE = "https://github.com/timesler/facenet-pytorch/releases/download/v2.2.9/"
# weights -> file of the release, and its SHA-256; where we do not know it, the first download's is kept beside the file
PUBLISHED: dict[str, tuple[str, str | None]] = {
    "vggface2": ("20180402-114759-vggface2.pt", "281cebca8662831adb987a874bdcb36e73f5b1c6dc5ee5878f305e985625d99b"),
    "casia-webface": ("20180408-102900-casia-webface.pt", None),
}


class InceptionTeacher(nn.Module):
    """float32 (B, 3, H, W) RGB in 0 ... 255, H and W from 75 -> `Features`; embedding (B, 512), not normalised."""

    HEAD = ("net.last_linear.", "net.last_bn.")  # prefixes of the parameters of `head`; of `pooled` and `head`
    LAST_STAGE = ("net.mixed_7a.", "net.repeat_3.", "net.block8.", *HEAD)

    def __init__(self) -> None:
        super().__init__()
        self.net = InceptionResnetV1()

    def prefix(self, x: Tensor) -> tuple[Tensor, ...]:
        """The first three maps of chips in 0 ... 255; the last one is what `pooled` takes."""
        if min(x.shape[2:]) < SMALLEST:
            size, least = f"{x.shape[2]} x {x.shape[3]}", f"give chips of at least {SMALLEST} pixels"
            raise UserError(f"inception_resnet_v1: {size} pixels are too few; {least}.")
        n = self.net
        x = (x - 127.5) / 128  # "fixed image standardisation" of the published weights
        first = n.maxpool_3a(n.conv2d_2b(n.conv2d_2a(n.conv2d_1a(x))))
        second = n.repeat_1(n.conv2d_4b(n.conv2d_4a(n.conv2d_3b(first))))
        return first, second, n.repeat_2(n.mixed_6a(second))

    def pooled(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The 896-channel map (B, 896, H, W) -> the 1792-channel map and what `head` takes, (B, 1792)."""
        n = self.net
        last = n.block8(n.repeat_3(n.mixed_7a(x)))
        return last, n.avgpool_1a(last).flatten(1)

    def head(self, x: Tensor) -> Tensor:
        """Pooled features, float (B, 1792) -> the embedding (B, 512)."""
        return self.net.last_bn(self.net.last_linear(self.net.dropout(x)))

    def forward(self, x: Tensor) -> Features:
        maps = self.prefix(x)
        last, pooled = self.pooled(maps[-1])
        return Features((*maps, last), self.head(pooled))


def fetch(weights: str) -> Path:
    """Where torch keeps the weights of a name in `PUBLISHED`; downloads them once, checks their hash every time.

    Raises UserError if the download fails, or the file is not the one that was published (or first downloaded).
    """
    name, sha256 = PUBLISHED[weights]
    path = Path(torch.hub.get_dir()) / "checkpoints" / name
    memory = path.with_name(f"{name}.sha256")
    if not path.exists():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(RELEASE + name, str(path))
        except OSError as error:  # urllib's errors are OSErrors
            raise UserError(f"{RELEASE}{name}: cannot be downloaded ({error}); give its path as weights.") from None
        memory.unlink(missing_ok=True)
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if sha256 is None and not memory.exists():
        memory.write_text(found, encoding="ascii")
    if found != (sha256 or memory.read_text(encoding="ascii")):
        raise UserError(f"{path}: not the published file (SHA-256 {found}); delete it, then it is downloaded again.")
    return path
