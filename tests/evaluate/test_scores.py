"""The one error that may choose anything."""

from __future__ import annotations

import numpy as np
import pytest

from lrfr.evaluate.scores import pair_error
from lrfr.evaluate.verification import equal_error_rate


def faces(people: int, images: int, noise: float) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.Generator(np.random.Philox(key=4))
    person = rng.permutation(np.repeat(np.arange(people), images)) * 7 + 3  # any numbers, in any order
    return (rng.normal(size=(7 * people + 3, 16))[person] + noise * rng.normal(size=(people * images, 16))).astype(
        np.float32
    ), person


@pytest.mark.parametrize("noise", [0.5, 1.5, 3.0])
def test_every_pair_counts_once_at_its_distance(noise: float):
    x, person = faces(5, 4, noise)
    pairs = [(i, j) for i in range(20) for j in range(i)]
    scores = np.array([-np.linalg.norm(x[i].astype(float) - x[j]) for i, j in pairs])
    expected = equal_error_rate(scores, np.array([person[i] == person[j] for i, j in pairs]))
    assert pair_error(x, person) == pytest.approx(expected, abs=1e-12)
    order = np.random.Generator(np.random.Philox(key=5)).permutation(20)
    assert pair_error(x[order], person[order]) == pytest.approx(expected, abs=1e-12)


def test_people_far_apart_and_people_alike():
    x, person = faces(4, 3, 0.01)
    assert pair_error(x, person) == 0
    assert pair_error(np.ones_like(x), person) == 0.5


def test_a_common_offset_does_not_matter():
    """Raw embeddings of the teacher lie in a narrow cone, far from zero against their differences."""
    x, person = faces(5, 4, 1.5)
    assert pair_error(x.astype(np.float64) + 1000, person) == pytest.approx(pair_error(x, person), abs=1e-12)
