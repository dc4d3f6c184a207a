from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest

from lrfr.evaluate.bootstrap import Pairs, weighted_verification
from lrfr.evaluate.statistics import (
    SPREAD,
    drawn_people,
    dyadic_ends,
    dyadic_signs,
    holm,
    identity_bootstrap,
    identity_counts,
    interval_method,
    paired_difference,
    percentile,
    student_quantile,
)
from lrfr.evaluate.verification import area_under_roc, equal_error_rate

NORMAL = NormalDist()
SHIFT, EFFECT = 3.0, 0.3  # of the invented scores: genuine minus impostor mean, sd of a person's own effect


def all_pairs(people: int, images: int):
    """Person on either side of all pairs of people * images photographs."""
    person = np.repeat(np.arange(people), images)
    i, j = np.triu_indices(len(person), 1)
    return person[i], person[j]


def invented(rng, a, b, people):
    """Scores whose pairs depend through the people in them."""
    effect = EFFECT * rng.normal(size=people)
    return np.where(a == b, SHIFT + effect[a], effect[a] + effect[b]) + rng.normal(size=len(a))


def truth():
    """(EER, balanced accuracy at the threshold SHIFT / 2) of the invented scores: genuine and impostor are normal."""
    genuine, impostor = np.sqrt(1 + EFFECT**2), np.sqrt(1 + 2 * EFFECT**2)
    eer = NORMAL.cdf(-SHIFT / (genuine + impostor))
    return eer, (NORMAL.cdf(SHIFT / 2 / genuine) + NORMAL.cdf(SHIFT / 2 / impostor)) / 2


@pytest.mark.parametrize(("people", "images", "folds"), [(30, 3, 1), (10, 4, 4)])
def test_coverage_on_dense_lists(people, images, folds):
    """By `bootstrap.Pairs`, which equals `identity_bootstrap`: one list, and the study's four folds of ten.

    The EER of ten people is a little lower than that of all people (its threshold suits them): the truth of a study is
    the mean EER of such folds.
    """
    rng, labels = np.random.default_rng(12), np.repeat(np.arange(people), images)
    pairs = [Pairs(labels, identity_counts(people, 150, 0, k)) for k in range(folds)]
    a, b = all_pairs(people, images)
    assert interval_method(a, b) == "identity bootstrap"
    draws = {"eer": [], "accuracy": []}
    for _ in range(250):
        results = [p.verification(invented(rng, a, b, people), SHIFT / 2, (0.1,)) for p in pairs]
        for metric in draws:
            draws[metric].append(np.mean([r[metric] for r in results], axis=0))
    for metric, value in zip(draws, truth(), strict=True):
        value = np.mean(draws[metric], axis=0)[0] if folds > 1 else value
        ends = [percentile(row[1:], 0.95, folds * (people - 1)) for row in draws[metric]]
        assert 0.92 <= np.mean([low <= value <= high for low, high in ends]) <= 0.98


def test_coverage_on_sparse_lists():
    """All draws at once; the first list the slow way too."""
    rng, people, draws, inside = np.random.default_rng(13), 150, 100, {"eer": [], "accuracy": []}
    for seed in range(250):
        genuine, one = rng.integers(people, size=200), rng.integers(people, size=200)
        a, b = np.append(genuine, one), np.append(genuine, (one + rng.integers(1, people, 200)) % people)
        scores, same = invented(rng, a, b, people), a == b
        a, b = np.unique([a, b], return_inverse=True)[1].reshape(2, -1)
        person, pair = dyadic_signs(int(max(a.max(), b.max())) + 1, len(a), draws, seed)
        weights = round(1 / SPREAD) + np.vstack([person[:, a] + person[:, b] * ~same, pair * ~same])
        weights = np.vstack([np.ones_like(a), weights])
        for metric, value in zip(inside, truth(), strict=True):
            values = weighted_verification(scores, same, weights, SHIFT / 2, ())[metric]
            low, high = dyadic_ends(values[0], *np.split(values[1:], 2), 0.95)
            inside[metric].append(low <= value <= high)
            if seed == 0 and metric == "eer":
                assert interval_method(a, b) == "dyadic multiplier"
                slow = identity_bootstrap(equal_error_rate, scores, same, a, b, draws=draws, seed=seed)
                assert slow == pytest.approx((values[0], low, high), abs=1e-12)
    assert all(0.92 <= np.mean(hits) <= 0.98 for hits in inside.values())


def test_the_product_would_be_too_wide_on_a_sparse_list():
    """Impostor pairs that share nobody, genuine pairs that never err: the truth is the binomial standard error."""
    n = 400
    a, b = np.append(np.arange(n), np.arange(n)), np.append(np.arange(n), np.arange(n) + n)
    scores = np.append(np.full(n, 2.0), np.random.default_rng(0).random(n) < 0.2)

    def false_matches(scores, same, weights):
        return float(np.average(scores[~same] > 0.5, weights=weights[~same]))

    interval = identity_bootstrap(false_matches, scores, a == b, a, b, draws=1000)
    rate = interval.point
    exact = np.sqrt(rate * (1 - rate) / n)
    assert (interval.high - interval.low) / (2 * 1.96) == pytest.approx(exact, rel=0.1)
    product = identity_counts(2 * n, 1000, 0)
    products = [false_matches(scores, a == b, np.where(a == b, w[a], w[a] * w[b])) for w in product]
    assert np.std(products) > 1.5 * exact


def test_bootstrap_agrees_with_repeating_the_pairs():
    """Weights w_a and w_a * w_b are what listing the photographs of drawn people again would give, person by person."""
    rng = np.random.default_rng(2)
    a, b = all_pairs(5, 3)
    scores, same = np.round(invented(rng, a, b, 5), 1), a == b
    interval = identity_bootstrap(equal_error_rate, scores, same, a, b, draws=50, seed=4)
    values = []
    for counts in identity_counts(5, 50, 4):
        times = [counts[x] if x == y else counts[x] * counts[y] for x, y in zip(a, b, strict=True)]
        values.append(equal_error_rate(np.repeat(scores, times), np.repeat(same, times)))
    assert interval.point == equal_error_rate(scores, same)
    np.testing.assert_allclose(interval[1:], percentile(np.array(values), 0.95, 4), atol=1e-12)


def test_strata_are_drawn_separately_and_names_do_not_matter():
    rng = np.random.default_rng(3)
    a, b = all_pairs(6, 3)
    people = np.array(["f", "b", "d", "a", "e", "c"])
    scores = invented(rng, a, b, 6)
    kept = (a < 3) == (b < 3)
    scores, a, b = scores[kept], a[kept], b[kept]
    strata = np.where(a < 3, "first", "second")
    seen = []

    def record(scores, same, weights):
        seen.append([weights[same & (strata == s)].sum() for s in ("first", "second")])
        return area_under_roc(scores, same, weights)

    one = identity_bootstrap(record, scores, a == b, a, b, strata, draws=200)
    assert np.ptp(seen, axis=0) == pytest.approx([0, 0])  # each stratum keeps its weight in every draw
    other = identity_bootstrap(area_under_roc, scores, a == b, people[a], people[b], strata, draws=200)
    assert other.point == one.point and abs(other.low - one.low) < 0.1  # other draws of the same people
    again = identity_bootstrap(area_under_roc, scores, a == b, a * 7, b * 7, strata, draws=200)
    assert again == one


def test_counts_are_reproducible_never_degenerate_and_differ_between_strata():
    counts = identity_counts(3, 500, seed=1)
    np.testing.assert_array_equal(counts, identity_counts(3, 500, seed=1))
    assert (counts.sum(1) == drawn_people(3)).all() and (counts.max(1) < counts.sum(1)).all()
    assert not np.array_equal(identity_counts(9, 50, 1, 0), identity_counts(9, 50, 1, 1))
    assert (identity_counts(2, 20, 0) == 1).all()
    assert len(np.unique(identity_counts(1, 20, 0))) == 1


def test_variance_of_a_mean_is_not_shrunk():
    """n - 1 of n: the bootstrap variance of a mean over ten people is the unbiased one."""
    values = np.random.default_rng(0).normal(size=10)
    counts = identity_counts(10, 200_000, 0)
    assert np.var(counts @ values / drawn_people(10)) == pytest.approx(np.var(values, ddof=1) / 10, rel=0.02)


def test_draws_without_a_kind_of_pair_are_left_out():
    a, b = all_pairs(4, 5)
    kept = (a != b) | (a == 0)  # only person 0 has genuine pairs, and is missing from a good part of the draws
    a, b = a[kept], b[kept]
    scores = invented(np.random.default_rng(5), a, b, 4)
    interval = identity_bootstrap(area_under_roc, scores, a == b, a, b, draws=300)
    assert np.isfinite(interval).all()
    with pytest.raises(ValueError, match="too few people"):
        identity_bootstrap(lambda s, y, w: np.nan, scores, a == b, a, b, draws=100)


def test_student_quantile():
    for freedom, value in ((9, 2.262157), (36, 2.028094), (1000, 1.962339)):  # a table of Student's t
        assert student_quantile(0.95, freedom) == pytest.approx(value, abs=4e-3)


def test_paired_difference_of_a_model_with_itself():
    draws = np.random.default_rng(0).random(500)
    assert paired_difference(0.2, 0.2, draws, draws, 0.95, 36) == (0, 0, 0, 1)


def test_paired_difference_is_antisymmetric_and_its_p_never_zero():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=999) + 5, rng.normal(size=999)
    forth, back = paired_difference(5, 0, a, b, 0.95, 36), paired_difference(0, 5, b, a, 0.95, 36)
    assert forth.diff == -back.diff and forth.low == pytest.approx(-back.high) and forth.p == back.p
    assert paired_difference(5, 0, a + 99, b, 0.95, 36).p == pytest.approx(2 / 1000)
    assert paired_difference(1, 0, np.append(np.ones(60), -np.ones(39)), np.zeros(99), 0.95, 36).p == pytest.approx(0.8)
    with pytest.raises(ValueError, match="same draws"):
        paired_difference(1, 0, a, b[:5], 0.95, 36)


def test_holm():
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm([0.5, 0.6]), [1.0, 1.0])
    assert len(holm([])) == 0
    with pytest.raises(ValueError, match="between 0 and 1"):
        holm([0.5, 1.5])


A, B = np.array([1, 2, 1, 2]), np.array([1, 2, 2, 1])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"scores": [1.0, np.nan, 0.0, 0.0]}, "NaN"),
        ({"scores": [1.0, 2.0]}, "one length"),
        ({"same": [True, True, True, False]}, "exactly where"),
        ({"id_b": A, "same": [True] * 4}, "no impostor"),
        ({"id_b": 3 - A, "same": [False] * 4}, "no genuine"),
        ({"strata": [0, 1, 0, 1]}, "two strata"),
        ({"draws": 0}, "draws"),
        ({"level": 1.0}, "level"),
    ],
)
def test_bad_input_is_one_clear_sentence(changes, words):
    arguments = {"scores": [1.0, 2.0, 0.0, 0.5], "same": A == B, "id_a": A, "id_b": B} | changes
    with pytest.raises(ValueError, match=words):
        identity_bootstrap(area_under_roc, **arguments)
