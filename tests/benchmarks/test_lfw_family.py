from __future__ import annotations

import numpy as np
import pytest

from lrfr.benchmarks import lfw_family
from lrfr.evaluate.verification import area_under_roc, equal_error_rate
from tests.evaluate.embeddings import failed, people
from tests.evaluate.test_verification import COSINES, SAME


def pairs_of(cosines):
    """Rows 2i and 2i + 1 with these cosines, of various lengths."""
    cosines = np.asarray(cosines)
    rows = np.empty((2 * len(cosines), 2))
    rows[::2], rows[1::2, 0], rows[1::2, 1] = (1, 0), cosines, np.sqrt(1 - cosines**2)
    return rows * np.linspace(0.5, 7, len(rows))[:, None]


def test_e1():
    outcome = lfw_family.evaluate(pairs_of(COSINES), SAME)
    assert outcome.metrics["accuracy"] == pytest.approx(0.80, abs=1e-12)
    assert outcome.metrics["accuracy_std"] == pytest.approx(np.sqrt(0.06), abs=1e-12)
    assert outcome.metrics["accuracy_exact"] == pytest.approx(0.75, abs=1e-12)
    assert outcome.metrics["auc"] == pytest.approx(0.95, abs=1e-12)
    assert outcome.counts == {"genuine": 10, "impostor": 10, "fta_images": 0, "fta_pairs": 0}
    assert outcome.decisions["accuracy"].sum() == 16


def slow_accuracy(images, same):
    """The toolkit's loops. images (2n, D)."""
    distances = []
    for a, b in zip(images[::2].astype(float), images[1::2].astype(float), strict=True):
        difference = a / np.linalg.norm(a) - b / np.linalg.norm(b)
        distances.append(np.inf if failed(a) or failed(b) else sum(x * x for x in difference))
    right, size = [], len(same) // 10
    for fold in range(10):
        test = range(fold * size, (fold + 1) * size)
        train = [i for i in range(len(same)) if i not in test]
        best = max((k * 0.01 for k in range(400)), key=lambda t: sum((distances[i] < t) == same[i] for i in train))
        right += [(distances[i] < best) == same[i] for i in test]
    return np.array(right)


@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_loops(seed):
    rng = np.random.default_rng(seed)
    same = rng.permutation(np.arange(80) < 40)
    first = rng.integers(0, 30, 80)
    images = people(rng, np.column_stack([first, np.where(same, first, first + 30)]).ravel(), 1.0)
    images[rng.choice(160, 6, replace=False)] = np.nan
    outcome = lfw_family.evaluate(images, same)
    right = slow_accuracy(images, same)
    np.testing.assert_array_equal(outcome.decisions["accuracy"], right)
    assert outcome.metrics["accuracy"] == pytest.approx(np.mean(right), abs=1e-12)
    assert outcome.metrics["accuracy_std"] == pytest.approx(np.std(right.reshape(10, 8).mean(axis=1)), abs=1e-12)
    assert outcome.counts["fta_images"] == 6 and 3 <= outcome.counts["fta_pairs"] <= 6
    ones = np.ones(80)
    for metric, statistic in outcome.statistics.items():
        assert statistic(ones) == pytest.approx(outcome.metrics[metric], abs=1e-12)


def test_a_failed_pair_is_never_the_same_person():
    images = pairs_of(np.where(SAME, 0.9, 0.0))
    assert lfw_family.evaluate(images, SAME).metrics["accuracy"] == 1
    images[0] = np.nan  # of a genuine pair
    outcome = lfw_family.evaluate(images, SAME)
    assert outcome.metrics["accuracy"] == pytest.approx(0.95) and outcome.metrics["accuracy_exact"] == pytest.approx(
        0.95
    )
    assert not outcome.decisions["accuracy"][0]
    images[0], images[2] = images[4], np.nan  # of an impostor pair: rejected, hence right
    assert lfw_family.evaluate(images, SAME).decisions["accuracy"][1]


def test_weighted_rates_are_those_of_verification():
    outcome = lfw_family.evaluate(pairs_of(COSINES), SAME)
    weights = np.random.default_rng(0).integers(1, 4, 20)
    assert outcome.statistics["auc"](weights) == pytest.approx(area_under_roc(COSINES, SAME, weights), abs=1e-12)
    assert outcome.statistics["eer"](weights) == pytest.approx(equal_error_rate(COSINES, SAME, weights), abs=1e-12)
    right = outcome.decisions["accuracy"]
    expected = np.mean([np.average(right[kind], weights=weights[kind]) for kind in (SAME, ~SAME)])
    assert outcome.statistics["accuracy"](weights) == pytest.approx(expected, abs=1e-12)


def test_bad_input_is_one_clear_sentence():
    with pytest.raises(ValueError, match="half as many pairs"):
        lfw_family.evaluate(pairs_of(COSINES)[:-1], SAME)
    with pytest.raises(ValueError, match="10 folds"):
        lfw_family.evaluate(pairs_of(COSINES)[:16], SAME[:8])
    with pytest.raises(ValueError, match="not finite"):
        lfw_family.evaluate(np.where(np.eye(40, 2) == 1, np.inf, pairs_of(COSINES)), SAME)
