"""What cameras do to a face besides making it small: one registry, `DEGRADATIONS`.

A degradation takes aligned faces and gives the small image that a camera would have stored. Networks then enlarge that
image as they like (`lrfr.data.degrade`). The faults, in the order in which they happen:

- blur: the lens. A Gaussian of `sigma` small pixels, and sometimes a movement of one or two small pixels along a row or
  a column. Light is blurred before pixels gather it, so blur and area are one step of sums.
- noise: the sensor. Variance gain x + read^2 at a grey level x (Foi et al., IEEE TIP 2008: Poisson shot noise plus
  Gaussian read noise), each pixel and colour by itself.
- jpeg: the store. Pillow's JPEG at the small size, colour at half the resolution (4:2:0).

`camera` is all three, each as strong as a draw says. `blur`, `noise` and `jpeg` are one fault alone at the strongest
that `camera` draws. `nearest` takes one pixel of every cell, `grey` is the area of the grey photograph; both have no
draw. The range of JPEG qualities is that of Real-ESRGAN's settings (Wang et al., ICCV workshops 2021), and the order of
faults that of its single steps; how much blur and noise, and the mixture, are our choice.

Draws are a function of (seed, image, resolution): no order of calls can change them.
"""

import io
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lrfr.data.align import CHIP
from lrfr.data.degrade import bicubic, hr_view, middle, resample
from lrfr.streams import stream

SIGMA = (0.2, 1.0)  # of the blur, small pixels
MOVED = 0.2  # share of faces that moved during the exposure,
MOVE = (1, 2)  # by so many small pixels
GAIN, READ = (0.0, 0.5), (0.0, 6.0)  # of the noise, in grey levels: at most sqrt(0.5 * 128 + 36) = 10 at mid-grey
QUALITY = (30, 95)  # of the JPEG
STEPS = 16  # strengths of blur: so that the sums of a strength are prepared once
LARGEST = 256  # sizes below it have draws of their own
BLOCK = 8  # faces at a time in a bank: they stay in the processor's cache
LUMA = (19595, 38470, 7471)  # of R, G, B in 1/65536: ITU-R BT.601, as Pillow's "L"

Generators = Sequence[np.random.Generator]
Degradation = Callable[[Tensor, int, Generators], Tensor]


def cells(side: int, size: int) -> int:
    """Small pixels beyond the chip on each side, where aligned photographs are `side` pixels wide: the chip's 150 and a
    margin. `size`: small pixels of the chip.
    """
    return (side - CHIP) // 2 * size // CHIP


def cell_weights(side: int, size: int) -> Tensor:
    """Overlap of cells with pixels, as `area_weights`, float64 (size + 2 cells, side): those of the chip and around it.

    In units of 1 / size pixel a cell is 150 long and a pixel `size`; the chip's first cell begins at the chip's edge.
    """
    beyond, margin = cells(side, size), (side - CHIP) // 2
    start = margin * size - beyond * CHIP
    cell = start + CHIP * torch.arange(size + 2 * beyond, dtype=torch.float64)[:, None]
    pixel = size * torch.arange(side, dtype=torch.float64)[None, :]
    return (torch.minimum(cell + CHIP, pixel + size) - torch.maximum(cell, pixel)).clamp(min=0)


@lru_cache(maxsize=4096)
def blurred_weights(side: int, size: int, strength: int, move: int) -> Tensor:
    """`cell_weights` of a blurred line: whole numbers, float64 (size + 2 cells, side).

    The blur of `strength` 0 ... STEPS in `SIGMA`, then of `move` small pixels of movement; border pixels are repeated.
    """
    pitch = CHIP / size  # pixels of the photograph in a small pixel
    sigma = (SIGMA[0] + (SIGMA[1] - SIGMA[0]) * strength / STEPS) * pitch
    reach = int(4 * sigma + move * pitch) + 1
    offset = torch.arange(-reach, reach + 1, dtype=torch.float64)
    kernel = torch.exp(-0.5 * (offset / sigma) ** 2)
    if move:
        box = (move * pitch / 2 + 0.5 - offset.abs()).clamp(0, 1)
        kernel = torch.nn.functional.conv1d(kernel[None, None], box[None, None], padding=reach)[0, 0]
    index = (torch.arange(side)[:, None] + offset.long()[None, :]).clamp(0, side - 1)
    spread = torch.zeros(side, side, dtype=torch.float64).scatter_add_(1, index, kernel.expand(side, -1))
    blurred = cell_weights(side, size) @ spread
    return torch.round(blurred / blurred.sum(1, keepdim=True) * (1 << 20))


def area(chips: Tensor, size: int, rngs: Generators) -> Tensor:
    """Mean over equal cells: what a sensor without lens, noise and store would give."""
    weights = cell_weights(chips.shape[1], size)
    return resample(chips, weights, weights)


def nearest(chips: Tensor, size: int, rngs: Generators) -> Tensor:
    """The middle pixel of every cell: what careless software does."""
    side = chips.shape[1]
    beyond, margin = cells(side, size), (side - CHIP) // 2
    middle = (2 * torch.arange(-beyond, size + beyond) + 1) * CHIP // (2 * size) + margin
    return chips[:, middle][:, :, middle]


def grey(chips: Tensor, size: int, rngs: Generators) -> Tensor:
    """`area` of the grey photograph, in three equal channels: a camera at night."""
    luma = (chips.to(torch.int64) @ torch.tensor(LUMA) + (1 << 15)).div(1 << 16, rounding_mode="floor")
    return area(luma.to(torch.uint8)[..., None].repeat(1, 1, 1, 3), size, rngs)


def add_noise(image: np.ndarray, gain: float, read: float, rng: np.random.Generator) -> np.ndarray:
    """uint8 (h, w, 3) with noise of variance gain x + read^2, rounded."""
    x = image.astype(np.float64)
    noisy = x + np.sqrt(gain * x + read**2) * rng.standard_normal(image.shape)  # sigma^2(x) = a x + b
    return np.floor(noisy + 0.5).clip(0, 255).astype(np.uint8)


def compress(image: np.ndarray, quality: int) -> np.ndarray:
    """uint8 (h, w, 3) through a JPEG file."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality, subsampling=2)
    return np.array(Image.open(file))


def blur(chips: Tensor, size: int, rngs: Generators) -> Tensor:
    """The strongest Gaussian of a lens, then `area`."""
    weights = blurred_weights(chips.shape[1], size, STEPS, 0)
    return resample(chips, weights, weights)


def noise(chips: Tensor, size: int, rngs: Generators) -> Tensor:
    """`area`, then the strongest noise."""
    pairs = zip(area(chips, size, rngs).numpy(), rngs, strict=True)
    return torch.from_numpy(np.stack([add_noise(image, GAIN[1], READ[1], rng) for image, rng in pairs]))


def jpeg(chips: Tensor, size: int, rngs: Generators) -> Tensor:
    """`area`, then the strongest compression."""
    return torch.from_numpy(np.stack([compress(image, QUALITY[0]) for image in area(chips, size, rngs).numpy()]))


def one_camera(chip: Tensor, size: int, rng: np.random.Generator) -> np.ndarray:
    """One face uint8 (S, S, 3) -> uint8 (size + 2 cells, size + 2 cells, 3)."""
    u = rng.random(6)
    strength, moved = int(u[0] * (STEPS + 1)), int(MOVE[0] + u[2] * len(MOVE)) if u[1] < MOVED else 0
    along = (moved, 0) if u[3] < 0.5 else (0, moved)  # rows, columns
    gain, read = (low + (high - low) * v for (low, high), v in zip((GAIN, READ), u[4:], strict=True))
    quality = int(rng.integers(QUALITY[0], QUALITY[1] + 1))
    small = resample(chip[None], *(blurred_weights(chip.shape[0], size, strength, move) for move in along))
    return compress(add_noise(small[0].numpy(), gain, read, rng), quality)


def camera(chips: Tensor, size: int, rngs: Generators) -> Tensor:
    """Blur, area, noise and JPEG, each as strong as the face's own draw says."""
    return torch.from_numpy(
        np.stack([one_camera(*pair) for pair in zip(chips, [size] * len(chips), rngs, strict=True)])
    )


DEGRADATIONS: dict[str, Degradation] = {
    "area": area,
    "camera": camera,
    "blur": blur,
    "noise": noise,
    "jpeg": jpeg,
    "nearest": nearest,
    "grey": grey,
}


def generators(seed: int, images: Iterable[int], size: int) -> list[np.random.Generator]:
    """The generator of each face (its number in the index) at one size."""
    return [stream("degradation", seed, int(image) * LARGEST + size) for image in images]


def small_images(kind: str, chips: np.ndarray, size: int, seed: int, images: Iterable[int]) -> Tensor:
    """Aligned faces as small images, by a key of `DEGRADATIONS`.

    chips: uint8 (B, S, S, 3), S = 150 and a margin, the same on all sides. size: small pixels of the chip, 1 ... 150.
    seed, images: whose draws. Returns uint8 (B, s, s, 3), s = size + 2 `cells(S, size)`: the chip is in the middle.
    """
    return DEGRADATIONS[kind](torch.from_numpy(chips), size, generators(seed, images, size))


def view_bank(
    kind: str, chips: np.ndarray, smallest: int, largest: int, out_size: int, seed: int, images: Sequence[int]
) -> np.ndarray:
    """Every view that training and test can ask for, made once; readers mirror a view, which is the mirrored chip's.

    kind, chips, seed, images: as `small_images` takes them; a margin around the chip is seen by the degradation alone.
    Returns uint8 (N, V, out_size, out_size, 3), V: sizes smallest ... largest, then `hr`, which no kind degrades.
    """
    banks = []
    for start in range(0, len(chips), BLOCK):
        few, numbers, views = chips[start : start + BLOCK], images[start : start + BLOCK], []
        few = middle(few, CHIP) if kind == "area" else few  # sees nothing else, and takes a third of the time
        for size in range(smallest, largest + 1):
            views.append(bicubic(middle(small_images(kind, few, size, seed, numbers), size), out_size).numpy())
        banks.append(np.stack([*views, hr_view(middle(few, CHIP), out_size)], axis=1))
    return np.concatenate(banks)
