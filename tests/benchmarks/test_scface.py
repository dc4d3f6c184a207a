from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lrfr.benchmarks import scface
from tests.evaluate.embeddings import cosine, failed, lattice, people

NAN = [np.nan] * 3
FIRST, TOTAL = [1, 7, 10, 13, 14, 17, 18, 23, 24, 25], 5623  # of the subjects that split 0 tests


def test_e5():
    probes = [[0.6, 0.5, 0.1], [0.7, 0.6, 0.2], NAN, [0.9, 0.1, 0], [0.4, 0.4, 0.1], [0.1, 0.2, 0.8], *np.eye(3)]
    outcome = scface.evaluate(np.eye(3), [1, 2, 3], probes, [1, 2, 3] * 3, np.repeat([1, 2, 3], 3))
    for distance, strict, lax in ((1, 1 / 3, 1 / 3), (2, 2 / 3, 1), (3, 1, 1)):
        assert outcome.metrics[f"rank1@d{distance}"] == pytest.approx(strict, abs=1e-12)
        assert outcome.metrics[f"rank1@d{distance}_optimistic"] == pytest.approx(lax, abs=1e-12)
        assert outcome.counts[f"probes@d{distance}"] == 3 and outcome.counts[f"fta@d{distance}"] == (distance == 1)
    np.testing.assert_array_equal(outcome.decisions["rank1"], [1, 0, 0, 1, 0, 1, 1, 1, 1])


def drawn(seed, ties=False, subjects=26):
    """Two cameras and three distances; failed probes and a failed mugshot."""
    rng = np.random.default_rng(seed)
    names = 100 + rng.permutation(subjects)
    probe_subjects, distances = np.tile(np.repeat(names, 2), 3), np.repeat([1, 2, 3], 2 * subjects)
    if ties:
        gallery, probes = lattice(rng, subjects), lattice(rng, len(distances))
    else:
        gallery = people(rng, names - 100, 0.2)
        probes = people(rng, probe_subjects - 100, 0.3) + (rng.normal(size=(len(distances), 8)) / distances[:, None])
    probes[rng.random(len(probes)) < 0.1] = np.nan
    gallery[4] = np.nan
    return gallery, names, probes, probe_subjects, distances


def slow(gallery, names, probes, probe_subjects, distances, optimistic=False):
    """Rank-1 by distance, by loops; a tie is lost unless optimistic."""
    right = {}
    for probe, subject, distance in zip(probes, probe_subjects, distances, strict=True):
        scores = {
            n: -np.inf if failed(x) or failed(probe) else cosine(x, probe) for n, x in zip(names, gallery, strict=True)
        }
        own = scores.pop(subject)
        best = max(scores.values())
        right.setdefault(distance, []).append(own > best or (optimistic and own == best and own > -np.inf))
    return {distance: np.mean(hits) for distance, hits in right.items()}


@pytest.mark.parametrize("ties", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_loops(seed, ties):
    case = drawn(seed, ties)
    outcome = scface.evaluate(*case, block=10)
    for ending, lax in (("", False), ("_optimistic", True)):
        for distance, value in slow(*case, lax).items():
            assert outcome.metrics[f"rank1@d{distance}{ending}"] == pytest.approx(value, abs=1e-12)
    ones = np.ones(len(case[2]))
    assert {metric: value(ones) for metric, value in outcome.statistics.items()} == pytest.approx(
        outcome.metrics, abs=1e-12
    )
    assert outcome.counts["fta_gallery"] == 1 and not outcome.decisions["rank1"][case[3] == case[1][4]].any()
    fta = sum(outcome.counts[f"fta@d{distance}"] for distance in (1, 2, 3))
    assert fta == np.isnan(case[2]).all(axis=1).sum() > 0


def test_the_denominator_is_fixed():
    """A face that was not found is a miss of 52, and leaving its row out is refused."""
    gallery, names, probes, probe_subjects, distances = drawn(0)
    outcome = scface.evaluate(gallery, names, probes, probe_subjects, distances)
    assert [outcome.counts[f"probes@d{d}"] for d in (1, 2, 3)] == [52, 52, 52]
    assert outcome.metrics["rank1@d1"] * 52 == pytest.approx(round(outcome.metrics["rank1@d1"] * 52), abs=1e-9)
    kept = ~np.isnan(probes).all(axis=1)
    with pytest.raises(ValueError, match="never left out"):
        scface.evaluate(gallery, names, probes[kept], probe_subjects[kept], distances[kept])


def test_failed_mugshots_are_never_found():
    """Not even by an optimistic sort among nothing but failed mugshots."""
    for subjects in (1, 2):
        names = np.arange(subjects)
        outcome = scface.evaluate([NAN] * subjects, names, np.eye(3)[:subjects], names, np.ones(subjects, dtype=int))
        assert outcome.metrics == {"rank1@d1": 0, "rank1@d1_optimistic": 0}


def test_splits_are_the_published_ones_and_differ():
    subjects = np.arange(1, 131)
    first, second = (scface.tested_subjects(subjects, split) for split in (0, 1))
    assert len(first) == len(second) == 80 and not np.array_equal(first, second)
    assert first[:10].tolist() == FIRST and first.sum() == TOTAL  # publications name them: they never change
    np.testing.assert_array_equal(scface.tested_subjects(subjects[::-1], 0), first)
    table = scface.split_table()
    assert len(table) == 5 * 130 and (table.groupby(["split", "role"]).size().unstack() == [80, 50]).all().all()
    np.testing.assert_array_equal(table[(table.split == 1) & (table.role == "test")].subject, second)
    published = Path(__file__).parents[2] / "docs" / "benchmarks" / "scface-splits.csv"
    assert published.read_text(encoding="utf-8") == table.to_csv(index=False, lineterminator="\n")


def test_splits_search_among_their_own_people_only():
    case = drawn(2)
    outcome = scface.evaluate_splits(*case, splits=(0, 3))
    values = []
    for split in (0, 3):
        tested = scface.tested_subjects(case[1], split)
        assert len(tested) == 16
        g, p = np.isin(case[1], tested), np.isin(case[3], tested)
        values.append(slow(case[0][g], case[1][g], case[2][p], case[3][p], case[4][p]))
    for distance in (1, 2, 3):
        both = [value[distance] for value in values]
        assert outcome.metrics[f"rank1@d{distance}"] == pytest.approx(np.mean(both), abs=1e-12)
        assert outcome.metrics[f"rank1@d{distance}_sd"] == pytest.approx(np.std(both, ddof=1), abs=1e-12)
        statistic = outcome.statistics[f"rank1@d{distance}"]
        assert statistic(np.ones(len(case[2]))) == pytest.approx(np.mean(both), abs=1e-12)
    assert outcome.counts["probes@d1"] == 32 and outcome.counts["subjects"] == 16
    assert "rank1@d1_sd" not in scface.evaluate_splits(*case, splits=(0,)).metrics


def test_bad_input_is_one_clear_sentence():
    gallery, names, probes, probe_subjects, distances = drawn(0)
    with pytest.raises(ValueError, match="several gallery images"):
        scface.evaluate(gallery, np.where(names == 100, 101, names), probes, probe_subjects, distances)
    with pytest.raises(ValueError, match="no gallery image"):
        scface.evaluate(gallery[1:], names[1:], probes, probe_subjects, distances)
    with pytest.raises(ValueError, match="one distance per row"):
        scface.evaluate(gallery, names, probes, probe_subjects, distances[:-1])
    with pytest.raises(ValueError, match="one split"):
        scface.evaluate_splits(gallery, names, probes, probe_subjects, distances, splits=())
