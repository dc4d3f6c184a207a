"""An arm is compared with its own method on the same draws of people; another schedule also with the references."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from lrfr.config import Study
from lrfr.evaluate.statistics import holm, paired_difference
from lrfr.report.tables import ABLATION, SCHEDULE, Evaluation, ablation, rescheduled, schedule
from lrfr.train.trainings import training, with_arms

FREEDOM = 9
ROWS = [
    ("model", "teacher", "dense", "eer", 0.30),
    ("model", "scratch", "dense", "eer", 0.22),
    ("model", "kd", "dense", "eer", 0.20),
    ("arm", "kd-long", "dense", "eer", 0.15),
    ("arm", "scratch-long", "dense", "eer", 0.21),
    ("arm", "hkdd-no_hfd", "dense", "eer", 0.25),
    ("arm", "kd-long", "official", "accuracy", 0.91),
    ("arm", "kd-long", "dense", "agreement", 0.5),
]


@pytest.fixture
def study(composed: Callable[[str], dict]) -> Study:
    return Study(**composed("smoke"))


@pytest.fixture
def longer(composed: Callable[[str], dict]) -> Study:
    """A study with two models in another schedule."""
    values = composed("smoke")
    values["models"] |= {f"{name}-long": {"like": name, "recipe": {"epochs": 9}} for name in ("scratch", "kd")}
    return Study(**values)


def evaluated(study: Study, rows: list[tuple[str, str, str, str, float]]) -> Evaluation:
    """What the `evaluate` stage would have written for rows of (kind, model, protocol, metric, value) of one fold."""
    rng = np.random.default_rng(3)
    draws = pd.DataFrame(rows, columns=["kind", "model", "protocol", "metric", "value"])
    draws = draws.assign(folds="0", pairing="lr_lr", resolution="8", interval="identity bootstrap")
    values = np.array([value + rng.normal(0, 0.01, 200) for *_, value in rows])
    counts = pd.DataFrame({"protocol": ["dense"], "searches": [0], "fold": [0], "identities": [FREEDOM + 1]})
    draws = draws.assign(low=draws.value - 0.02, high=draws.value + 0.02)
    return Evaluation(study.evaluate.level, draws, values, pd.DataFrame(), counts)


def test_an_arm_is_compared_with_its_method(study: Study) -> None:
    rows = [("model", "hkdd", "dense", "eer", 0.20), ("model", "scratch", "dense", "eer", 0.50)]
    rows += [("arm", "hkdd-no_hfd", "dense", "eer", 0.25), ("setting", "head", "dense", "eer", 0.10)]
    evaluation = evaluated(study, rows)
    table, page = ablation(study, evaluation)
    assert list(table.columns) == ABLATION and len(table) == 1
    row, values = table.iloc[0], evaluation.values
    expected = paired_difference(0.25, 0.20, values[2], values[0], study.evaluate.level, FREEDOM)
    assert (row.method, row.arm, row.protocol, row.value) == ("hkdd", "no_hfd", "dense", 0.25)
    assert (row["diff"], row.diff_low, row.diff_high, row.p) == tuple(expected)
    assert "+5.0 [" in page


def test_other_protocols_and_agreement_are_left_out(study: Study) -> None:
    names = [("model", "hkdd"), ("arm", "hkdd-no_hfd")]
    rows = [(*name, *kind, 0.2) for kind in (("dense", "agreement"), ("official", "eer")) for name in names]
    table, page = ablation(study, evaluated(study, rows))
    assert table.empty and list(table.columns) == ABLATION
    assert "No arm has been trained" in page


def test_arms_become_models_with_their_changes(study: Study) -> None:
    armed = with_arms(study)
    assert set(armed.models) - set(study.models) == set(study.run_arms) == {"hkdd-no_hfd"}
    assert armed.models["hkdd-no_hfd"].options["hfd"] == 0 and study.models["hkdd"].options["hfd"] != 0


def test_an_arm_whose_recipe_names_epochs_is_another_schedule(longer: Study) -> None:
    assert rescheduled(longer) == {"scratch-long": 9, "kd-long": 9}
    assert training(longer, "kd-long").train.epochs == 9 != longer.train.epochs
    found, _ = ablation(longer, evaluated(longer, [*ROWS, ("model", "hkdd", "dense", "eer", 0.24)]))
    assert set(found.arm) == {"no_hfd"}


def test_each_reference_is_paired_and_corrected_over_the_arms(longer: Study) -> None:
    evaluation = evaluated(longer, ROWS)
    (table, _), values = schedule(longer, evaluation), evaluation.values
    assert list(table.columns) == SCHEDULE
    dense = table[table.protocol == "dense"]
    against = [
        ("scratch", "itself"),
        ("kd", "itself"),
        ("kd", "scratch-long"),
        ("scratch", "teacher"),
        ("kd", "teacher"),
    ]
    assert list(zip(dense.model, dense.against, strict=True)) == against
    expected = [(0.21, 0.22, 4, 1), (0.15, 0.20, 3, 2), (0.15, 0.21, 3, 4), (0.21, 0.30, 4, 0), (0.15, 0.30, 3, 0)]
    for row, (value, base, own, other) in zip(dense.itertuples(), expected, strict=True):
        found = paired_difference(value, base, values[own], values[other], longer.evaluate.level, FREEDOM)
        assert (row.value, row.diff, row.diff_low, row.diff_high, row.p) == (value, *found) and row.epochs == 9
    for _, family in dense.groupby("against"):
        np.testing.assert_array_equal(family.p_holm, holm(family.p))
    [official] = table[table.protocol == "official"].itertuples()
    assert official.value == 0.91 and official.against == "" and np.isnan(official.diff) and np.isnan(official.p_holm)


def test_the_page_holds_errors_differences_and_official_accuracy(longer: Study) -> None:
    _, page = schedule(longer, evaluated(longer, ROWS))
    assert "| kd, 9 epochs | 15.0 [" in page and "minus that of scratch-long" in page
    assert "| kd, 9 epochs | 91.0 [" in page
    assert "-5.0 [" in page and "*" in page.split("minus that of itself")[1]


def test_a_study_without_such_arms_says_so(study: Study) -> None:
    table, page = schedule(study, evaluated(study, ROWS[:3]))
    assert table.empty and list(table.columns) == SCHEDULE and "has trained no model" in page
