"""What cameras do: independent references, known points, invariances."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter1d

from lrfr.config import Views
from lrfr.data import degradations as d
from lrfr.data.degrade import area, bicubic, degrade, hr_view, mirror

SIDE, MARGIN = 232, 41


@pytest.fixture(scope="module")
def chips() -> np.ndarray:
    """Smooth coloured shapes with some texture, uint8 (6, 232, 232, 3)."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (6, 12, 12, 3), dtype=np.uint8)
    smooth = [np.array(Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BICUBIC)) for image in coarse]
    return (np.stack(smooth).astype(int) + rng.integers(-9, 10, (6, SIDE, SIDE, 3))).clip(0, 255).astype(np.uint8)


def middle(small: torch.Tensor, size: int) -> torch.Tensor:
    """The chip of small images with a margin."""
    beyond = (small.shape[1] - size) // 2
    return small[:, beyond : beyond + size, beyond : beyond + size]


@pytest.mark.parametrize("size", [8, 9, 16, 23, 32, 150])
def test_the_chip_is_in_the_middle_whatever_the_margin(chips, size):
    chip = torch.from_numpy(chips[:, MARGIN:-MARGIN, MARGIN:-MARGIN].copy())
    small = d.small_images("area", chips, size, 0, range(6))
    assert small.shape[1] == size + 2 * d.cells(SIDE, size) and small.dtype == torch.uint8
    assert torch.equal(middle(small, size), area(chip, size))
    assert d.cells(150, size) == 0
    assert torch.equal(d.small_images("area", chip.numpy(), size, 0, range(6)), area(chip, size))


def test_the_margin_holds_what_a_wider_crop_needs():
    for size in range(8, 33):  # EdgeFace's crop begins 28.3 pixels above the chip
        assert d.cells(SIDE, size) * 150 / size >= 28.3


def test_blur_is_a_gaussian_before_the_area(chips):
    size, sigma = 16, d.SIGMA[1] * 150 / 16
    soft = chips.astype(np.float64)
    for axis in (1, 2):
        soft = gaussian_filter1d(soft, sigma, axis=axis, mode="nearest", truncate=5)
    inner = soft[:, MARGIN:-MARGIN, MARGIN:-MARGIN]
    edges = np.arange(17) * 150 / 16
    place = np.minimum(np.arange(150 * 8), 1199) / 8  # an eighth of a pixel is fine enough for the reference
    cell = np.clip(np.searchsorted(edges, place, side="right") - 1, 0, 15)
    fine = np.repeat(np.repeat(inner, 8, 1), 8, 2)
    sums = np.zeros((6, 16, 16, 3))
    rows = np.stack([fine[:, cell == k].mean(1) for k in range(16)], 1)
    sums = np.stack([rows[:, :, cell == k].mean(2) for k in range(16)], 2)
    found = middle(d.small_images("blur", chips, size, 0, range(6)), size).numpy()
    assert np.abs(found - sums).max() <= 1


def test_movement_smears_along_one_direction_only(chips):
    line = np.zeros((1, SIDE, SIDE, 3), np.uint8)
    line[:, :, SIDE // 2 - 4 : SIDE // 2 + 5] = 255  # an upright bar
    still, moved = (d.blurred_weights(SIDE, 16, 0, move) for move in (0, 2))
    across = d.resample(torch.from_numpy(line), still, moved)[0, 12, :, 0].int()
    along = d.resample(torch.from_numpy(line), moved, still)[0, 12, :, 0].int()
    assert (across > 10).sum() > (along > 10).sum()
    assert abs(int(across.sum()) - int(along.sum())) <= 4  # light is moved, not made


def test_noise_has_the_stated_variance():
    for level in (40, 128, 220):
        flat = np.full((1, SIDE, SIDE, 3), level, np.uint8)
        values = d.small_images("noise", flat, 150, 0, [0]).numpy().astype(float)
        assert np.var(values) == pytest.approx(d.GAIN[1] * level + d.READ[1] ** 2 + 1 / 12, rel=0.05)
        assert values.mean() == pytest.approx(level, abs=0.2)


def test_jpeg_is_pillows(chips):
    small = d.small_images("area", chips, 16, 0, range(6)).numpy()
    file = io.BytesIO()
    Image.fromarray(small[2]).save(file, "JPEG", quality=30)
    assert np.array_equal(d.small_images("jpeg", chips, 16, 0, range(6))[2].numpy(), np.array(Image.open(file)))


def test_nearest_takes_pixels_of_the_photograph(chips):
    small = d.small_images("nearest", chips, 15, 0, range(6))  # cells of ten pixels: the middle is pixel 5
    assert np.array_equal(
        middle(small, 15).numpy(), chips[:, MARGIN + 5 : MARGIN + 150 : 10, MARGIN + 5 : MARGIN + 150 : 10]
    )


def test_grey_is_the_area_of_pillows_grey(chips):
    small = d.small_images("grey", chips, 16, 0, range(6))
    assert torch.equal(small[..., 0], small[..., 1]) and torch.equal(small[..., 0], small[..., 2])
    luma = np.stack([np.array(Image.fromarray(chip).convert("L").convert("RGB")) for chip in chips])
    assert torch.equal(small, d.small_images("area", luma, 16, 0, range(6)))


@pytest.mark.parametrize("kind", d.DEGRADATIONS)
def test_a_face_looks_the_same_alone_in_any_company_and_order(chips, kind):
    together = d.small_images(kind, chips, 12, 3, range(10, 16))
    alone = torch.cat([d.small_images(kind, chips[k : k + 1], 12, 3, [10 + k]) for k in range(6)])
    backwards = d.small_images(kind, chips[::-1].copy(), 12, 3, range(15, 9, -1)).flip(0)
    assert torch.equal(together, alone) and torch.equal(together, backwards)
    assert together.shape == (6, 12 + 2 * d.cells(SIDE, 12), 12 + 2 * d.cells(SIDE, 12), 3)


@pytest.mark.parametrize("kind", ["camera", "noise"])
def test_draws_depend_on_seed_image_and_size(chips, kind):
    def view(seed: int, image: int, size: int = 16) -> torch.Tensor:
        return d.small_images(kind, chips[:1], size, seed, [image])

    assert torch.equal(view(0, 0), view(0, 0))
    assert not torch.equal(view(0, 0), view(1, 0)) and not torch.equal(view(0, 0), view(0, 1))
    assert not torch.equal(view(0, 0, 16), view(0, 0, 15)[:, :24, :24])


def test_camera_stays_near_the_face(chips):
    """Weaker than its three faults at their strongest, and different for every face."""
    size, clean = 16, d.small_images("area", chips, 16, 0, range(6)).float()
    twenty = [d.small_images("camera", chips, size, seed, range(6)).float() for seed in range(20)]
    errors = torch.stack([(view - clean).square().mean((1, 2, 3)).sqrt() for view in twenty])
    assert 2 < errors.mean() < 40 and errors.std() > 0.5


@pytest.mark.parametrize("margin", [0, MARGIN])
def test_a_bank_of_area_is_degrade_of_the_chip(chips, margin):
    faces = np.ascontiguousarray(middle(chips, 150) if margin == 0 else chips)
    faces = np.concatenate([faces] * 3)  # once more than two blocks
    faces[0], faces[1] = 255, 0  # where rounding up must not pass the end,
    faces[1, 70:, ::9] = 255  # and overshoot of the cubic kernel is cut
    bank = d.view_bank("area", faces, 8, 12, 32, 0, range(18))
    assert bank.shape == (18, 6, 32, 32, 3) and bank.dtype == np.uint8
    for view, size in enumerate(range(8, 13)):
        assert np.array_equal(bank[:, view], degrade(middle(faces, 150), size, 32))
    assert np.array_equal(bank[:, 5], hr_view(middle(faces, 150), 32))
    assert np.array_equal(mirror(bank), d.view_bank("area", mirror(faces), 8, 12, 32, 0, range(18)))


def test_a_bank_of_a_camera_is_the_middle_of_its_small_images(chips):
    bank = d.view_bank("camera", chips, 15, 16, 40, 3, range(20, 26))
    for view, size in enumerate((15, 16)):
        small = middle(d.small_images("camera", chips, size, 3, range(20, 26)), size)
        assert np.array_equal(bank[:, view], bicubic(small, 40).numpy())
    assert np.array_equal(bank[:, 2], hr_view(middle(chips, 150), 40))
    assert np.array_equal(bank[2:], d.view_bank("camera", chips[2:], 15, 16, 40, 3, range(22, 26)))


def test_the_parameters_know_every_kind():
    kinds = Views.model_fields["kinds"].annotation.__args__[0]
    assert kinds.__args__ == tuple(d.DEGRADATIONS)
