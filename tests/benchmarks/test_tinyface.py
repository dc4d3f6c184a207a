from __future__ import annotations

import numpy as np
import pytest

from lrfr.benchmarks import tinyface
from lrfr.benchmarks.outcome import table
from tests.evaluate.embeddings import cosine, failed, from_similarities, lattice, people

# E2: a tie with a distractor (third probe) and a failed acquisition (fourth)
SIMILARITY = [
    [0.9, 0.3, 0.5, 0.2, 0.6, 0.1],
    [0.2, 0.8, 0.7, 0.1, 0.9, 0.0],
    [0.4, 0.1, 0.2, 0.6, 0.6, 0.3],
    [np.nan] * 6,
]
PROBES, GALLERY = [1, 2, 3, 1], [1, 1, 2, 3]


def e2(similarity=SIMILARITY, labels=PROBES):
    probes, gallery = from_similarities(similarity)
    return tinyface.evaluate(probes, labels, gallery[:4], GALLERY, gallery[4:])


def slow(probes, probe_labels, gallery, gallery_labels, distractors, mates_first=False):
    """The official code's loops over a sorted list, with a rank for each probe and its average precision."""
    images = [(x, label) for x, label in zip(gallery, gallery_labels, strict=True)] + [(x, None) for x in distractors]
    ranks, precisions = [], []
    for probe, person in zip(probes, probe_labels, strict=True):
        rows = []
        for x, label in images:
            mate = label is not None and label == person
            rows.append((-np.inf if failed(x) or failed(probe) else cosine(probe, x), mate))
        if all(score == -np.inf for score, mate in rows if mate):
            ranks.append(np.inf)
            precisions.append(0.0)
            continue
        rows.sort(key=lambda row: (-row[0], row[1] != mates_first))
        good = sum(mate for _, mate in rows)
        old_recall, old_precision, ap, intersect, first = 0.0, 1.0, 0.0, 0, None
        for j, (_, mate) in enumerate(rows):
            if mate:
                intersect += 1
                first = j + 1 if first is None else first
            recall, precision = intersect / good, intersect / (j + 1)
            ap += (recall - old_recall) * ((old_precision + precision) / 2)
            old_recall, old_precision = recall, precision
        ranks.append(first)
        precisions.append(ap)
    return np.array(ranks), np.array(precisions)


def test_e2():
    outcome = e2()
    for row, expected in enumerate([17 / 24, 1 / 6, 0.25, 0]):
        only = np.eye(4)[row]
        assert outcome.statistics["map"](only) == pytest.approx(expected, abs=1e-12)
    assert outcome.metrics["map"] == pytest.approx(0.28125, abs=1e-12)
    assert outcome.metrics["rank1"] == 0.25 and outcome.metrics["rank5"] == 0.75
    assert outcome.metrics["map_optimistic"] == pytest.approx(0.46875, abs=1e-12)
    assert outcome.metrics["rank1_optimistic"] == 0.5
    assert outcome.counts == {
        "probes": 4, "gallery": 4, "distractors": 2, "fta_probes": 1, "fta_gallery": 0, "fta_distractors": 0,
    }  # fmt: skip
    assert not outcome.decisions["rank50"][3]  # a failed probe is a miss at any rank, though the gallery has six images


def test_leaving_a_failed_probe_out_would_flatter():
    outcome = e2(SIMILARITY[:3], PROBES[:3])
    assert outcome.metrics["rank1"] == pytest.approx(1 / 3) and outcome.metrics["map"] == pytest.approx(
        0.375, abs=1e-12
    )


def drawn(seed, exact):
    rng = np.random.default_rng(seed)
    probe_labels, gallery_labels = (
        rng.integers(0, 6, 25),
        rng.permutation(np.repeat(np.arange(6), rng.integers(1, 5, 6))),
    )
    if exact:
        sets = [lattice(rng, size) for size in (25, len(gallery_labels), 40)]
    else:
        sets = [people(rng, labels, 1.5) for labels in (probe_labels, gallery_labels, rng.integers(10, 60, 40))]
    for x in sets:
        x[rng.random(len(x)) < 0.2] = np.nan
    sets[1][gallery_labels == 5] = np.nan  # every mate of one person failed
    return sets[0], probe_labels, sets[1], gallery_labels, sets[2]


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_agrees_with_the_official_loops(seed, exact):
    case = drawn(seed, exact)
    outcome = tinyface.evaluate(*case, block=11)
    ranks, precisions = slow(*case)
    for k in (1, 5, 10, 20, 50):
        assert outcome.metrics[f"rank{k}"] == pytest.approx(np.mean(ranks <= k), abs=1e-12)
        np.testing.assert_array_equal(outcome.decisions[f"rank{k}"], ranks <= k)
    assert outcome.metrics["map"] == pytest.approx(np.mean(precisions), abs=1e-12)
    ranks, precisions = slow(*case, mates_first=True)
    assert outcome.metrics["rank1_optimistic"] == pytest.approx(np.mean(ranks <= 1), abs=1e-12)
    assert outcome.metrics["map_optimistic"] == pytest.approx(np.mean(precisions), abs=1e-12)
    ones = np.ones(25)
    assert {metric: value(ones) for metric, value in outcome.statistics.items()} == pytest.approx(
        outcome.metrics, abs=1e-12
    )


def test_distractors_are_in_the_gallery():
    """One distractor at the probe itself, in front of the mate: rank 2."""
    outcome = tinyface.evaluate([[1, 0.1]], [7], [[1, 0]], [7], [[1, 0.1]])
    assert outcome.metrics["rank1"] == 0 and outcome.metrics["rank5"] == 1


def test_a_distractor_is_nobody_even_if_its_number_is_a_probes():
    outcome = tinyface.evaluate([[1, 0], [0, 1]], [0, 1], [[1, 0.2], [0.2, 1]], [0, 1], [[1, 0], [0, 1], [1, 1]])
    assert outcome.metrics["rank1"] == 0 and outcome.metrics["rank5"] == 1


def test_a_copy_among_the_distractors_stands_in_front():
    probes, gallery = [[0.3, 0.4, 0.5]], [[0.1, 0.2, 0.9]]
    outcome = tinyface.evaluate(probes, ["ann"], gallery, ["ann"], gallery)
    assert outcome.metrics["rank1"] == 0 and outcome.metrics["rank1_optimistic"] == 1
    assert outcome.metrics["map"] == pytest.approx(0.25) and outcome.metrics["map_optimistic"] == 1


def test_a_perfect_and_a_random_model():
    rng = np.random.default_rng(3)
    probe_labels, gallery_labels, strangers = np.arange(40), np.repeat(np.arange(40), 2), rng.integers(40, 100, 200)
    perfect = tinyface.evaluate(
        *(
            people(rng, x, 0, centres=200) if i % 2 == 0 else x
            for i, x in enumerate((probe_labels,) * 2 + (gallery_labels,) * 2)
        ),
        people(rng, strangers, 0, centres=200),
    )
    assert all(value == 1 for value in perfect.metrics.values())
    n = 2000
    random = tinyface.evaluate(
        rng.normal(size=(n, 64)),
        np.arange(n) % 40,
        rng.normal(size=(80, 64)),
        gallery_labels,
        rng.normal(size=(20, 64)),
    )
    for k in (1, 5):  # two mates among 100: 1 - C(98, k) / C(100, k)
        expected = 1 - np.prod([(98 - i) / (100 - i) for i in range(k)])
        assert random.metrics[f"rank{k}"] == pytest.approx(expected, abs=4 * np.sqrt(expected / n) * 2)


def test_table():
    frame = table({"kd": e2(), "hkdd": e2()})
    assert list(frame.columns[:3]) == ["model", "metric", "value"] and set(frame.fta_probes) == {1}
    assert frame[(frame.model == "hkdd") & (frame.metric == "map")].value.item() == pytest.approx(0.28125, abs=1e-12)


def test_bad_input_is_one_clear_sentence():
    with pytest.raises(ValueError, match="probe 0 has no mate"):
        tinyface.evaluate([[1.0, 0]], [7], [[1.0, 0]], [8], [[1.0, 0]])
    with pytest.raises(ValueError, match="same dimensions"):
        tinyface.evaluate([[1.0, 0]], [7], [[1.0, 0]], [7], [[1.0, 0, 0]])
    with pytest.raises(ValueError, match="one label per row"):
        tinyface.evaluate([[1.0, 0]], [7], [[1.0, 0]], [7, 8], [[1.0, 0]])
