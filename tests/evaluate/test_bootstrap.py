from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from lrfr.evaluate import bootstrap
from lrfr.evaluate.bootstrap import Pairs, weighted_verification
from lrfr.evaluate.identification import rank_k
from lrfr.evaluate.statistics import identity_bootstrap, identity_counts, percentile
from lrfr.evaluate.verification import area_under_roc, balanced_accuracy, equal_error_rate, tar_at_far

PEOPLE, DRAWS, SEED, SAMPLE, FARS, THRESHOLD = 8, 150, 5, 100, (0.05, 0.2), -2.0
LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(PEOPLE), [3, 1, 4, 2, 4, 1, 3, 2]))
SEVERAL = np.random.default_rng(0).permutation(np.repeat(np.arange(PEOPLE), [3, 2, 4, 2, 3, 2, 4, 3]))
METRICS = {
    "eer": equal_error_rate,
    "auc": area_under_roc,
    "tar@far=0.05": lambda s, y, w: tar_at_far(s, y, 0.05, w),
    "tar@far=0.2": lambda s, y, w: tar_at_far(s, y, 0.2, w),
    "accuracy": lambda s, y, w: balanced_accuracy(s, y, THRESHOLD, w),
}


def drawn(decimals: int, seed: int = 0, labels=LABELS):
    """Similarities (n, n) of invented photographs."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(PEOPLE, 4))[labels] + 0.8 * rng.normal(size=(len(labels), 4))
    return np.round(-np.linalg.norm(x[:, None] - x[None], axis=-1), decimals)


def weights_of(pairs, counts):
    """w_a for genuine, w_a w_b for impostor pairs of one draw."""
    a, b = pairs.labels[pairs.first], pairs.labels[pairs.second]
    return np.where(a == b, counts[a], counts[a] * counts[b])


@pytest.fixture(scope="module", params=[None, SAMPLE], ids=["all", "sample"])
def pairs(request):
    """All pairs, and all genuine pairs with a sample of the impostor pairs."""
    return Pairs(LABELS, identity_counts(PEOPLE, DRAWS, SEED), request.param, SEED, 0)


def test_all_genuine_pairs_and_a_sample_of_the_impostor_pairs(pairs):
    assert (pairs.first < pairs.second).all()
    listed = set(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True))
    every = {(i, j) for i in range(len(LABELS)) for j in range(i + 1, len(LABELS))}
    genuine = {(i, j) for i, j in every if LABELS[i] == LABELS[j]}
    assert len(listed) == len(pairs.first) and genuine == {(i, j) for i, j in listed if LABELS[i] == LABELS[j]}
    assert listed == every if not pairs.sampled else (~pairs.same).sum() == SAMPLE
    assert pairs.weights.flags.c_contiguous  # a draw is a row: what is summed stands together


def test_the_sample_depends_on_seed_and_fold_and_not_on_the_draws():
    def sample(seed, stratum, draws=0, size=SAMPLE):
        some = Pairs(LABELS, identity_counts(PEOPLE, draws, 99), size, seed, stratum)
        return list(zip(some.first.tolist(), some.second.tolist(), strict=True))

    own = sample(SEED, 0)
    assert sample(SEED, 0, draws=9) == own and sample(SEED, 1) != own != sample(SEED + 1, 0)
    assert sample(SEED, 0, size=10**6) == sample(SEED, 0, size=None)


def test_the_sample_is_even():
    """Each of the impostor pairs is as likely as any other."""
    hits = np.zeros(len(LABELS))
    for fold in range(1000):
        some = Pairs(LABELS, identity_counts(PEOPLE, 0, 0), 40, 1, fold)
        hits += np.bincount(np.concatenate([some.first[~some.same], some.second[~some.same]]), minlength=len(LABELS))
    strangers = np.array([(label != LABELS).sum() for label in LABELS])
    np.testing.assert_allclose(hits / strangers, hits.sum() / strangers.sum(), rtol=0.08)


@pytest.mark.parametrize("chunk", [32, 1000])  # draws in several parts, and all at once
@pytest.mark.parametrize("decimals", [1, 9])  # with many ties, and with hardly any
def test_equals_the_public_functions_draw_by_draw(monkeypatch, pairs, decimals, chunk):
    monkeypatch.setattr(bootstrap, "CHUNK", chunk)
    scores = pairs.scores(drawn(decimals))
    fast = pairs.verification(scores, THRESHOLD, FARS)
    assert fast.keys() == METRICS.keys()
    for metric, function in METRICS.items():
        for counts, value in zip(pairs.counts, fast[metric], strict=True):
            weights = weights_of(pairs, counts)
            expected = function(scores, pairs.same, weights) if weights[pairs.same].any() else np.nan
            assert value == pytest.approx(expected, abs=1e-12, nan_ok=True)


@pytest.mark.parametrize("metric", METRICS)
def test_one_fold_equals_identity_bootstrap(pairs, metric):
    """The same people are drawn, so the whole interval is the same."""
    scores = pairs.scores(drawn(2))
    fast = pairs.verification(scores, THRESHOLD, FARS)[metric]
    a, b = LABELS[pairs.first], LABELS[pairs.second]
    slow = identity_bootstrap(METRICS[metric], scores, a == b, a, b, draws=DRAWS, seed=SEED)
    np.testing.assert_allclose([fast[0], *percentile(fast[1:], 0.95, PEOPLE - 1)], slow, atol=1e-12)


@pytest.mark.parametrize("metric", METRICS)
def test_mean_over_folds_equals_identity_bootstrap_with_strata(metric):
    """Two folds, two different models: the mean of the folds' metrics, people drawn within folds."""
    folds = [Pairs(SEVERAL, identity_counts(PEOPLE, DRAWS, SEED, k)) for k in range(2)]
    scores = [fold.scores(drawn(2, seed, SEVERAL)) for seed, fold in enumerate(folds)]
    fast = np.mean([f.verification(s, THRESHOLD, FARS)[metric] for f, s in zip(folds, scores, strict=True)], axis=0)
    stratum = np.repeat([0, 1], len(scores[0]))
    sides = [[SEVERAL[getattr(f, side)] + 100 * k for k, f in enumerate(folds)] for side in ("first", "second")]
    a, b = map(np.concatenate, sides)

    def mean_of_folds(scores, same, weights):
        parts = [stratum == k for k in range(2)]
        return np.mean([METRICS[metric](scores[part], same[part], weights[part]) for part in parts])

    slow = identity_bootstrap(mean_of_folds, np.concatenate(scores), a == b, a, b, stratum, DRAWS, 0.95, SEED)
    np.testing.assert_allclose([fast[0], *percentile(fast[1:], 0.95, 2 * PEOPLE - 2)], slow, atol=1e-9)


@pytest.mark.parametrize("rank", [1, 5])
@pytest.mark.parametrize(("labels", "galleries"), [(LABELS, 1), (SEVERAL, 2)])
def test_identification_equals_loops_over_galleries(labels, galleries, rank):
    counts = identity_counts(PEOPLE, DRAWS, SEED)
    pairs, similarity = Pairs(labels, counts), drawn(1, 0, labels)
    photographs = [np.flatnonzero(p == labels) for p in range(PEOPLE)]
    hits = {p: [] for p in range(PEOPLE)}
    for g in range(galleries):  # somebody has no more photographs
        gallery = [images[g] for images in photographs]
        for probe in set(range(len(labels))) - set(gallery):
            hit = rank_k(similarity[gallery][:, [probe]].T, labels[[probe]], labels[gallery], rank)
            hits[labels[probe]].append(hit)
    for drawn_people, value in zip(pairs.counts.astype(int), pairs.identification(similarity, rank), strict=True):
        repeated = sum((hits[p] * drawn_people[p] for p in range(PEOPLE)), [])
        assert value == pytest.approx(np.mean(repeated) if repeated else np.nan, abs=1e-12, nan_ok=True)


def test_identification_by_chance_is_one_in_ten():
    labels = np.repeat(np.arange(10), 10)
    pairs = Pairs(labels, identity_counts(10, 5, 0))
    similarity = np.random.default_rng(0).normal(size=(100, 100))
    assert pairs.identification(similarity)[0] == pytest.approx(0.1, abs=0.05)
    assert pairs.identification((labels[:, None] == labels).astype(float))[0] == 1
    assert pairs.identification(np.zeros((100, 100)))[0] == 0  # ties are pessimistic


def test_agreement_of_the_data_is_spearmans(pairs):
    for decimals in (1, 9):
        student, teacher = (pairs.scores(drawn(decimals, seed)) for seed in (0, 3))
        assert pairs.agreement(student, teacher)[0] == pytest.approx(spearmanr(student, teacher)[0], abs=1e-12)
        assert pairs.agreement(student, np.exp(student))[0] == pytest.approx(1, abs=1e-12)
    np.testing.assert_allclose(pairs.agreement(teacher, teacher), 1, atol=1e-12)


def test_agreement_of_all_pairs_has_the_jackknife_variance():
    pairs = Pairs(LABELS, identity_counts(PEOPLE, 20_000, SEED))
    student, teacher = pairs.scores(drawn(1)), pairs.scores(drawn(1) + drawn(1, 3))
    a, b = LABELS[pairs.first], LABELS[pairs.second]
    kept = [(a != p) & (b != p) for p in range(PEOPLE)]
    without = [spearmanr(student[some], teacher[some])[0] for some in kept]
    assert np.var(pairs.agreement(student, teacher)[1:]) == pytest.approx((PEOPLE - 1) * np.var(without), rel=0.05)


def test_agreement_of_two_people_has_no_draws():
    pairs = Pairs(np.array([0, 0, 1, 1]), identity_counts(2, 5, 0))
    result = pairs.agreement(np.arange(6.0), np.arange(6.0) ** 2)
    assert result[0] == pytest.approx(1) and np.isnan(result[1:]).all()


def test_agreement_of_a_sample_has_fixed_ranks(monkeypatch):
    monkeypatch.setattr(bootstrap, "CHUNK", 32)
    pairs = Pairs(LABELS, identity_counts(PEOPLE, DRAWS, SEED), SAMPLE, SEED, 0)
    student, teacher = pairs.scores(drawn(1)), pairs.scores(drawn(1) + drawn(1, 3))
    x, y = ([np.mean([(t < s) + 0.5 * (t == s) for t in scores]) for s in scores] for scores in (student, teacher))
    for counts, value in zip(pairs.counts, pairs.agreement(student, teacher), strict=True):
        covariance = np.cov(x, y, aweights=weights_of(pairs, counts), ddof=0)
        assert value == pytest.approx(covariance[0, 1] / np.sqrt(covariance[0, 0] * covariance[1, 1]), abs=1e-10)


def test_a_draw_without_a_kind_of_pair_has_no_rate():
    labels = np.array([0, 0, 0, 1, 2])  # only person 0 has genuine pairs
    pairs = Pairs(labels, np.array([[0, 1, 1], [1, 1, 0]]))
    for values in pairs.verification(np.arange(10.0), 3.0, (0.1,)).values():
        assert np.isnan(values[1]) and np.isfinite(values[[0, 2]]).all()
    same = np.array([True, True, False, False])
    weights = np.array([[1, 2, 1, 1], [0, 0, 3, 1], [1, 1, 0, 0]], dtype=np.uint8)
    for values in weighted_verification(np.array([4.0, 2, 3, 1]), same, weights, 2.5, (0.1,)).values():
        assert np.isfinite(values[0]) and np.isnan(values[1:]).all()


def test_every_far_has_a_name_and_the_accuracy_needs_a_threshold(pairs):
    scores, names = pairs.scores(drawn(9)), ["accuracy", "eer", "auc", "tar@far=0.1", "tar@far=0.01"]
    assert list(pairs.verification(scores, 0.0, (0.1, 0.01))) == names
    assert list(pairs.verification(scores, None, ())) == ["eer", "auc"]


def test_large_weights_do_not_overflow():
    rng = np.random.default_rng(0)
    same, scores = rng.random(300) < 0.3, rng.normal(size=300)
    one = np.ones((1, 300), dtype=np.uint8)
    small, large = (weighted_verification(scores, same, weights, 0.0, (0.1,)) for weights in (one, 255 * one))
    for metric in small:
        assert small[metric] == pytest.approx(large[metric])
