"""Views are turned, zoomed and shifted by what is said, about their centre, each on its own."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from lrfr.data.draws import move


def views(count: int, side: int) -> Tensor:
    return torch.rand((count, 3, side, side), generator=torch.Generator().manual_seed(3)) * 2 - 1


def moves(*rows: tuple[float, float, float, float]) -> Tensor:
    return torch.tensor(rows)


STILL = moves((0, 0, 0, 0))


def test_nothing_is_moved_by_nothing():
    x = views(2, 8)
    assert torch.allclose(move(x, STILL.expand(2, 4), 30, 0.4, 0.3), x, atol=1e-5)
    assert torch.allclose(move(x, torch.ones(2, 4), 0, 0, 0), x, atol=1e-5)


@pytest.mark.parametrize("axis", [2, 3])
@pytest.mark.parametrize("way", [1, -1])
def test_a_shift_of_a_pixel_takes_the_neighbour_and_repeats_the_border(axis: int, way: int):
    """Axis 2 of `moves` is horizontal, axis 3 vertical; a positive one looks further to the right or further down."""
    x, drawn = views(1, 8), STILL.clone()
    drawn[0, axis] = way
    found = move(x, drawn, 10, 0.1, 1 / 8)
    dim = 5 - axis  # horizontal shifts are along the last dimension
    index = (torch.arange(8) + way).clamp(0, 7)
    assert torch.allclose(found, x.index_select(dim, index), atol=1e-5)


def test_a_quarter_turn():
    x = views(2, 9)
    assert torch.allclose(
        move(x, moves((1, 0, 0, 0), (-1, 0, 0, 0)), 90, 0.1, 0.1)[0], torch.rot90(x[0], 1, (1, 2)), atol=1e-5
    )
    assert torch.allclose(
        move(x, moves((1, 0, 0, 0), (-1, 0, 0, 0)), 90, 0.1, 0.1)[1], torch.rot90(x[1], -1, (1, 2)), atol=1e-5
    )


def test_a_zoom_by_three_is_about_the_centre():
    """A positive move looks at a larger part: pixel j shows pixel 3 j - 8 of nine, or the border."""
    x = views(1, 9)
    index = (3 * torch.arange(9) - 8).clamp(0, 8)
    assert torch.allclose(move(x, moves((0, 1, 0, 0)), 10, math.log(3), 0.1), x[:, :, index][:, :, :, index], atol=1e-5)


def one_by_one(view: np.ndarray, angle: float, scale: float, right: float, down: float) -> np.ndarray:
    """The same for one view (C, S, S), pixel by pixel; shifts in pixels."""
    side = view.shape[1]
    found = np.empty_like(view)
    for i in range(side):
        for j in range(side):
            u, v = j + 0.5 - side / 2, i + 0.5 - side / 2
            x = scale * (math.cos(angle) * u - math.sin(angle) * v) + right + side / 2 - 0.5
            y = scale * (math.sin(angle) * u + math.cos(angle) * v) + down + side / 2 - 0.5
            x, y = min(max(x, 0), side - 1), min(max(y, 0), side - 1)
            x0, y0 = min(int(x), side - 2), min(int(y), side - 2)
            a, b = x - x0, y - y0
            found[:, i, j] = (1 - b) * ((1 - a) * view[:, y0, x0] + a * view[:, y0, x0 + 1])
            found[:, i, j] += b * ((1 - a) * view[:, y0 + 1, x0] + a * view[:, y0 + 1, x0 + 1])
    return found


def test_all_together_against_pixel_by_pixel():
    x, drawn = (
        views(4, 10).double(),
        moves((1, -1, 0.5, 1), (-0.3, 0.7, -1, 0.2), (0.9, 0.4, 1, -1), (0, 1, 0, 0)).double(),
    )
    found = move(x, drawn, 20, 0.3, 0.1).numpy()
    for row, (turn, zoom, right, down) in enumerate(drawn.tolist()):
        expected = one_by_one(
            x[row].numpy(), math.radians(20 * turn), math.exp(0.3 * zoom), right, down
        )  # 0.1 of ten pixels
        assert np.allclose(found[row], expected, atol=1e-9)


def test_a_view_does_not_depend_on_its_batch_and_keeps_its_range():
    x, drawn = views(5, 8), 2 * torch.rand((5, 4), generator=torch.Generator().manual_seed(1)) - 1
    together = move(x, drawn, 45, 0.5, 0.5)
    assert together.shape == x.shape and together.dtype == x.dtype
    for row in range(5):
        assert torch.allclose(move(x[row : row + 1], drawn[row : row + 1], 45, 0.5, 0.5)[0], together[row], atol=1e-6)
    assert together.min() >= x.min() - 1e-6 and together.max() <= x.max() + 1e-6  # nothing comes in from outside
    even = torch.full((2, 3, 8, 8), 0.25)
    assert torch.allclose(move(even, drawn[:2], 45, 0.5, 0.5), even, atol=1e-6)


def test_channels_last_gives_the_same():
    x, drawn = views(3, 8), moves((1, 1, 1, 1), (-1, 0.5, 0, 0), (0, 0, -1, 1))
    assert torch.allclose(
        move(x.to(memory_format=torch.channels_last), drawn, 10, 0.1, 0.1), move(x, drawn, 10, 0.1, 0.1), atol=1e-6
    )
