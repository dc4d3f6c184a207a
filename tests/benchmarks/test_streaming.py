from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lrfr.benchmarks import streaming
from lrfr.evaluate import identification, open_set
from tests.evaluate.embeddings import from_similarities, lattice


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
    """Probes, gallery, their labels and a block: ties, copies, several mates, failed images on both sides, strangers."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    people, extra = draw(st.integers(1, 6)), draw(st.integers(0, 20))
    gallery_labels = rng.permutation(np.concatenate([np.arange(people), rng.integers(-3, people, extra)]))
    probe_labels = rng.integers(0, people + 2 * draw(st.booleans()), draw(st.integers(1, 12)))
    dimensions = draw(st.integers(2, 4))
    gallery, probes = (lattice(rng, len(labels), dimensions) for labels in (gallery_labels, probe_labels))
    gallery[rng.random(len(gallery)) < draw(st.sampled_from([0, 0.3]))] = np.nan
    probes[rng.random(len(probes)) < draw(st.sampled_from([0, 0.3]))] = np.nan
    return probes, gallery, probe_labels, gallery_labels, draw(st.integers(1, 30))


def outcome(function, *arguments):
    """The value, or the sentence of the error."""
    try:
        return function(*arguments)
    except ValueError as error:
        return str(error)


@given(searches(), st.integers(1, 25))
@settings(deadline=None, max_examples=150)
def test_closed_set_twins_equal_the_matrix_functions(case, k):
    probes, gallery, *labels, block = case
    similarity = matrix(probes, gallery)
    for mine, whole, option in (
        (streaming.rank_k, identification.rank_k, k),
        (streaming.mean_average_precision, identification.mean_average_precision, "trapezoid"),
        (streaming.mean_average_precision, identification.mean_average_precision, "standard"),
    ):
        expected = outcome(whole, similarity, *labels, option)
        found = outcome(mine, probes, gallery, *labels, option, block)
        assert found == (expected if isinstance(expected, str) else pytest.approx(expected, abs=1e-12))


@given(searches(), st.sampled_from([0.01, 0.1, 0.25, 0.5, 0.9]), st.integers(1, 20))
@settings(deadline=None, max_examples=150)
def test_the_open_set_twin_equals_the_matrix_function(case, fpir, rank):
    probes, gallery, *labels, block = case
    expected = outcome(open_set.tpir_at_fpir, matrix(probes, gallery), *labels, fpir, rank)
    assert outcome(streaming.tpir_at_fpir, probes, gallery, *labels, fpir, rank, block) == expected


@pytest.mark.parametrize("seed", range(3))
def test_a_copy_ties_whatever_block_it_is_in(seed):
    """Float64 sums of 512 products differ in their last bits between blocks; the mate's copies must still be in front of it."""
    rng = np.random.default_rng(seed)
    gallery = rng.normal(size=(300, 512)).astype(np.float32)
    mates, copies = np.arange(0, 50), np.arange(250, 300)
    gallery[copies] = gallery[mates]
    probes = gallery[mates] + 0.5 * rng.normal(size=(50, 512)).astype(np.float32)
    for block in (7, 64, 1000):
        found = streaming.search(probes, gallery, mates, np.arange(300), block)
        assert (found.rivals - found.betters == 1).all()
        assert not streaming.hits(found, 1).any() and streaming.hits(streaming.optimistic(found), 1).all()


def test_length_and_precision_of_the_embeddings_do_not_matter():
    rng = np.random.default_rng(5)
    probes, gallery, labels = rng.normal(size=(30, 8)), rng.normal(size=(40, 8)), (np.arange(30) % 7, np.arange(40) % 7)
    value = streaming.mean_average_precision(probes, gallery, *labels)
    lengths = rng.uniform(0.1, 9, (40, 1))
    assert streaming.mean_average_precision(3 * probes, lengths * gallery, *labels) == pytest.approx(value, abs=1e-12)
    assert streaming.mean_average_precision(probes, gallery, *(x.astype(str) for x in labels)) == value


def test_never_a_full_matrix(monkeypatch):
    shapes = []
    rounded = streaming.rounded
    monkeypatch.setattr(streaming, "rounded", lambda x: shapes.append(x.shape) or rounded(x))
    rng = np.random.default_rng(0)
    streaming.search(
        rng.normal(size=(90, 4)), rng.normal(size=(70, 4)), np.arange(90) % 30, np.arange(70) % 30, block=20
    )
    assert max(np.prod(shape) for shape in shapes) == 400


def test_e4_open_set():
    similarity = np.vstack(
        [[[0.9, 0.2, 0.1], [0.3, 0.7, 0.65], [0.6, 0.1, 0.55], [0.35, 0.5, 0.3], [0.1, 0.85, 0.2]],
         [[t, 0, 0] for t in (0.40, 0.66, 0.52, 0.45, 0.31, 0.48, 0.58, 0.22, 0.36, 0.62)]]
    )  # fmt: skip
    labels = list("ABCAB") + ["?"] * 10, list("ABC")
    for rank, expected in ((1, [0.6, 0.6, 0.6, 0.6]), (2, [0.8, 0.6, 0.6, 0.6])):
        for fpir, value in zip((0.3, 0.2, 0.1, 0.01), expected, strict=True):
            twin = streaming.tpir_at_fpir(*from_similarities(similarity), *labels, fpir, rank)
            assert twin == pytest.approx(value, abs=1e-12)


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
        ((GOOD, GOOD, [0, 1], [0, 1], 0), "block"),
    ],
)
def test_bad_input_is_one_clear_sentence(arguments, words):
    with pytest.raises(ValueError, match=words):
        streaming.search(*arguments)


def test_bad_options():
    labels = [0, 1], [0, 1]
    with pytest.raises(ValueError, match="k must"):
        streaming.rank_k(GOOD, GOOD, *labels, 0)
    with pytest.raises(ValueError, match="rule"):
        streaming.mean_average_precision(GOOD, GOOD, *labels, "voc")
    with pytest.raises(ValueError, match="no mate"):
        streaming.rank_k(GOOD, GOOD, [0, 2], [0, 1], 1)
    with pytest.raises(ValueError, match="fpir"):
        streaming.tpir_at_fpir(GOOD, GOOD, *labels, 1.0)
    with pytest.raises(ValueError, match="no non-mated"):
        streaming.tpir_at_fpir(GOOD, GOOD, *labels, 0.1)
