from __future__ import annotations

import numpy as np
import pytest

from lrfr.evaluate.open_set import tpir_at_fpir

# E4: three templates, five mated probes, ten non-mated ones given by their top score
MATED = np.array([[0.9, 0.2, 0.1], [0.3, 0.7, 0.65], [0.6, 0.1, 0.55], [0.35, 0.5, 0.3], [0.1, 0.85, 0.2]])
TOPS = np.array([0.40, 0.66, 0.52, 0.45, 0.31, 0.48, 0.58, 0.22, 0.36, 0.62])
SIMILARITY = np.vstack([MATED, np.column_stack([TOPS, np.zeros((10, 2))])])
PROBES = np.array(list("ABCAB") + ["?"] * 10)
GALLERY = np.array(list("ABC"))


@pytest.mark.parametrize("fpir", [0.3, 0.2, 0.1, 0.01])
def test_e4_rank_1(fpir):
    assert tpir_at_fpir(SIMILARITY, PROBES, GALLERY, fpir, rank=1) == pytest.approx(0.6, abs=1e-12)


@pytest.mark.parametrize(("fpir", "expected"), [(0.3, 0.8), (0.2, 0.6), (0.1, 0.6), (0.01, 0.6)])
def test_e4_rank_2(fpir, expected):
    assert tpir_at_fpir(SIMILARITY, PROBES, GALLERY, fpir, rank=2) == pytest.approx(expected, abs=1e-12)


def slow_tpir(similarity, probes, gallery, fpir, rank):
    """Try every top score of a non-mated probe as the threshold, strictest to laxest."""
    mated = [i for i, p in enumerate(probes) if p in set(gallery)]
    tops = [max(similarity[i]) for i in range(len(probes)) if i not in mated]
    allowed = [t for t in sorted(tops) if sum(top > t for top in tops) / len(tops) <= fpir + 1e-12]
    hits = 0
    for i in mated:
        own = max(s for s, g in zip(similarity[i], gallery, strict=True) if g == probes[i])
        above = sum(s >= own for s, g in zip(similarity[i], gallery, strict=True) if g != probes[i])
        hits += own > allowed[0] and above < rank
    return hits / len(mated)


@pytest.mark.parametrize("seed", range(4))
def test_agrees_with_loops(seed):
    rng = np.random.default_rng(seed)
    gallery, probes = np.repeat(np.arange(10), 2), rng.integers(0, 25, 200)
    similarity = np.round((probes[:, None] == gallery) * 1.5 + rng.normal(size=(200, 20)), 1)
    for fpir in (0.01, 0.05, 0.29, 0.5):
        for rank in (1, 3, 20):
            expected = slow_tpir(similarity.tolist(), probes.tolist(), gallery.tolist(), fpir, rank)
            assert tpir_at_fpir(similarity, probes, gallery, fpir, rank) == pytest.approx(expected)


def test_a_failed_probe_is_a_miss_or_no_alarm_and_is_counted():
    similarity = SIMILARITY.copy()
    similarity[0] = np.nan
    assert tpir_at_fpir(similarity, PROBES, GALLERY, 0.3, rank=2) == pytest.approx(0.6)
    similarity = np.vstack(
        [SIMILARITY, np.full((10, 3), np.nan)]
    )  # ten more non-mated: twice as many false alarms allowed
    probes = np.append(PROBES, ["?"] * 10)
    assert tpir_at_fpir(similarity, probes, GALLERY, 0.15, rank=2) == tpir_at_fpir(
        SIMILARITY, PROBES, GALLERY, 0.3, rank=2
    )


def test_a_fraction_of_the_probes_is_not_lost_to_rounding():
    tops = np.linspace(0.01, 1, 100)  # 0.29 * 100 is 28.999999999999996 in floats: 29 may still pass
    similarity = np.append(tops, 0.715)[:, None]
    assert tpir_at_fpir(similarity, ["?"] * 100 + ["A"], ["A"], 0.29) == 1
    assert tpir_at_fpir(similarity, ["?"] * 100 + ["A"], ["A"], 0.28) == 0


def test_a_stranger_who_passes_is_no_success():
    assert tpir_at_fpir([[0.2, 0.9], [0.0, 0.1]], [1, 3], [1, 2], 0.5, rank=1) == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((SIMILARITY, PROBES, GALLERY, 0), "fpir"),
        ((SIMILARITY, PROBES, GALLERY, 1.0), "fpir"),
        ((SIMILARITY, PROBES, GALLERY, 0.1, 0), "rank"),
        ((MATED, PROBES[:5], GALLERY, 0.1), "no non-mated"),
        ((SIMILARITY[5:], PROBES[5:], GALLERY, 0.1), "no mated"),
        ((SIMILARITY[:, :2], PROBES, GALLERY, 0.1), "probes, gallery"),
    ],
)
def test_bad_input_is_one_clear_sentence(arguments, words):
    with pytest.raises(ValueError, match=words):
        tpir_at_fpir(*arguments)
