from __future__ import annotations

import numpy as np
import pytest

from lrfr.evaluate.agreement import spearman
from lrfr.evaluate.bootstrap import DensePairs, first_true
from lrfr.evaluate.identification import rank_k
from lrfr.evaluate.statistics import identity_bootstrap, identity_counts, percentile
from lrfr.evaluate.verification import area_under_roc, balanced_accuracy, equal_error_rate, tar_at_far

PEOPLE, DRAWS, SEED, FAR, THRESHOLD = 6, 120, 5, 0.05, -2.0
LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(PEOPLE), [3, 4, 3, 5, 2, 3]))
METRICS = {
    "eer": equal_error_rate,
    "auc": area_under_roc,
    "tar@far=0.05": lambda s, y, w: tar_at_far(s, y, FAR, w),
    "accuracy": lambda s, y, w: balanced_accuracy(s, y, THRESHOLD, w),
}


def drawn(decimals: int, seed: int = 0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(PEOPLE, 4))[LABELS] + 0.8 * rng.normal(size=(len(LABELS), 4))
    return np.round(-np.linalg.norm(x[:, None] - x[None], axis=-1), decimals)


@pytest.fixture(scope="module")
def pairs():
    return DensePairs(LABELS, identity_counts(PEOPLE, DRAWS, SEED))


@pytest.mark.parametrize("decimals", [1, 9])  # with many ties, and with hardly any
@pytest.mark.parametrize("metric", METRICS)
def test_equals_the_public_functions_draw_by_draw(pairs, metric, decimals):
    scores = pairs.scores(drawn(decimals))
    fast = pairs.verification(scores, THRESHOLD, (FAR,))[metric]
    a, b = LABELS[pairs.first], LABELS[pairs.second]
    assert fast[0] == pytest.approx(METRICS[metric](scores, a == b, np.ones(len(a))), abs=1e-12)
    for counts, value in zip(identity_counts(PEOPLE, DRAWS, SEED), fast[1:], strict=True):
        weights = np.where(a == b, counts[a], counts[a] * counts[b])
        assert value == pytest.approx(METRICS[metric](scores, a == b, weights), abs=1e-12)


@pytest.mark.parametrize("metric", METRICS)
def test_mean_over_folds_equals_identity_bootstrap_with_strata(metric):
    """Two folds, two different models: the mean of the folds' metrics, people drawn within folds."""
    folds = [DensePairs(LABELS, identity_counts(PEOPLE, DRAWS, SEED, k)) for k in range(2)]
    scores = [fold.scores(drawn(2, seed)) for seed, fold in enumerate(folds)]
    fast = np.mean([f.verification(s, THRESHOLD, (FAR,))[metric] for f, s in zip(folds, scores, strict=True)], axis=0)
    stratum = np.repeat([0, 1], len(scores[0]))
    a, b = (
        np.concatenate([LABELS[getattr(f, side)] + 100 * k for k, f in enumerate(folds)])
        for side in ("first", "second")
    )

    def mean_of_folds(scores, same, weights):
        return np.mean(
            [METRICS[metric](scores[stratum == k], same[stratum == k], weights[stratum == k]) for k in range(2)]
        )

    slow = identity_bootstrap(mean_of_folds, np.concatenate(scores), a == b, a, b, stratum, DRAWS, 0.95, SEED)
    np.testing.assert_allclose([fast[0], *percentile(fast[1:], 0.95, 2 * PEOPLE - 2)], slow, atol=1e-9)


def test_identification_equals_loops_over_galleries(pairs):
    similarity = drawn(1)
    photographs = [np.flatnonzero(p == LABELS) for p in range(PEOPLE)]
    hits = {p: [] for p in range(PEOPLE)}
    for g in range(2):  # person 4 has two photographs
        gallery = [images[g] for images in photographs]
        for probe in set(range(len(LABELS))) - set(gallery):
            hit = rank_k(similarity[gallery][:, [probe]].T, LABELS[[probe]], LABELS[gallery], 1)
            hits[LABELS[probe]].append(hit)
    fast = pairs.identification(similarity)
    assert fast[0] == pytest.approx(np.mean(sum(hits.values(), [])), abs=1e-12)
    for counts, value in zip(identity_counts(PEOPLE, DRAWS, SEED), fast[1:], strict=True):
        repeated = sum((hits[p] * counts[p] for p in range(PEOPLE)), [])
        assert value == pytest.approx(np.mean(repeated), abs=1e-12)


def test_identification_by_chance_is_one_in_ten():
    labels = np.repeat(np.arange(10), 10)
    pairs = DensePairs(labels, identity_counts(10, 5, 0))
    similarity = np.random.default_rng(0).normal(size=(100, 100))
    assert pairs.identification(similarity)[0] == pytest.approx(0.1, abs=0.05)
    assert pairs.identification((labels[:, None] == labels).astype(float))[0] == 1
    assert pairs.identification(np.zeros((100, 100)))[0] == 0  # ties are pessimistic


def test_agreement_is_spearman_with_the_jackknife_variance(pairs):
    student, teacher = pairs.scores(drawn(1)), pairs.scores(drawn(1) + drawn(1, 3))
    fast = DensePairs(LABELS, identity_counts(PEOPLE, 20_000, SEED)).agreement(student, teacher)
    assert fast[0] == pytest.approx(spearman(student, teacher), abs=1e-12)
    a, b = LABELS[pairs.first], LABELS[pairs.second]
    without = [spearman(student[(a != p) & (b != p)], teacher[(a != p) & (b != p)]) for p in range(PEOPLE)]
    assert np.var(fast[1:]) == pytest.approx((PEOPLE - 1) * np.var(without), rel=0.05)
    np.testing.assert_allclose(pairs.agreement(teacher, teacher), 1, atol=1e-12)


def test_agreement_of_two_people_has_no_draws():
    pairs = DensePairs(np.array([0, 0, 1, 1]), identity_counts(2, 5, 0))
    result = pairs.agreement(np.arange(6.0), np.arange(6.0) ** 2)
    assert result[0] == pytest.approx(1) and np.isnan(result[1:]).all()


def test_a_draw_without_genuine_pairs_has_no_rate():
    labels = np.array([0, 0, 0, 1, 2])  # only person 0 has genuine pairs
    pairs = DensePairs(labels, np.array([[0, 1, 1], [1, 1, 0]]))
    result = pairs.verification(np.arange(10.0), 3.0, (0.1,))
    for values in result.values():
        assert np.isnan(values[1]) and np.isfinite(values[[0, 2]]).all()


def test_every_far_has_a_name_and_the_accuracy_needs_a_threshold(pairs):
    scores = pairs.scores(drawn(9))
    assert list(pairs.verification(scores, 0.0, (0.1, 0.01))) == [
        "accuracy",
        "eer",
        "auc",
        "tar@far=0.1",
        "tar@far=0.01",
    ]
    assert list(pairs.verification(scores, None, ())) == ["eer", "auc"]


def test_first_true():
    changes = np.array([1, 2, 5, 9])
    np.testing.assert_array_equal(first_true(lambda index: index >= changes, 9, 4), changes)
