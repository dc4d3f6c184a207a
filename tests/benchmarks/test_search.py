from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lrfr.benchmarks import search
from lrfr.evaluate import identification, open_set
from tests.evaluate.embeddings import lattice


def matrix(probes, gallery):
    """The similarities that the matrix functions take: whole, without blocks."""

    def unit(x):
        return x.astype(np.float64) / np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True)

    similarity = np.rint(unit(probes) @ unit(gallery).T * 2**23) / 2**23
    similarity[:, np.isnan(gallery).any(axis=1)] = -np.inf
    similarity[np.isnan(probes).any(axis=1)] = np.nan
    return similarity


@st.composite
def searches(draw):
    """Probes, gallery, labels and a block: ties, copies, several mates, failed images on both sides, strangers."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    people, extra = draw(st.integers(1, 6)), draw(st.integers(0, 20))
    gallery_labels = rng.permutation(np.concatenate([np.arange(people), rng.integers(-3, people, extra)]))
    probe_labels = rng.integers(0, people + 2 * draw(st.booleans()), draw(st.integers(1, 12)))
    dimensions = draw(st.integers(2, 4))
    gallery, probes = (lattice(rng, len(labels), dimensions) for labels in (gallery_labels, probe_labels))
    gallery[rng.random(len(gallery)) < draw(st.sampled_from([0, 0.3]))] = np.nan
    probes[rng.random(len(probes)) < draw(st.sampled_from([0, 0.3]))] = np.nan
    return probes, gallery, probe_labels, gallery_labels, draw(st.integers(1, 30))


@given(searches(), st.sampled_from([0.01, 0.1, 0.25, 0.5, 0.9]), st.integers(1, 25))
@settings(deadline=None, max_examples=100)
def test_a_search_finds_what_the_matrix_functions_find(case, fpir, k):
    """One thing is ours: a probe whose every mate failed is a miss at any rank."""
    probes, gallery, probe_labels, gallery_labels, block = case
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "BLOCK", block)
        found = search.search(probes, gallery, probe_labels, gallery_labels)
    similarity = matrix(probes, gallery)
    own, rank = search.best_mates(found)
    mated = np.isin(probe_labels, gallery_labels)
    np.testing.assert_array_equal(rank > 0, mated)
    if mated.all():
        search.require_mates(found)
    else:
        with pytest.raises(ValueError, match="no mate"):
            search.require_mates(found)
    alive = np.flatnonzero(~np.isneginf(own))
    assert not search.hits(found, 99)[np.isneginf(own)].any()
    assert not search.average_precisions(found)[np.isneginf(own)].any()
    for i in alive:
        row = similarity[[i]], probe_labels[[i]], gallery_labels
        assert search.hits(found, k)[i] == identification.rank_k(*row, k)
        expected = identification.mean_average_precision(*row, "trapezoid")
        assert search.average_precisions(found)[i] == pytest.approx(expected, abs=1e-12)
    if mated.any() and not mated.all():
        scores = np.where(search.hits(found, k), own, -np.inf)[mated]
        expected = open_set.tpir_at_fpir(similarity, probe_labels, gallery_labels, fpir, k)
        threshold = open_set.threshold_at_fpir(np.sort(found.top[~mated])[::-1], fpir)
        assert np.mean(scores > threshold) == expected


@pytest.mark.parametrize("seed", range(3))
def test_a_copy_ties_whatever_block_it_is_in(seed, monkeypatch):
    """Float64 sums of 512 products differ in their last bits between blocks; a mate's copy must be in front of it."""
    rng = np.random.default_rng(seed)
    gallery = rng.normal(size=(300, 512)).astype(np.float32)
    mates, copies = np.arange(0, 50), np.arange(250, 300)
    gallery[copies] = gallery[mates]
    probes = gallery[mates] + 0.5 * rng.normal(size=(50, 512)).astype(np.float32)
    for block in (7, 64, 1000):
        monkeypatch.setattr(search, "BLOCK", block)
        found = search.search(probes, gallery, mates, np.arange(300))
        assert (found.rivals - found.betters == 1).all()
        assert not search.hits(found, 1).any() and search.hits(search.optimistic(found), 1).all()


def test_length_and_precision_of_the_embeddings_do_not_matter():
    rng = np.random.default_rng(5)
    probes, gallery, labels = rng.normal(size=(30, 8)), rng.normal(size=(40, 8)), (np.arange(30) % 7, np.arange(40) % 7)
    value = search.average_precisions(search.search(probes, gallery, *labels))
    lengths = rng.uniform(0.1, 9, (40, 1))
    longer = search.search(3 * probes, lengths * gallery, *labels)
    np.testing.assert_allclose(search.average_precisions(longer), value, rtol=0, atol=1e-12)
    named = search.search(probes, gallery, *(x.astype(str) for x in labels))
    np.testing.assert_array_equal(search.average_precisions(named), value)


def test_never_a_full_matrix(monkeypatch):
    shapes = []
    rounded = search.rounded
    monkeypatch.setattr(search, "BLOCK", 20)
    monkeypatch.setattr(search, "rounded", lambda x: shapes.append(x.shape) or rounded(x))
    rng = np.random.default_rng(0)
    search.search(rng.normal(size=(90, 4)), rng.normal(size=(70, 4)), np.arange(90) % 30, np.arange(70) % 30)
    assert max(np.prod(shape) for shape in shapes) == 400


GOOD = np.eye(2)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((np.array([[1, np.nan]]), GOOD, [0], [0, 1]), "row 0 of the probes"),
        ((GOOD, np.array([[1.0, 0], [np.inf, 1]]), [0, 1], [0, 1]), "row 1 of the gallery"),
        ((GOOD, np.eye(3), [0, 1], [0, 1, 2]), "one dimension"),
        ((GOOD, GOOD, [0], [0, 1]), "one label per row"),
        ((GOOD, GOOD, [0, 1], [[0, 1]]), "one label per row"),
        ((np.zeros((0, 2)), GOOD, [], [0, 1]), "at least one row"),
        ((GOOD[0], GOOD, [0], [0, 1]), "must be a matrix"),
    ],
)
def test_bad_input_is_one_clear_sentence(arguments, words):
    with pytest.raises(ValueError, match=words):
        search.search(*arguments)
