from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from lrfr.errors import UserError
from lrfr.evaluate.statistics import dyadic_ends, dyadic_interval
from lrfr.evaluate.verification import area_under_roc, balanced_threshold, equal_error_rate
from lrfr.protocol.folds import (
    OFFICIAL_COLUMNS,
    held_out_rows,
    official_accuracy,
    official_metrics,
    official_pairs,
    place_in_person,
    read_official,
)
from lrfr.train.fold import read_fold
from tests.protocol import faces

DRAWS, SEED, KIND = 120, 3, 20


@pytest.mark.parametrize(
    ("make", "write"), [(faces.lfw_study, faces.write_lfw), (faces.tiny_study, faces.write_faces)], ids=["lfw", "all"]
)
def test_rows_are_those_of_the_training_stages(tmp_path, monkeypatch, make, write):
    """The training stages number the rows of what they write by `Fold.held_out`."""
    monkeypatch.chdir(tmp_path)
    study = make()
    write(study)
    index = pd.read_csv(study.runs / "index.csv").sort_values("image")
    index.to_csv(study.runs / "index.csv", index=False)
    (study.runs / "views").mkdir()
    for name in ("chips", "views/area"):
        np.save(study.runs / f"{name}.npy", np.zeros((1, 150, 150, 3)))
    for number in study.faces.run_folds:
        rows = held_out_rows(index, pd.read_csv(study.runs / "folds.csv"), number, study.faces.validation_images)
        fold = read_fold(study, number)
        np.testing.assert_array_equal(rows.images, fold.held_out)
        np.testing.assert_array_equal(rows.images[rows.test], fold.test)
        np.testing.assert_array_equal(rows.images[rows.validation], np.sort(fold.validation))
        np.testing.assert_array_equal(rows.people, fold.people[fold.held_out])


def test_removed_photographs_are_tested_and_do_not_validate():
    index = pd.DataFrame({"image": range(8), "person": [0] * 4 + [1] * 4, "removed": [0, 1, 0, 0] * 2})
    folds = pd.DataFrame({"fold": 0, "person": [0, 1], "role": ["validation", "test"]})
    rows = held_out_rows(index.iloc[::-1], folds, 0, 2)
    assert rows.images.tolist() == [0, 2, 4, 5, 6, 7] and rows.people.tolist() == [0, 0, 1, 1, 1, 1]
    assert rows.validation.tolist() == [0, 1] and rows.test.tolist() == [2, 3, 4, 5]


def test_place_in_person():
    assert place_in_person(np.array([5, 2, 5, 5, 2, 7])).tolist() == [0, 0, 1, 2, 1, 0]


@pytest.fixture(scope="module")
def listed():
    """Two official folds of 2 x 20 pairs: the table, people of 60 photographs, and their two embeddings."""
    rng = np.random.default_rng(0)
    people = np.repeat(np.arange(30), 2)
    rows = []
    for fold in (0, 1):
        for _ in range(KIND):
            person = rng.integers(15 * fold, 15 * fold + 15)
            rows.append(("official", 0, fold, 2 * person, 2 * person + 1, 1))
            a, b = rng.choice(np.arange(15 * fold, 15 * fold + 15), 2, replace=False)
            rows.append(("official", 0, fold, 2 * a + rng.integers(2), 2 * b + rng.integers(2), 0))
    x, y = (rng.normal(size=(30, 5))[people] + noise * rng.normal(size=(60, 5)) for noise in (0.4, 0.9))
    y += x
    return pd.DataFrame(rows, columns=OFFICIAL_COLUMNS), people, x, y


@pytest.fixture(scope="module")
def pairs(listed):
    """With the coins of `dyadic_interval`."""
    table, people, _, _ = listed
    return official_pairs(table, np.arange(60), people, DRAWS, SEED, 0)


def distances(listed):
    table, _, x, y = listed
    return np.array([np.sum((x[r.image_a] - y[r.image_b]) ** 2) for r in table.itertuples()])


def test_accuracy_takes_the_threshold_of_the_other_fold(listed, pairs):
    table, _, x, y = listed
    squared, right = distances(listed), 0
    for fold in (0, 1):
        own, other = (table.official_fold == k for k in (fold, 1 - fold))
        # as many pairs of each kind, so the balanced threshold is that of the plain accuracy
        threshold = -balanced_threshold(-squared[other], table.same[other] == 1)
        right += sum((squared[own] <= threshold) == (table.same[own] == 1))
    accuracy = official_metrics(pairs, x, y)["accuracy"][0]
    assert accuracy == pytest.approx(right / len(table), abs=1e-12) and 0.6 < accuracy < 1
    assert accuracy * len(table) == pytest.approx(round(accuracy * len(table)), abs=1e-9)


@pytest.mark.parametrize("metric", ["eer", "auc", "accuracy"])
def test_intervals_are_those_of_dyadic_interval(listed, pairs, metric):
    table, people, x, y = listed
    squared, same = distances(listed), table.same.to_numpy() == 1
    a, b = (people[table[side]] for side in ("image_a", "image_b"))
    a, b = np.unique(np.concatenate([a, b]), return_inverse=True)[1].reshape(2, -1)
    fold, right = table.official_fold.to_numpy(), np.zeros(len(table), dtype=bool)
    for k in (0, 1):
        threshold = -balanced_threshold(-squared[fold != k], same[fold != k])
        right[fold == k] = (squared[fold == k] <= threshold) == same[fold == k]

    def accuracy(scores, same, weights):
        groups = [(fold == k) & (same == kind) for k in (0, 1) for kind in (True, False)]
        return np.mean([np.average(right[g], weights=weights[g]) for g in groups])

    statistic = {"eer": equal_error_rate, "auc": area_under_roc, "accuracy": accuracy}[metric]
    slow = dyadic_interval(statistic, -squared, same, a, b, DRAWS, 0.95, SEED)
    values = official_metrics(pairs, x, y)[metric]
    fast = (values[0], *dyadic_ends(values[0], *np.split(values[1:], 2), 0.95))
    np.testing.assert_allclose(fast, slow, atol=1e-9)


def test_the_interval_covers(listed):
    """Of the accuracy of pairs without any shared person it is nearly the binomial one."""
    rng = np.random.default_rng(5)
    n, right = 400, 0.9
    people = np.arange(3 * n)  # a genuine pair needs one person, an impostor pair two
    rows, who = [], []
    for k in range(n):
        fold, same = 2 * k // n, k % 2
        rows.append(("official", 0, fold, 2 * k, 2 * k + 1, same))
        who += [people[2 * k], people[2 * k] if same else people[2 * k + 1]]
    pairs = official_pairs(pd.DataFrame(rows, columns=OFFICIAL_COLUMNS), np.arange(2 * n), np.array(who), 2000, 0, 0)
    correct = rng.random(n) < right
    squared = np.where(correct == pairs.same, 1.0, 3.0) + 0.01 * rng.random(n)
    values = official_accuracy(pairs, squared)
    low, high = dyadic_ends(values[0], *np.split(values[1:], 2), 0.95)
    rates = [correct[(pairs.fold == k) & (pairs.same == kind)].mean() for k in (0, 1) for kind in (True, False)]
    error = np.sqrt(np.mean([rate * (1 - rate) for rate in rates]) / n)
    assert (high - low) / 2 / 1.96 == pytest.approx(error, rel=0.1)


def test_the_coins_differ_between_folds_and_not_between_calls(listed):
    table, people, _, _ = listed
    one, same, other = (official_pairs(table, np.arange(60), people, DRAWS, SEED, k).weights for k in (0, 0, 1))
    assert np.array_equal(one, same) and not np.array_equal(one, other)
    assert (one[0] == 2).all() and one.max() == 4 and one.min() == 0


def test_a_list_that_does_not_fit_is_one_clear_sentence(listed, tmp_path, monkeypatch):
    table, people, _, _ = listed
    with pytest.raises(UserError, match="photograph 59 is not among"):
        official_pairs(table.assign(image_b=59), np.arange(59), people[:59], 1, 0, 0)
    with pytest.raises(UserError, match="contradicts"):
        official_pairs(table, np.arange(60), people[::-1] // 3, 1, 0, 0)
    monkeypatch.chdir(tmp_path)
    study = faces.lfw_study()
    with pytest.raises(UserError, match="official.csv: not the official pairs"):
        read_official(study)
    study.runs.mkdir(parents=True)
    for damaged in (table.drop(columns="same"), table.iloc[:-1]):
        damaged.to_csv(study.runs / "official.csv", index=False)
        with pytest.raises(UserError, match="not the official pairs"):
            read_official(study)
