import numpy as np
import pytest
from PIL import Image, ImageEnhance

from lrfr.data import duplicates


def photograph(seed, size=(100, 90)):
    rng = np.random.Generator(np.random.Philox(key=seed))
    return Image.fromarray(rng.integers(0, 256, (9, 10, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)


def cosine(a, b):
    a, b = (np.asarray(x.convert("L").resize((24, 24), Image.Resampling.BOX), np.float64).ravel() for x in (a, b))
    a, b = a - a.mean(), b - b.mean()
    return a @ b / np.linalg.norm(a) / np.linalg.norm(b)


@pytest.mark.parametrize("block", [2, 512])
def test_pairs_and_their_kinds(monkeypatch, block):
    monkeypatch.setattr(duplicates, "BLOCK", block)
    one = photograph(0)
    darker = ImageEnhance.Brightness(one).enhance(0.7)
    images = [one, photograph(1), darker, photograph(2), one.copy(), one.resize((250, 250))]
    names, people = list("abcdef"), np.array([0, 1, 0, 2, 3, 0])
    table = duplicates.find([duplicates.look(image) for image in images], names, people)
    assert list(table.columns) == duplicates.COLUMNS
    assert list(zip(table["name_a"], table["name_b"], strict=True)) == [
        tuple(pair) for pair in ("ac", "ae", "af", "ce", "cf", "ef")
    ]
    assert table["same_person"].tolist() == [1, 0, 1, 0, 1, 0] and table["identical"].tolist() == [0, 1, 0, 0, 0, 0]
    for row in table.itertuples():
        assert abs(row.cosine - cosine(images[row.image_a], images[row.image_b])) < 1e-4
    assert np.flatnonzero(duplicates.removed(table, 6)).tolist() == [0, 2, 4, 5]


def test_nothing_found_and_nothing_removed():
    table = duplicates.find([duplicates.look(photograph(seed)) for seed in range(3)], list("abc"), np.arange(3))
    assert len(table) == 0 and list(table.columns) == duplicates.COLUMNS and not duplicates.removed(table, 3).any()


def test_one_person_twice_is_not_removed():
    looks = [duplicates.look(photograph(0))] * 2
    table = duplicates.find(looks, list("ab"), np.zeros(2, int))
    assert len(table) == 1 and not duplicates.removed(table, 2).any()


def test_photographs_in_one_colour():
    looks = [duplicates.look(Image.new("RGB", (9, 9), (level,) * 3)) for level in (10, 10, 20)]
    table = duplicates.find([*looks, duplicates.look(photograph(0))], list("abcd"), np.arange(4))
    assert table[["image_a", "image_b", "identical"]].values.tolist() == [[0, 1, 1]]


def test_equal_pixels_in_another_shape_are_not_identical():
    a, b = duplicates.look(Image.new("RGB", (4, 9))), duplicates.look(Image.new("RGB", (9, 4)))
    assert a.digest != b.digest
