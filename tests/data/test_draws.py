"""What a student sees is a function of (seed, epoch, image), and nobody fills an epoch."""

from __future__ import annotations

import numpy as np
import pytest

from lrfr.data.draws import LUMA, MOST, PER_PERSON, epoch_batches, epoch_draws, stream, view_index

SPEC = {"smallest": 8, "largest": 32, "hr": 0.2, "jitter": 0.2, "grey": 0.0, "cast": 0.0, "kinds": 1}

PINNED = {  # seed 5, epoch 3, the first three images
    "resolution": [[10, 24], [8, 31], [0, 23]],
    "mirrored": [[False, False], [True, False], [True, False]],
    "gain": [[1.041947, 0.90077], [0.911239, 0.992102], [1.088454, 1.001608]],
    "bias": [[0.187769, 0.142442], [-0.181981, -0.114416], [-0.179398, 0.19766]],
    "moves": [
        [-0.176106, 0.699689, 0.353799, 0.315252],
        [0.309535, 0.431162, -0.072587, 0.298124],
    ],  # of two second halves
}


def draws(seed: int = 0, epoch: int = 0, images: int = 50, **change: float):
    return epoch_draws(seed, epoch, images, **(SPEC | change))


def test_more_images_leave_the_draws_of_the_first_ones_alone():
    few, many = draws(images=50), draws(images=5000)
    assert all(np.array_equal(a, b[:50]) for a, b in zip(few, many, strict=True))


def test_draws_do_not_depend_on_what_was_drawn_before_or_on_the_global_generator():
    np.random.seed(0)  # noqa: NPY002
    first = draws(3, 7)
    draws(3, 8), draws(4, 7), np.random.random(9)  # noqa: NPY002
    assert all(np.array_equal(a, b) for a, b in zip(first, draws(3, 7), strict=True))


def test_another_seed_epoch_or_half_draws_anew():
    base = draws(1, 2, 2000).resolution
    for other in (
        draws(2, 2, 2000).resolution,
        draws(1, 3, 2000).resolution,
        draws(2, 1, 2000).resolution,
        base[:, ::-1],
    ):
        assert np.mean(base == other) < 0.2  # equal by chance: about 0.2^2 + 0.8^2 / 25


def test_shapes_and_ranges():
    found = draws(images=4000)
    assert all(field.shape == (4000, 2) for field in (*found[:-3], found.kind)) and found.moves.shape == (4000, 2, 4)
    assert found.gain.dtype == found.bias.dtype == np.float32
    assert set(np.unique(found.resolution)) == {0, *range(8, 33)}
    assert np.abs(found.gain - 1).max() <= 0.2 and np.abs(found.bias).max() <= 0.2
    assert np.abs(found.bias).max() > 0.19 and np.abs(found.gain - 1).max() > 0.19
    assert 0.48 < found.mirrored.mean() < 0.52
    assert found.moves.dtype == np.float32 and 0.999 < np.abs(found.moves).max() <= 1
    assert np.abs(found.moves.mean((0, 1))).max() < 4 / np.sqrt(3 * 8000)  # 4 standard errors
    columns = [found.moves[..., k] for k in range(4)]
    pairs = [(columns[i], columns[j]) for i in range(4) for j in range(i)] + [(found.gain, c) for c in columns]
    for one, other in ((found.gain, found.bias), (found.gain, found.mirrored), (found.resolution, found.bias), *pairs):
        assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.05


def test_resolutions_are_log_uniform_and_one_fifth_is_hr():
    resolution = draws(images=50_000).resolution.ravel()
    low = resolution[resolution > 0]
    assert (resolution == 0).mean() == pytest.approx(0.2, abs=0.006)  # 4 standard errors of 100,000 draws
    for side in (8, 9, 15, 16, 31, 32):
        expected = np.log((side + 1) / side) / np.log(33 / 8)
        assert (low == side).mean() == pytest.approx(expected, abs=4 * np.sqrt(expected / len(low)))
    octaves = [np.mean((low >= 8) & (low < 16)), np.mean((low >= 16) & (low < 32))]
    assert octaves[0] == pytest.approx(octaves[1], abs=0.01)


@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_hr_never_or_always(probability: float):
    assert np.all((draws(hr=probability).resolution == 0) == bool(probability))


def test_one_size_is_always_that_size():
    assert set(np.unique(draws(smallest=16, largest=16).resolution)) == {0, 16}


def test_streams_are_independent():
    keys = [("views", 5, 3), ("views", 5, 4), ("views", 6, 3), ("sampler", 5, 3), ("moves", 5, 3)]
    found = np.corrcoef([stream(*key).random(1000) for key in keys])
    assert np.abs(found - np.eye(len(keys))).max() < 0.12


def people(*sizes: int) -> tuple[np.ndarray, np.ndarray]:
    """Images (numbers with gaps, in no order of people) and their labels."""
    labels = np.random.Generator(np.random.Philox(key=1)).permutation(np.repeat(np.arange(len(sizes)), sizes))
    return 3 * np.arange(len(labels)) + 100, labels


def test_the_balanced_half_is_people_times_four():
    images, labels = people(*(10,) * 24)
    person = dict(zip(images.tolist(), labels.tolist(), strict=True))
    batches = epoch_batches(0, 0, images, labels, 64, 8)
    assert len(batches) == round(240 / 64)
    for ids, half in batches:
        assert ids.shape == half.shape == (64,) and np.sum(half == 1) == 32
        turns = ids[half == 1].reshape(8, PER_PERSON)
        assert all(len({person[i] for i in turn}) == 1 and len(set(turn)) == PER_PERSON for turn in turns.tolist())
        assert len({person[turn[0]] for turn in turns.tolist()}) == 8
        assert len(set(ids[half == 0])) == 32


def test_no_image_comes_twice_in_the_uniform_part_of_an_epoch():
    images, labels = people(*(10,) * 24)
    uniform = np.concatenate([ids[half == 0] for ids, half in epoch_batches(0, 0, images, labels, 64, 8)])
    assert len(set(uniform)) == len(uniform)


@pytest.mark.parametrize("sizes", [(500, *(10,) * 12), (500, 500, 4), (500,), (500, 1, 1, 1)])
def test_nobody_exceeds_his_share(sizes: tuple[int, ...]):
    images, labels = people(*sizes)
    person = dict(zip(images.tolist(), labels.tolist(), strict=True))
    for epoch in range(5):
        batches = epoch_batches(0, epoch, images, labels, 32, 4)
        ids, half = (np.concatenate(parts) for parts in zip(*batches, strict=True))
        for part, most in ((ids, MOST), (ids[half == 0], MOST // 2), (ids[half == 1], MOST // 2)):
            assert np.bincount([person[i] for i in part.tolist()], minlength=len(sizes)).max() <= most


def test_people_with_few_images_are_in_the_uniform_part_only():
    images, labels = people(*(3,) * 20, *(6,) * 10)
    person = dict(zip(images.tolist(), labels.tolist(), strict=True))
    seen = np.zeros((2, 30), dtype=int)
    for epoch in range(10):
        for ids, half in epoch_batches(0, epoch, images, labels, 32, 4):
            for image, part in zip(ids.tolist(), half.tolist(), strict=True):
                seen[part, person[image]] += 1
    assert seen[1, :20].sum() == 0 and np.all(seen[0] > 0) and np.all(seen[1, 20:] > 0)


def test_if_nobody_has_four_images_every_batch_is_uniform():
    images, labels = people(*(2,) * 50)
    batches = epoch_batches(0, 0, images, labels, 20, 3)
    assert [len(ids) for ids, _ in batches] == [20] * 5 and not any(half.any() for _, half in batches)


def test_batches_are_the_same_twice_and_differ_between_epochs_and_seeds():
    images, labels = people(*(10,) * 8)
    base = epoch_batches(1, 2, images, labels, 16, 2)
    assert all(
        np.array_equal(a, b)
        for x, y in zip(base, epoch_batches(1, 2, images, labels, 16, 2), strict=True)
        for a, b in zip(x, y, strict=True)
    )
    for other in (epoch_batches(1, 3, images, labels, 16, 2), epoch_batches(2, 2, images, labels, 16, 2)):
        assert not np.array_equal(base[0][0], other[0][0])


def test_what_is_drawn_is_pinned():
    """As of version 0.8.0: what a seed draws is part of every published number."""
    found = draws(seed=5, epoch=3, images=3)
    assert found.resolution.tolist() == PINNED["resolution"] and found.mirrored.tolist() == PINNED["mirrored"]
    assert np.allclose(found.gain, PINNED["gain"], atol=1e-6) and np.allclose(found.bias, PINNED["bias"], atol=1e-6)
    assert np.allclose(found.moves[:2, 1], PINNED["moves"], atol=1e-6)


def test_moves_do_not_depend_on_the_other_settings():
    first, second = draws(2, 1, jitter=0.2, hr=0.2), draws(2, 1, jitter=0.0, hr=1.0, largest=16)
    assert np.array_equal(first.moves, second.moves)
    assert not np.array_equal(first.moves, draws(2, 2).moves) and not np.array_equal(first.moves, draws(3, 1).moves)
    assert not np.array_equal(first.moves[:, 0], first.moves[:, 1])  # each half of a batch has its own


def test_without_grey_and_cast_all_draws_are_as_they_were_and_colours_stay():
    """The other fields are pinned above; the colour is the identity to the bit."""
    plain, coloured = draws(5, 3, 500), draws(5, 3, 500, grey=0.4, cast=0.2)
    same = [name for name in plain._fields if name != "colour"]
    assert all(np.array_equal(getattr(plain, name), getattr(coloured, name)) for name in same)
    assert plain.colour.dtype == np.float32 and np.array_equal(plain.colour, np.tile(np.eye(3), (500, 2, 1, 1)))
    assert np.array_equal(draws(5, 3, 50, grey=0.4, cast=0.2).colour, coloured.colour[:50])


def test_a_share_is_grey_and_the_others_have_a_cast():
    colour = draws(images=20_000, grey=0.3, cast=0.2).colour.reshape(-1, 3, 3)
    grey = (colour == np.float32(LUMA)).all((1, 2))
    assert grey.mean() == pytest.approx(0.3, abs=4 * np.sqrt(0.3 * 0.7 / 40_000))
    gains = colour[~grey].diagonal(0, 1, 2)
    assert np.array_equal(colour[~grey], gains[:, None] * np.eye(3, dtype=np.float32))
    assert np.ptp(gains, axis=1).max() <= 0.2 and np.ptp(gains, axis=1).max() > 0.19
    assert np.abs(gains - 1).max() <= 0.1 + 1e-6 and np.abs(gains.mean(0) - 1).max() < 0.002
    assert np.abs(np.corrcoef(gains.T) - np.eye(3)).max() < 0.03
    assert not np.array_equal(draws(epoch=1, grey=0.3).colour, draws(grey=0.3).colour)
    assert sum(LUMA) == pytest.approx(1, abs=1e-12)  # so a normalised view may be mixed like its pixels
    everybody = draws(images=100, grey=1.0, cast=0.2).colour
    assert np.array_equal(everybody, np.broadcast_to(np.float32(LUMA), everybody.shape))


def test_people_without_a_photograph_take_no_turn():
    """Numbers of people may have gaps."""
    images, labels = people(*(6,) * 5)
    batches = epoch_batches(0, 0, images, 2 * labels + 1, 12, 2)
    same = epoch_batches(0, 0, images, labels, 12, 2)
    assert all(np.array_equal(a, b) for x, y in zip(batches, same, strict=True) for a, b in zip(x, y, strict=True))


def test_the_view_index_is_the_second_axis_of_the_bank():
    from lrfr.data.degradations import view_bank
    from lrfr.data.degrade import degrade, hr_view

    chips = np.random.Generator(np.random.Philox(key=2)).integers(0, 256, (1, 150, 150, 3), dtype=np.uint8)
    bank = view_bank("area", chips, 8, 12, 16, 0, [0])
    assert view_index(np.array([8, 10, 12, 0]), 8, 12).tolist() == [0, 2, 4, 5]
    for side in (8, 10, 12):
        assert np.array_equal(bank[:, int(view_index(np.array(side), 8, 12))], degrade(chips, side, 16))
    assert np.array_equal(bank[:, int(view_index(np.array(0), 8, 12))], hr_view(chips, 16))
