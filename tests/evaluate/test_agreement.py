from __future__ import annotations

import numpy as np
import pytest

from lrfr.evaluate.agreement import spearman


def slow_ranks(values):
    return [sum(v < x for v in values) + (sum(v == x for v in values) + 1) / 2 for x in values]


@pytest.mark.parametrize("decimals", [1, 9])
def test_agrees_with_ranks_by_counting(decimals):
    rng = np.random.default_rng(0)
    a = np.round(rng.normal(size=90), decimals)
    b = np.round(a + rng.normal(size=90), decimals)
    assert spearman(a, b) == pytest.approx(np.corrcoef(slow_ranks(a), slow_ranks(b))[0, 1], abs=1e-12)


def test_weights_are_repetitions():
    rng = np.random.default_rng(1)
    a, weights = np.round(rng.normal(size=60), 1), rng.integers(0, 4, 60)
    b = np.round(a + rng.normal(size=60), 1)
    assert spearman(a, b, weights) == pytest.approx(spearman(np.repeat(a, weights), np.repeat(b, weights)), abs=1e-12)


def test_known_values_and_monotone_changes():
    a = np.array([0.1, 0.5, 0.3, 0.9])
    assert spearman(a, np.exp(a)) == pytest.approx(1, abs=1e-12)
    assert spearman(a, -(a**3)) == pytest.approx(-1, abs=1e-12)
    assert spearman([1, 2, 3, 4, 5], [2, 1, 4, 3, 5]) == pytest.approx(1 - 6 * 4 / (5 * 24), abs=1e-12)


@pytest.mark.parametrize(
    ("a", "b", "words"), [([1, 2], [1, 2, 3], "one length"), ([1, np.nan], [1, 2], "NaN"), ([1, 1], [1, 2], "constant")]
)
def test_bad_input_is_one_clear_sentence(a, b, words):
    with pytest.raises(ValueError, match=words):
        spearman(a, b)
