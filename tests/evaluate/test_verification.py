from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score, roc_curve

from lrfr.evaluate.verification import (
    area_under_roc,
    balanced_accuracy,
    balanced_threshold,
    equal_error_rate,
    operating_points,
    tar_at_far,
    ten_fold_accuracy,
)

# E1: 20 pairs, ten folds of one genuine and one impostor pair (cosines, invented)
GENUINE = np.array([0.9013, 0.8013, 0.7013, 0.6013, 0.5013, 0.4013, 0.3013, 0.8513, 0.7513, 0.6513])
IMPOSTOR = np.array([0.1013, 0.2013, 0.0013, -0.0987, 0.5513, 0.1513, 0.0513, 0.2513, 0.4513, -0.1987])
COSINES = np.column_stack([GENUINE, IMPOSTOR]).ravel()
SAME = np.tile([True, False], 10)
# E3: 40 pairs, as distances
FAR_GENUINE = """3005 4505 5005 6205 7005 8105 9005 10205 11505 14005
                 3505 4105 5505 6605 7405 7905 8805 9705 10805 12205"""
FAR_IMPOSTOR = """6005 8505 9505 10505 11005 12005 12505 13005 13505 14505
                  10005 10705 11205 11605 11805 12405 12805 13305 13805 15005"""
DISTANCES = np.array([int(d) / 1e4 for d in (FAR_GENUINE + " " + FAR_IMPOSTOR).split()])
KINDS = np.repeat([True, False], 20)


def drawn(seed: int, n: int = 300, ties: bool = True):
    """Scores on a coarse lattice (many ties), kinds and whole-number weights."""
    rng = np.random.default_rng(seed)
    same = rng.random(n) < 0.3
    scores = same + rng.normal(size=n)
    return (np.round(scores, 1) if ties else scores), same, rng.integers(0, 4, n)


def slow_rates(scores, same, weights):
    """(FMR, FNMR) at every threshold, by loops."""
    out = [(0.0, 1.0)]
    for t in sorted(set(scores), reverse=True):
        accepted = [w * (s >= t) for s, w in zip(scores, weights, strict=True)]
        impostor = sum(a for a, g in zip(accepted, same, strict=True) if not g) / sum(
            w for w, g in zip(weights, same, strict=True) if not g
        )
        genuine = sum(a for a, g in zip(accepted, same, strict=True) if g) / sum(
            w for w, g in zip(weights, same, strict=True) if g
        )
        out.append((impostor, 1 - genuine))
    return out


def slow_eer(scores, same, weights):
    rates = slow_rates(scores, same, weights)
    for (x0, y0), (x1, y1) in zip(rates, rates[1:], strict=False):
        if y0 > x0 and y1 <= x1:  # the segment from (x0, y0) to (x1, y1) meets the diagonal
            s = (y0 - x0) / ((y0 - x0) + (x1 - y1))
            return x0 + s * (x1 - x0)
    raise AssertionError


def slow_auc(scores, same, weights):
    wins = total = 0.0
    for s, g, w in zip(scores, same, weights, strict=True):
        for t, h, v in zip(scores, same, weights, strict=True):
            if g and not h:
                wins += w * v * ((s > t) + 0.5 * (s == t))
                total += w * v
    return wins / total


def test_e1_insightface_rule():
    result = ten_fold_accuracy(2 - 2 * COSINES, SAME)
    assert result.mean == pytest.approx(0.80, abs=1e-12)
    assert result.std == pytest.approx(0.24494897427831783, abs=1e-12)
    np.testing.assert_allclose(result.per_fold, [1, 1, 1, 1, 0.5, 0.5, 0.5, 1, 0.5, 1], rtol=0, atol=1e-12)
    np.testing.assert_allclose(
        result.thresholds, [1.4, 1.4, 1.4, 1.4, 1.4, 0.8, 0.8, 1.4, 1.4, 1.4], rtol=0, atol=1e-12
    )
    assert np.std(result.per_fold, ddof=1) / np.sqrt(10) == pytest.approx(0.081650, abs=1e-6)


def test_e1_exact_rule_and_auc():
    assert ten_fold_accuracy(2 - 2 * COSINES, SAME, rule="exact").mean == pytest.approx(0.75, abs=1e-12)
    assert area_under_roc(COSINES, SAME) == pytest.approx(0.95, abs=1e-12)


def test_e1_oracle_accuracy_is_higher_than_the_ten_fold_accuracy():
    threshold = balanced_threshold(COSINES, SAME)
    assert balanced_accuracy(COSINES, SAME, threshold) == pytest.approx(0.90, abs=1e-12)


@pytest.mark.parametrize(("far", "tar"), [(0.3, 0.85), (0.1, 0.70), (0.01, 0.30), (0.001, 0.30)])
def test_e3_conservative_tar(far, tar):
    assert tar_at_far(-DISTANCES, KINDS, far) == pytest.approx(tar, abs=1e-12)


def test_e3_auc():
    assert area_under_roc(-DISTANCES, KINDS) == pytest.approx(0.85, abs=1e-12)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("ties", [True, False])
def test_rates_agree_with_loops(seed, ties):
    scores, same, weights = drawn(seed, 80, ties)
    rates = slow_rates(scores, same, weights)
    points = operating_points(scores, same, weights)
    np.testing.assert_allclose(np.column_stack([points.false_match, points.false_non_match]), rates, rtol=0, atol=1e-12)
    assert equal_error_rate(scores, same, weights) == pytest.approx(slow_eer(scores, same, weights), abs=1e-12)
    assert area_under_roc(scores, same, weights) == pytest.approx(slow_auc(scores, same, weights), abs=1e-12)
    for far in (0.01, 0.1, 0.5):
        best = max(1 - fnmr for fmr, fnmr in rates if fmr <= far)
        assert tar_at_far(scores, same, far, weights) == pytest.approx(best, abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_roc_agrees_with_scikit_learn(seed):
    scores, same, weights = drawn(seed)
    kept = weights > 0
    fpr, tpr, thresholds = roc_curve(same[kept], scores[kept], sample_weight=weights[kept], drop_intermediate=False)
    points = operating_points(scores[kept], same[kept], weights[kept])
    np.testing.assert_allclose(points.false_match, fpr, rtol=0, atol=1e-12)
    np.testing.assert_allclose(1 - points.false_non_match, tpr, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(points.threshold, thresholds)
    assert area_under_roc(scores, same, weights) == pytest.approx(
        roc_auc_score(same, scores, sample_weight=weights), abs=1e-12
    )


@pytest.mark.parametrize("metric", [equal_error_rate, area_under_roc, lambda s, y, w=None: tar_at_far(s, y, 0.05, w),
                                    lambda s, y, w=None: balanced_accuracy(s, y, 0.5, w)])  # fmt: skip
def test_weights_are_repetitions(metric):
    scores, same, weights = drawn(5)
    repeated = metric(np.repeat(scores, weights), np.repeat(same, weights))
    assert metric(scores, same, weights) == pytest.approx(repeated, abs=1e-12)
    assert metric(scores, same, weights * 0.1) == pytest.approx(repeated, abs=1e-12)
    order = np.random.default_rng(0).permutation(len(scores))
    assert metric(scores[order], same[order], weights[order]) == pytest.approx(repeated, abs=1e-12)


def test_known_points():
    same = np.array([True, True, False, False])
    assert equal_error_rate([4, 3, 2, 1], same) == 0
    assert equal_error_rate([1, 2, 3, 4], same) == 1
    assert equal_error_rate([1, 1, 1, 1], same) == 0.5  # one tie: the point in the middle of the only segment
    assert area_under_roc([1, 1, 1, 1], same) == 0.5
    assert tar_at_far([1, 1, 1, 1], same, 0.5) == 0  # a tie is accepted or rejected as a whole
    assert tar_at_far([4, 2, 3, 1], same, 0.5) == 1
    assert tar_at_far([4, 2, 3, 1], same, 0.49) == 0.5


def test_metrics_ignore_monotone_changes_and_mirror():
    scores, same, _ = drawn(3, ties=False)
    for metric in (equal_error_rate, area_under_roc):
        assert metric(np.exp(scores), same) == pytest.approx(metric(scores, same), abs=1e-12)
        assert metric(-scores, same) == pytest.approx(1 - metric(scores, same), abs=1e-12)


def test_far_reached_exactly_is_allowed():
    scores = np.arange(100.0, 0, -1)
    same = np.ones(100, dtype=bool)
    same[10:20] = False  # ten impostors behind the first ten genuine pairs
    assert tar_at_far(scores, same, 0.3) == pytest.approx(10 / 90)
    same[:] = False
    same[29:] = True
    same[99] = False  # 30 impostors, 29 of them first
    assert tar_at_far(scores, same, 0.1) == 0
    assert tar_at_far(scores, same, 29 / 30) == 1


def test_balanced_accuracy_counts_kinds_equally():
    scores, same = np.array([3.0, 1.0, 2.0, 0.0, 0.0, 0.0]), np.array([1, 1, 0, 0, 0, 0])
    assert balanced_accuracy(scores, same, 1.5) == pytest.approx((0.5 + 0.75) / 2)
    assert balanced_accuracy(scores, same, 1.0) == pytest.approx((1 + 0.75) / 2)  # accepted if score >= threshold


@pytest.mark.parametrize("seed", range(3))
def test_balanced_threshold_is_the_median_of_the_best_midpoints(seed):
    scores, same, _ = drawn(seed, 60)
    distinct = sorted(set(scores))
    candidates = [(a + b) / 2 for a, b in zip(distinct, distinct[1:], strict=False)]
    values = [balanced_accuracy(scores, same, c) for c in candidates]
    best = [c for c, v in zip(candidates, values, strict=True) if v > max(values) - 1e-12]
    assert balanced_threshold(scores, same) == pytest.approx(np.median(best))
    assert balanced_threshold([1.0, 1.0], [True, False]) == 1.0


@pytest.mark.parametrize("rule", ["insightface", "exact"])
def test_ten_fold_accuracy_agrees_with_loops_and_uneven_folds(rule):
    rng = np.random.default_rng(1)
    same = rng.random(73) < 0.5
    distances = np.clip(np.round(1.5 - same + 0.5 * rng.normal(size=73), 2), 0, 4)
    result = ten_fold_accuracy(distances, same, rule)
    sizes = [8, 8, 8, 7, 7, 7, 7, 7, 7, 7]
    start = 0
    for fold, size in enumerate(sizes):
        test = set(range(start, start + size))
        start += size
        train = [i for i in range(73) if i not in test]
        distinct = sorted({distances[i] for i in train})
        grid = (
            [k * 0.01 for k in range(400)]
            if rule == "insightface"
            else [(a + b) / 2 for a, b in zip(distinct, distinct[1:], strict=False)]
        )
        right = [sum((distances[i] < t) == same[i] for i in train) for t in grid]
        best = [t for t, r in zip(grid, right, strict=True) if r == max(right)]
        threshold = best[0] if rule == "insightface" else np.median(best)
        assert result.thresholds[fold] == pytest.approx(threshold, abs=1e-12)
        threshold = result.thresholds[fold]  # a held-out distance may equal it: do not ask for the last bit
        says_same = (lambda d, t: d < t) if rule == "insightface" else (lambda d, t: d <= t)
        assert result.per_fold[fold] == pytest.approx(
            np.mean([says_same(distances[i], threshold) == same[i] for i in test])
        )
    assert result.mean == pytest.approx(np.mean(result.per_fold))


def test_exact_thresholds_know_no_unit_vectors_and_any_number_of_folds():
    distances = 2 - 2 * COSINES
    one, other = (ten_fold_accuracy(k * distances, SAME, "exact", folds=2) for k in (1, 10))
    assert len(one.per_fold) == 2 and np.array_equal(one.per_fold, other.per_fold)
    np.testing.assert_allclose(10 * one.thresholds, other.thresholds)
    threshold = -balanced_threshold(-distances[10:], SAME[10:])  # as many of each kind: accuracy is balanced accuracy
    assert one.thresholds[0] == pytest.approx(threshold)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: equal_error_rate([1, np.nan], [1, 0]), "NaN"),
        (lambda: equal_error_rate([1, 2], [0, 0]), "no genuine"),
        (lambda: area_under_roc([1, 2], [1, 1]), "no impostor"),
        (lambda: area_under_roc([1, 2], [1, 0], [0, 1]), "no genuine"),
        (lambda: area_under_roc([1, 2, 3], [1, 0]), "one length"),
        (lambda: area_under_roc([1, 2], [1, 0], [1, 1, 1]), "weights"),
        (lambda: area_under_roc([1, 2], [1, 0], [1, -1]), "negative"),
        (lambda: area_under_roc([1, 2], [1, 2]), "True"),
        (lambda: tar_at_far([1, 2], [1, 0], 0), "far"),
        (lambda: tar_at_far([1, 2], [1, 0], 1), "far"),
        (lambda: tar_at_far([1, 2], [1, 0], float("nan")), "far"),
        (lambda: ten_fold_accuracy(np.ones(8), np.arange(8) < 4), "10 folds"),
        (lambda: ten_fold_accuracy(np.full(20, 5.0), SAME), "between 0 and 4"),
        (lambda: ten_fold_accuracy(np.full(20, -1.0), SAME, rule="exact"), "negative"),
        (lambda: ten_fold_accuracy(2 - 2 * COSINES, SAME, rule="mean"), "rule"),
    ],
)
def test_bad_input_is_one_clear_sentence(call, words):
    with pytest.raises(ValueError, match=words) as error:
        call()
    assert str(error.value).endswith(".") and "\n" not in str(error.value)


def test_minus_infinity_is_a_pair_that_never_matches():
    assert equal_error_rate([-np.inf, 2.0, 1.0, -np.inf], [1, 1, 0, 0]) == 0.5
