from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from lrfr.evaluate.identification import mean_average_precision, rank_k

# E2: a tie with a distractor (third probe) and a failed acquisition (fourth)
GALLERY = np.array([1, 1, 2, 3, -100, -100])
PROBES = np.array([1, 2, 3, 1])
SIMILARITY = np.array(
    [[0.9, 0.3, 0.5, 0.2, 0.6, 0.1], [0.2, 0.8, 0.7, 0.1, 0.9, 0.0], [0.4, 0.1, 0.2, 0.6, 0.6, 0.3], [np.nan] * 6]
)
OPTIMISTIC = SIMILARITY + 1e-9 * (PROBES[:, None] == GALLERY)  # what a sort with mates first would give


def test_e2_pessimistic():
    assert [rank_k(SIMILARITY, PROBES, GALLERY, k) for k in (1, 2, 3)] == [0.25, 0.5, 0.75]
    assert mean_average_precision(SIMILARITY, PROBES, GALLERY) == pytest.approx(0.28125, abs=1e-12)
    assert mean_average_precision(SIMILARITY, PROBES, GALLERY, rule="standard") == pytest.approx(
        0.3958333333333333, abs=1e-12
    )
    for row, expected in enumerate([17 / 24, 1 / 6, 0.25, 0]):
        one = slice(row, row + 1)
        assert mean_average_precision(SIMILARITY[one], PROBES[one], GALLERY) == pytest.approx(expected, abs=1e-12)


def test_e2_optimistic_ties():
    assert rank_k(OPTIMISTIC, PROBES, GALLERY, 1) == 0.5
    assert mean_average_precision(OPTIMISTIC, PROBES, GALLERY) == pytest.approx(0.46875, abs=1e-12)
    assert mean_average_precision(OPTIMISTIC, PROBES, GALLERY, rule="standard") == pytest.approx(
        0.5208333333333333, abs=1e-12
    )


def test_e2_leaving_the_failed_probe_out_would_flatter():
    assert rank_k(SIMILARITY[:3], PROBES[:3], GALLERY, 1) == pytest.approx(1 / 3)
    assert mean_average_precision(SIMILARITY[:3], PROBES[:3], GALLERY) == pytest.approx(0.375, abs=1e-12)


def drawn(seed: int, step: float):
    rng = np.random.default_rng(seed)
    gallery = np.concatenate([np.repeat(np.arange(8), rng.integers(1, 5, 8)), np.full(15, -1)])
    probes = rng.integers(0, 8, 40)
    similarity = (probes[:, None] == gallery) * 0.8 + rng.normal(size=(40, len(gallery)))
    return np.round(similarity / step) * step, probes, gallery


def slow_ap(row, mates, rule):
    """The official loop over a ranking, mates behind equal non-mates."""
    ranking = sorted(range(len(row)), key=lambda j: (-row[j], mates[j]))
    ap, hits, old_precision, old_recall = 0.0, 0, 1.0, 0.0
    for position, j in enumerate(ranking, 1):
        hits += mates[j]
        precision, recall = hits / position, hits / sum(mates)
        ap += (recall - old_recall) * ((old_precision + precision) / 2 if rule == "trapezoid" else precision)
        old_precision, old_recall = precision, recall
    return ap


@pytest.mark.parametrize("step", [1e-6, 0.5])
@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_loops(seed, step):
    similarity, probes, gallery = drawn(seed, step)
    mates = probes[:, None] == gallery
    for rule in ("trapezoid", "standard"):
        expected = np.mean([slow_ap(row, m, rule) for row, m in zip(similarity.tolist(), mates.tolist(), strict=True)])
        assert mean_average_precision(similarity, probes, gallery, rule) == pytest.approx(expected, abs=1e-12)
    for k in (1, 3, 10):
        hits = []
        for row, m in zip(similarity, mates, strict=True):
            ranking = sorted(range(len(row)), key=lambda j: (-row[j], m[j]))
            hits.append(any(m[j] for j in ranking[:k]))
        assert rank_k(similarity, probes, gallery, k) == pytest.approx(np.mean(hits))


def test_standard_rule_agrees_with_scikit_learn_without_ties():
    similarity, probes, gallery = drawn(9, 1e-9)
    expected = np.mean([average_precision_score(gallery == p, row) for row, p in zip(similarity, probes, strict=True)])
    assert mean_average_precision(similarity, probes, gallery, "standard") == pytest.approx(expected, abs=1e-12)


def test_a_failed_gallery_image_never_matches():
    similarity = np.array([[0.1, -np.inf], [0.1, -np.inf]])
    assert rank_k(similarity, [1, 2], [1, 2], 1) == 0.5
    assert rank_k(np.full((1, 2), -np.inf), [1], [1, 2], 1) == 0


@pytest.mark.parametrize("call", [lambda s, p, g: rank_k(s, p, g, 1), mean_average_precision])
@pytest.mark.parametrize(
    ("similarity", "probes", "gallery", "words"),
    [
        ([[1.0, np.nan]], [1], [1, 2], "NaN in part"),
        ([[1.0, 2.0]], [3], [1, 2], "no mate"),
        ([[1.0, 2.0]], [1, 2], [1, 2], "probes, gallery"),
        (np.zeros((0, 2)), [], [1, 2], "not empty"),
    ],
)
def test_bad_input_is_one_clear_sentence(call, similarity, probes, gallery, words):
    with pytest.raises(ValueError, match=words):
        call(similarity, probes, gallery)


def test_bad_options():
    with pytest.raises(ValueError, match="k must"):
        rank_k([[1.0]], [1], [1], 0)
    with pytest.raises(ValueError, match="rule"):
        mean_average_precision([[1.0]], [1], [1], rule="voc")
