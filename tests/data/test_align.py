import numpy as np
import pytest
from PIL import Image

from lrfr.data import align
from lrfr.data.degrade import middle
from lrfr.errors import UserError


def umeyama(source, target):
    """Independent reference: Umeyama 1991, equations 40 to 43, by singular value decomposition."""
    a, b = source - source.mean(0), target - target.mean(0)
    u, s, vt = np.linalg.svd(b.T @ a / len(a))
    sign = np.diag([1, np.sign(np.linalg.det(u) * np.linalg.det(vt))])
    rotation = u @ sign @ vt
    scale = np.trace(np.diag(s) @ sign) / a.var(0).sum()
    return np.column_stack([scale * rotation, target.mean(0) - scale * rotation @ source.mean(0)])


def apply(matrix, points):
    return points @ matrix[:, :2].T + matrix[:, 2]


def known(angle, scale, shift):
    c, s = scale * np.cos(angle), scale * np.sin(angle)
    return np.array([[c, -s, shift[0]], [s, c, shift[1]]])


def spots(size, points, sigma=2.0):
    """A photograph with one soft white spot at each point."""
    y, x = np.mgrid[0 : size[1], 0 : size[0]]
    light = sum(np.exp(-((x - px) ** 2 + (y - py) ** 2) / (2 * sigma**2)) for px, py in points)
    return Image.fromarray(np.repeat((255 * np.clip(light, 0, 1))[..., None], 3, axis=2).astype(np.uint8))


def spot_centre(chip, near):
    y, x = np.mgrid[0:150, 0:150]
    weight = chip[..., 0] * (np.hypot(x - near[0], y - near[1]) < 12).astype(float)
    return np.array([(weight * x).sum(), (weight * y).sum()]) / weight.sum()


@pytest.mark.parametrize(
    ("angle", "scale", "shift"), [(0, 1, (0, 0)), (0.3, 0.4, (10, -5)), (-2.5, 3.0, (200, 7)), (np.pi, 1, (0, 0))]
)
def test_known_transform_is_recovered(angle, scale, shift):
    matrix = known(angle, scale, shift)
    np.testing.assert_allclose(align.similarity(align.TEMPLATE, apply(matrix, align.TEMPLATE)), matrix, atol=1e-10)


def test_inexact_points_against_umeyama():
    generator = np.random.Generator(np.random.Philox(1))
    for _ in range(20):
        points = align.TEMPLATE + generator.normal(0, 10, (5, 2))
        np.testing.assert_allclose(
            align.similarity(points, align.TEMPLATE), umeyama(points, align.TEMPLATE), atol=1e-10
        )


def test_mirrored_points_are_not_reflected():
    flipped = align.TEMPLATE * [-1, 1]
    assert np.linalg.det(align.similarity(flipped, align.TEMPLATE)[:, :2]) > 0


@pytest.mark.parametrize("points", [np.full((5, 2), 3.0), np.full((5, 2), np.nan)])
def test_impossible_points(points):
    with pytest.raises(UserError, match="landmarks: all points coincide"):
        align.similarity(points, align.TEMPLATE)


def test_template_is_dlibs():
    np.testing.assert_allclose(align.TEMPLATE[2], [(0.25 + 0.4901) * 100, (0.25 + 0.5156) * 100])
    assert (align.TEMPLATE > 0).all() and (align.TEMPLATE < 150).all()
    eyes = align.TEMPLATE[:2]
    assert eyes[0, 0] < 75 < eyes[1, 0] and eyes[1, 0] - eyes[0, 0] == pytest.approx(52.55)


@pytest.mark.parametrize(("angle", "scale"), [(0, 0.55), (0.35, 0.7), (-0.2, 1.0), (0.1, 2.5)])
def test_landmarks_land_on_the_template(angle, scale):
    """Also when the photograph is larger than the chip (scale 2.5)."""
    matrix = known(angle, scale, (0, 0))
    matrix[:, 2] = np.array([200, 220]) - apply(matrix, align.TEMPLATE).mean(0)
    points = apply(matrix, align.TEMPLATE)
    chip = align.chip(spots((400, 440), points, sigma=3 * scale), points, (0, 0, 400, 440))
    assert chip.shape == (150, 150, 3) and chip.dtype == np.uint8
    for target in align.TEMPLATE:
        assert np.abs(spot_centre(chip, target) - target).max() < 0.15


def test_identity_warp_is_exact():
    pixels = np.random.Generator(np.random.Philox(2)).integers(0, 256, (150, 150, 3), dtype=np.uint8)
    assert np.array_equal(align.warp(Image.fromarray(pixels), np.eye(2, 3)), pixels)


def test_beyond_the_border_its_pixels_are_repeated():
    pixels = np.zeros((20, 20, 3), np.uint8)
    pixels[:, 0], pixels[:, 1:] = 200, 100
    chip = align.warp(Image.fromarray(pixels), np.array([[1.0, 0, -60], [0, 1, -60]]))
    assert (chip[:, :60] == 200).all() and (chip[:, 63:] == 100).all() and chip.min() > 90


def test_large_photographs_are_reduced_without_aliasing():
    checkers = (255 * (np.indices((900, 900)).sum(0) % 2)).astype(np.uint8)
    chip = align.warp(Image.fromarray(checkers).convert("RGB"), align.crop_transform((0, 0, 900, 900)))
    assert np.abs(chip[5:-5, 5:-5].astype(int) - 127.5).max() < 3


def test_fallback_crop():
    pixels = np.random.Generator(np.random.Philox(3)).integers(0, 256, (112, 92, 3), dtype=np.uint8)
    soft = Image.fromarray(pixels).resize((23, 28)).resize((92, 112))
    box = (0, 20, 92, 112)
    reference = np.asarray(soft.crop(box).resize((150, 150), Image.Resampling.BICUBIC)).astype(int)
    ours = align.chip(soft, None, box).astype(int)
    assert (
        np.abs(ours - reference)[8:-8, 8:-8].max() <= 6
    )  # another bicubic (a = -3/4), seen only in the steepest places
    assert np.abs(ours - reference).mean() < 1


@pytest.mark.parametrize("margin", [7, 41])
@pytest.mark.parametrize("scale", [0.55, 2.5])
def test_a_margin_leaves_the_chip_as_it_is(margin, scale):
    """Bit for bit, by points and by a crop, in small photographs and in large ones, which are reduced first."""
    pixels = np.random.Generator(np.random.Philox(4)).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    matrix = known(0.3, scale, (30, 20))
    for points in (apply(matrix, align.TEMPLATE), None):
        for box in ((60, 20, 340, 290), None):
            wide = align.chip(Image.fromarray(pixels), points, box, margin)
            assert wide.shape == (150 + 2 * margin, 150 + 2 * margin, 3)
            assert np.array_equal(middle(wide[None], 150)[0], align.chip(Image.fromarray(pixels), points, box))


def test_without_a_box_the_middle_is_cropped():
    assert align.middle((92, 112)) == (0, 10, 92, 102) and align.middle((300, 100)) == (100, 0, 200, 100)
