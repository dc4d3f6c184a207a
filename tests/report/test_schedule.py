"""tables/schedule.csv: a model with another schedule against itself, the teacher, and scratch with that schedule."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from lrfr.config import Study
from lrfr.evaluate.statistics import holm, paired_difference
from lrfr.report.ablation import ablation_table
from lrfr.report.schedule import COLUMNS, rescheduled, schedule_page, schedule_table
from tests.report.test_ablation import evaluation

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
    values = composed("smoke")
    values["arms"] |= {"scratch": {"long": {"recipe": {"epochs": 9}}}, "kd": {"long": {"recipe": {"epochs": 9}}}}
    return Study(**values | {"run_arms": ["hkdd-no_hfd", "scratch-long", "kd-long"]})


def test_an_arm_whose_recipe_names_epochs_is_another_schedule(study: Study) -> None:
    assert rescheduled(study) == {"scratch-long": 9, "kd-long": 9}
    assert study.for_training("kd-long").train.epochs == 9 != study.train.epochs


def test_each_reference_is_paired_and_corrected_over_the_arms(study: Study) -> None:
    draws, values = evaluation(ROWS)
    table = schedule_table(study, draws, values, {"0": 9})
    assert list(table.columns) == COLUMNS
    dense = table[table.protocol == "dense"]
    assert list(zip(dense.model, dense.against, strict=True)) == [
        ("scratch", "itself"),
        ("kd", "itself"),
        ("kd", "scratch-long"),
        ("scratch", "teacher"),
        ("kd", "teacher"),
    ]
    expected = [(0.21, 0.22, 4, 1), (0.15, 0.20, 3, 2), (0.15, 0.21, 3, 4), (0.21, 0.30, 4, 0), (0.15, 0.30, 3, 0)]
    for row, (value, base, own, other) in zip(dense.itertuples(), expected, strict=True):
        found = paired_difference(value, base, values[own], values[other], study.evaluate.level, 9)
        assert (row.value, row.diff, row.diff_low, row.diff_high, row.p) == (value, *found) and row.epochs == 9
    for _, family in dense.groupby("against"):
        np.testing.assert_array_equal(family.p_holm, holm(family.p))
    [official] = table[table.protocol == "official"].itertuples()
    assert official.value == 0.91 and official.against == "" and np.isnan(official.diff) and np.isnan(official.p_holm)


def test_the_ablation_leaves_schedules_out(study: Study) -> None:
    draws, values = evaluation([*ROWS, ("model", "hkdd", "dense", "eer", 0.24)])
    assert set(ablation_table(study, draws, values, {"0": 9}).arm) == {"no_hfd"}


def test_the_page_holds_errors_differences_and_official_accuracy(study: Study) -> None:
    draws, values = evaluation(ROWS)
    page = schedule_page(schedule_table(study, draws, values, {"0": 9}))
    assert (
        "| kd, 9 epochs | 15.0 [" in page and "minus that of scratch-long" in page and "| kd, 9 epochs | 91.0 [" in page
    )
    assert "-5.0 [" in page and "*" in page.split("minus that of itself")[1]


def test_a_study_without_such_arms_says_so(composed: Callable[[str], dict]) -> None:
    draws, values = evaluation(ROWS[:3])
    table = schedule_table(Study(**composed("smoke")), draws, values, {"0": 9})
    assert table.empty and list(table.columns) == COLUMNS and "has trained no model" in schedule_page(table)
