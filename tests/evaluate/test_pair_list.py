from __future__ import annotations

import numpy as np
import pytest

from lrfr.evaluate import pair_list
from lrfr.evaluate.agreement import spearman
from lrfr.evaluate.bootstrap import DensePairs
from lrfr.evaluate.identification import rank_k
from lrfr.evaluate.pair_list import SampledPairs, weighted_verification
from lrfr.evaluate.statistics import identity_bootstrap, identity_counts, percentile
from lrfr.evaluate.verification import area_under_roc, balanced_accuracy, equal_error_rate, tar_at_far

PEOPLE, DRAWS, SEED, SAMPLE, THRESHOLD = 8, 150, 5, 100, -2.0
LABELS = np.sort(np.repeat(np.arange(PEOPLE), [3, 1, 4, 2, 4, 1, 3, 2]))
METRICS = {
    "eer": equal_error_rate,
    "auc": area_under_roc,
    "tar@far=0.05": lambda s, y, w: tar_at_far(s, y, 0.05, w),
    "tar@far=0.2": lambda s, y, w: tar_at_far(s, y, 0.2, w),
    "accuracy": lambda s, y, w: balanced_accuracy(s, y, THRESHOLD, w),
}


def drawn(decimals: int, seed: int = 0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(PEOPLE, 4))[LABELS] + 0.8 * rng.normal(size=(len(LABELS), 4))
    return np.round(-np.linalg.norm(x[:, None] - x[None], axis=-1), decimals)


@pytest.fixture(scope="module")
def pairs():
    return SampledPairs(LABELS, identity_counts(PEOPLE, DRAWS, SEED), SAMPLE, SEED, 0)


@pytest.fixture(params=[2, 64])
def block(request, monkeypatch):
    """Sums over whole blocks and over parts of one."""
    monkeypatch.setattr(pair_list, "BLOCK", request.param)


def test_all_genuine_and_a_sample_of_the_impostor_pairs(pairs):
    assert (pairs.first < pairs.second).all() and (~pairs.same).sum() == SAMPLE
    listed = set(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True))
    assert len(listed) == len(pairs.first)
    genuine = {(i, j) for i in range(len(LABELS)) for j in range(i + 1, len(LABELS)) if LABELS[i] == LABELS[j]}
    assert genuine == {(i, j) for i, j in listed if LABELS[i] == LABELS[j]}


def test_the_sample_depends_on_seed_and_fold_and_not_on_the_draws(pairs):
    def sample(seed, stratum, draws=0, size=SAMPLE):
        some = SampledPairs(LABELS, identity_counts(PEOPLE, draws, 99), size, seed, stratum)
        return list(zip(some.first.tolist(), some.second.tolist(), strict=True))

    own = list(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True))
    assert sample(SEED, 0) == own and sample(SEED, 1) != own != sample(SEED + 1, 0)
    assert len(sample(SEED, 0, size=10**6)) == len(LABELS) * (len(LABELS) - 1) // 2


def test_the_sample_is_even():
    """Each of the impostor pairs is as likely as any other."""
    hits = np.zeros(len(LABELS))
    for fold in range(1000):
        some = SampledPairs(LABELS, identity_counts(PEOPLE, 0, 0), 40, 1, fold)
        hits += np.bincount(np.concatenate([some.first[~some.same], some.second[~some.same]]), minlength=len(LABELS))
    strangers = np.array([(label != LABELS).sum() for label in LABELS])
    np.testing.assert_allclose(hits / strangers, hits.sum() / strangers.sum(), rtol=0.08)


@pytest.mark.parametrize("decimals", [1, 9])  # with many ties, and with hardly any
@pytest.mark.parametrize("metric", METRICS)
def test_equals_the_public_functions_draw_by_draw(block, pairs, metric, decimals):
    scores = pairs.scores(drawn(decimals))
    fast = pairs.verification(scores, THRESHOLD, (0.05, 0.2))[metric]
    a, b = LABELS[pairs.first], LABELS[pairs.second]
    assert fast[0] == pytest.approx(METRICS[metric](scores, a == b, np.ones(len(a))), abs=1e-12)
    for counts, value in zip(identity_counts(PEOPLE, DRAWS, SEED), fast[1:], strict=True):
        weights = np.where(a == b, counts[a], counts[a] * counts[b])
        expected = METRICS[metric](scores, a == b, weights) if weights[a == b].any() else np.nan
        assert value == pytest.approx(expected, abs=1e-12, nan_ok=True)


@pytest.mark.parametrize("metric", METRICS)
def test_equals_identity_bootstrap(pairs, metric):
    """The same people are drawn, so the whole interval is the same."""
    scores = pairs.scores(drawn(2))
    fast = pairs.verification(scores, THRESHOLD, (0.05, 0.2))[metric]
    a, b = LABELS[pairs.first], LABELS[pairs.second]
    slow = identity_bootstrap(METRICS[metric], scores, a == b, a, b, draws=DRAWS, seed=SEED)
    np.testing.assert_allclose([fast[0], *percentile(fast[1:], 0.95, PEOPLE - 1)], slow, atol=1e-12)


def test_equals_dense_pairs_if_nothing_is_left_out(block):
    counts = identity_counts(PEOPLE, DRAWS, SEED)
    sampled, dense = SampledPairs(LABELS, counts, 10**6, SEED, 0), DensePairs(LABELS, counts)
    scores = dense.scores(drawn(1))
    np.testing.assert_array_equal(scores, sampled.scores(drawn(1)))
    slow = dense.verification(scores, THRESHOLD, (0.1,))
    for metric, values in sampled.verification(scores, THRESHOLD, (0.1,)).items():
        defined = dense.counts[:, [0, 2, 3, 4, 6, 7]].any(1)  # somebody with several photographs
        np.testing.assert_allclose(values[defined], slow[metric][defined], atol=1e-12)
        assert np.isnan(values[~defined]).all()
    np.testing.assert_array_equal(sampled.identification(drawn(1)), dense.identification(drawn(1)))
    assert sampled.agreement(scores, drawn(1, 3)[dense.first, dense.second])[0] == pytest.approx(
        dense.agreement(scores, drawn(1, 3)[dense.first, dense.second])[0]
    )


@pytest.mark.parametrize("rank", [1, 5])
def test_identification_searches_among_everybodys_first_photograph(pairs, rank):
    similarity = drawn(1)
    gallery = [int(np.flatnonzero(person == LABELS)[0]) for person in range(PEOPLE)]
    hits = {person: [] for person in range(PEOPLE)}
    for probe in set(range(len(LABELS))) - set(gallery):
        hits[LABELS[probe]].append(rank_k(similarity[gallery][:, [probe]].T, LABELS[[probe]], LABELS[gallery], rank))
    fast = pairs.identification(similarity, rank)
    assert fast[0] == pytest.approx(np.mean(sum(hits.values(), [])), abs=1e-12)
    for counts, value in zip(identity_counts(PEOPLE, DRAWS, SEED), fast[1:], strict=True):
        repeated = sum((hits[p] * counts[p] for p in range(PEOPLE)), [])
        assert value == pytest.approx(np.mean(repeated) if repeated else np.nan, abs=1e-12, nan_ok=True)


def test_agreement_is_spearman_with_fixed_ranks(block, pairs):
    student, teacher = pairs.scores(drawn(1)), pairs.scores(drawn(1) + drawn(1, 3))
    fast = pairs.agreement(student, teacher)
    assert fast[0] == pytest.approx(spearman(student, teacher), abs=1e-12)
    x, y = ([np.mean([(t < s) + 0.5 * (t == s) for t in scores]) for s in scores] for scores in (student, teacher))
    a, b = LABELS[pairs.first], LABELS[pairs.second]
    for counts, value in zip(identity_counts(PEOPLE, 20, SEED), fast[1:21], strict=False):
        weights = np.where(a == b, counts[a], counts[a] * counts[b])
        covariance = np.cov(x, y, aweights=weights, ddof=0)
        assert value == pytest.approx(covariance[0, 1] / np.sqrt(covariance[0, 0] * covariance[1, 1]), abs=1e-10)
    np.testing.assert_allclose(pairs.agreement(teacher, teacher), 1, atol=1e-12)


def test_a_draw_without_a_kind_of_pair_has_no_rate():
    same = np.array([True, True, False, False])
    weights = np.array([[1, 0, 1], [2, 0, 1], [1, 3, 0], [1, 1, 0]], dtype=np.uint8)
    result = weighted_verification(np.array([4.0, 2, 3, 1]), same, weights[:2], weights[2:], 2.5, (0.1,))
    for values in result.values():
        assert np.isfinite(values[0]) and np.isnan(values[1:]).all()


def test_large_weights_do_not_overflow(block):
    rng = np.random.default_rng(0)
    same, scores = rng.random(300) < 0.3, rng.normal(size=300)
    one = np.ones((300, 1), dtype=np.uint8)
    many = 255 * one
    small, large = (weighted_verification(scores, same, w[same], w[~same], 0.0, (0.1,)) for w in (one, many))
    for metric in small:
        assert small[metric] == pytest.approx(large[metric])
