import hashlib
from fractions import Fraction

import numpy as np
import pytest
import torch
from PIL import Image

from lrfr.data import degrade as d
from lrfr.data.photographs import read_manifest
from lrfr.errors import UserError
from lrfr.gate.images import read_image
from lrfr.sources import orl


def noise(shape, seed=0):
    return np.random.Generator(np.random.Philox(seed)).integers(0, 256, shape, dtype=np.uint8)


def smooth(batch=3, height=150, width=150):
    """Curved gradients of different strength per channel, as uint8 (B, H, W, 3)."""
    b, y, x, c = np.meshgrid(np.arange(batch), np.arange(height), np.arange(width), np.arange(3), indexing="ij")
    return (127.5 + 120 * np.sin((b + 1) * x / 31 + c) * np.cos(y / (17 + 3 * c))).astype(np.uint8)


@pytest.fixture
def faces(manifest):
    photographs = orl.Photographs()
    images = [read_image(photographs.read(name)) for name in read_manifest(manifest)["name"][::90]]
    return np.stack([np.asarray(image.resize((150, 150), Image.Resampling.BICUBIC)) for image in images])


def pillow(images, size, kernel):
    return np.stack([np.asarray(Image.fromarray(image).resize((size, size), kernel)) for image in images])


def difference(a, b):
    return np.abs(a.astype(int) - b.astype(int)).max()


class TestKernels:
    @pytest.mark.parametrize(("source", "target"), [(150, 7), (150, 32), (112, 28), (10, 3), (5, 5)])
    def test_area_weights_are_overlaps(self, source, target):
        reference = [
            [
                max(Fraction(0), min(Fraction((i + 1) * source, target), j + 1) - max(Fraction(i * source, target), j))
                * target
                for j in range(source)
            ]
            for i in range(target)
        ]
        assert d.area_weights(source, target).tolist() == [[float(w) for w in row] for row in reference]

    @pytest.mark.parametrize(("source", "target"), [(8, 32), (12, 32), (32, 32), (16, 150), (40, 32), (64, 17)])
    def test_bicubic_weights_are_keys_kernel(self, source, target):
        scale = max(Fraction(source, target), Fraction(1))

        def kernel(x):
            x = abs(x)
            if x < 1:
                return Fraction(3, 2) * x**3 - Fraction(5, 2) * x**2 + 1
            return -Fraction(1, 2) * x**3 + Fraction(5, 2) * x**2 - 4 * x + 2 if x < 2 else Fraction(0)

        ours = d.bicubic_weights(source, target)
        for i in range(target):
            centre = (i + Fraction(1, 2)) * Fraction(source, target)
            row = [kernel((j + Fraction(1, 2) - centre) / scale) for j in range(source)]
            reference = [float(w / sum(row)) for w in row]
            np.testing.assert_allclose((ours[i] / ours[i].sum()).numpy(), reference, rtol=0, atol=1e-15)

    def test_weights_are_whole_and_sums_exact(self):
        for size in range(8, 65):
            for weights in (d.area_weights(150, size), d.bicubic_weights(size, 32), d.bicubic_weights(size, 150)):
                assert (weights == weights.round()).all()
                assert 255 * weights.abs().sum(1).max() * d.FIXED * 255 < 2**53
                assert (weights == weights.flip(0, 1)).all()


def exact_area(images, size):
    """Reference in integers: every pixel becomes `size` equal ones along each axis: cells are whole; halves go up."""
    height, width = images.shape[1:3]
    rows = images.astype(np.int64).repeat(size, axis=1).reshape(-1, size, height, width, 3).sum(axis=2)
    cells = rows.repeat(size, axis=2).reshape(-1, size, size, width, 3).sum(axis=3)
    return ((2 * cells + height * width) // (2 * height * width)).astype(np.uint8)


class TestReferences:
    """Pillow rounds to whole grey levels between the two directions, we to 1/1024: one level is its rounding."""

    @pytest.mark.parametrize("size", [7, 8, 12, 16, 20, 24, 28, 32])
    def test_area_is_the_mean_over_cells(self, faces, size):
        for images in (faces[:2], smooth(1), noise((1, 112, 92, 3))):
            assert difference(d.area(torch.from_numpy(images), size).numpy(), exact_area(images, size)) <= 1

    @pytest.mark.parametrize("size", [10, 15, 25, 30, 50])
    def test_area_is_pillows_box_where_cells_are_whole(self, faces, size):
        for images in (faces, smooth(), noise((2, 150, 150, 3))):
            assert (
                difference(d.area(torch.from_numpy(images), size).numpy(), pillow(images, size, Image.Resampling.BOX))
                <= 1
            )

    @pytest.mark.parametrize(("size", "out"), [(8, 32), (13, 32), (32, 32), (40, 32), (8, 150), (64, 20)])
    def test_up_is_pillows_bicubic(self, faces, size, out):
        small = exact_area(faces, size)
        assert (
            difference(d.bicubic(torch.from_numpy(small), out).numpy(), pillow(small, out, Image.Resampling.BICUBIC))
            <= 1
        )

    @pytest.mark.parametrize("size", [8, 16, 24, 32])
    def test_the_whole(self, faces, size):
        reference = pillow(exact_area(faces, size), 32, Image.Resampling.BICUBIC)
        assert difference(d.degrade(faces, size, 32), reference) <= 2  # one level from each of the two resizes

    @pytest.mark.parametrize("size", [8, 16, 32])
    def test_antialiased_bicubic_would_look_alike(self, faces, size):
        other = pillow(faces, size, Image.Resampling.BICUBIC).astype(int)
        assert np.abs(d.area(torch.from_numpy(faces), size).numpy() - other).mean() < 4
        aliased = faces[:, 150 // size // 2 :: 150 // size, 150 // size // 2 :: 150 // size][:, :size, :size].astype(
            int
        )
        assert np.abs(aliased - other).mean() > 4  # the kernel that this test guards against


@pytest.mark.parametrize(("size", "std"), [(7, 4.7), (14, 9.2), (28, 18.4)])
def test_antialiasing_of_white_noise(size, std):
    images = noise((40, 112, 112, 3))
    assert abs(images.std() - 73.9) < 0.2
    small = d.area(torch.from_numpy(images), size).numpy()
    assert small.std() == pytest.approx(std, abs=0.1)  # aliased kernels leave 36 to 54


@pytest.mark.parametrize("value", [0, 1, 127, 254, 255])
def test_constant_images_stay_constant(value):
    images = np.full((1, 150, 150, 3), value, np.uint8)
    for out in (d.degrade(images, 11, 32), d.degrade(images, 64, 48), d.hr_view(images, 32), d.hr_view(images, 160)):
        assert (out == value).all()


def test_energy_and_overshoot():
    edge = np.zeros((1, 150, 150, 3), np.uint8)
    edge[:, :, 75:] = 255
    out = d.degrade(edge, 10, 32)
    assert out.mean() == pytest.approx(127.5, abs=1)  # the kernels keep the mean, up to rounding and clamping
    assert (out[0, :, :10] == 0).all() and (out[0, :, -10:] == 255).all()  # overshoot is clamped, never wraps


def test_mean_of_whole_cells():
    image = noise((1, 12, 12, 3))
    cells = image.reshape(1, 3, 4, 3, 4, 3).astype(float).mean(axis=(2, 4))
    assert difference(d.area(torch.from_numpy(image), 3).numpy(), np.floor(cells + 0.5)) == 0


def test_half_rounds_up():
    image = np.zeros((1, 2, 2, 3), np.uint8)
    image[0, 0] = 1  # cell mean exactly 1/2
    assert (d.degrade(image, 1, 1) == 1).all()


@pytest.mark.parametrize("shape", [(2, 150, 150, 3), (1, 112, 92, 3), (0, 150, 150, 3)])
def test_shapes_and_kinds(shape):
    images = noise(shape)
    for kind in (images, torch.from_numpy(images)):
        for out in (d.degrade(kind, 8, 32), d.hr_view(kind, 32)):
            assert (
                type(out) is type(kind)
                and tuple(out.shape) == (shape[0], 32, 32, 3)
                and str(out.dtype).endswith("uint8")
            )
    assert np.array_equal(d.degrade(images, 8, 32), d.degrade(torch.from_numpy(images), 8, 32).numpy())


def test_inputs_are_not_changed_and_may_be_strided():
    images = noise((2, 150, 150, 3))
    before = images.copy()
    assert np.array_equal(d.degrade(images[:, ::-1], 8, 32), d.degrade(np.ascontiguousarray(images[:, ::-1]), 8, 32))
    assert np.array_equal(images, before)


@pytest.mark.parametrize("size", [8, 11, 16, 31, 32, 40])
def test_mirror_commutes_exactly(size):
    images = noise((3, 150, 150, 3))
    for out in (32, 45, 150):
        assert np.array_equal(d.degrade(d.mirror(images), size, out), d.mirror(d.degrade(images, size, out)))
    assert np.array_equal(d.hr_view(d.mirror(images), size), d.mirror(d.hr_view(images, size)))
    assert torch.equal(d.mirror(torch.from_numpy(images)), torch.from_numpy(d.mirror(images)))


def test_result_does_not_depend_on_the_batch():
    images = noise((7, 150, 150, 3))
    alone = np.concatenate([d.degrade(image[None], 12, 32) for image in images])
    assert np.array_equal(d.degrade(images, 12, 32), alone)


def test_channels_do_not_mix():
    images = noise((1, 60, 60, 3))
    assert np.array_equal(d.degrade(images[..., ::-1], 9, 32), d.degrade(images, 9, 32)[..., ::-1])


def test_pinned_bytes():
    """The arithmetic is exact, so these bytes hold on every machine; another kernel or rounding changes them."""
    images = smooth()
    digest = hashlib.sha256()
    for size in (8, 16, 24, 32):
        digest.update(d.degrade(images, size, 32).tobytes())
    assert digest.hexdigest()[:16] == "111f43e78ced3cd7"


def test_hr_view():
    images = noise((2, 150, 150, 3))
    assert np.array_equal(d.hr_view(images, 150), images)
    assert difference(d.hr_view(images, 32), exact_area(images, 32)) <= 1
    images = smooth()  # not noise: Pillow also clamps between the two directions
    assert difference(d.hr_view(images, 160), pillow(images, 160, Image.Resampling.BICUBIC)) <= 1


@pytest.mark.parametrize(("size", "out"), [(0, 32), (-3, 32), (151, 32), (8, 0)])
def test_impossible_sizes(size, out):
    with pytest.raises(UserError, match="size"):
        d.degrade(noise((1, 150, 150, 3)), size, out)


@pytest.mark.parametrize(
    "images",
    [np.zeros((1, 150, 150, 3), np.float32), np.zeros((150, 150, 3), np.uint8), np.zeros((1, 3, 150, 150), np.uint8)],
)
def test_wrong_images(images):
    with pytest.raises(UserError, match=r"uint8 \(B, H, W, 3\)"):
        d.degrade(images, 8, 32)
