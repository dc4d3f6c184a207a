"""tables/ablation.csv compares an arm with its own method on the same draws of people, and with nothing else."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from lrfr.config import Study
from lrfr.evaluate.statistics import paired_difference
from lrfr.report.ablation import COLUMNS, ablation_page, ablation_table
from lrfr.train.trainings import with_arms

DRAWS = 200


@pytest.fixture
def study(composed: Callable[[str], dict]) -> Study:
    return Study(**composed("smoke"))


def evaluation(rows: list[tuple[str, str, str, str, float]]) -> tuple[pd.DataFrame, np.ndarray]:
    """draws.csv and draws.npy for rows of (kind, model, protocol, metric, value)."""
    rng = np.random.default_rng(3)
    columns = ["kind", "model", "protocol", "metric", "value"]
    table = pd.DataFrame(rows, columns=columns).assign(
        folds="0", pairing="lr_lr", resolution="8", interval="identity bootstrap"
    )
    values = np.array([value + rng.normal(0, 0.01, DRAWS) for *_, value in rows])
    return table.assign(low=table.value - 0.02, high=table.value + 0.02), values


def test_an_arm_is_compared_with_its_method(study: Study) -> None:
    draws, values = evaluation(
        [
            ("model", "hkdd", "dense", "eer", 0.20),
            ("model", "scratch", "dense", "eer", 0.50),
            ("arm", "hkdd-no_hfd", "dense", "eer", 0.25),
            ("setting", "head", "dense", "eer", 0.10),
        ]
    )
    table = ablation_table(study, draws, values, {"0": 9})
    assert list(table.columns) == COLUMNS and len(table) == 1
    row = table.iloc[0]
    expected = paired_difference(0.25, 0.20, values[2], values[0], study.evaluate.level, 9)
    assert (row.method, row.arm, row.protocol, row.value) == ("hkdd", "no_hfd", "dense", 0.25)
    assert (row["diff"], row.diff_low, row.diff_high, row.p) == tuple(expected)
    assert "+5.0 [" in ablation_page(table)


def test_other_protocols_and_agreement_are_left_out(study: Study) -> None:
    draws, values = evaluation(
        [
            ("model", "hkdd", "dense", "agreement", 0.2),
            ("arm", "hkdd-no_hfd", "dense", "agreement", 0.2),
            ("model", "hkdd", "official", "eer", 0.2),
            ("arm", "hkdd-no_hfd", "official", "eer", 0.2),
        ]
    )
    table = ablation_table(study, draws, values, {"0": 9})
    assert table.empty and list(table.columns) == COLUMNS
    assert "No arm has been trained" in ablation_page(table)


def test_arms_become_models_with_their_changes(study: Study) -> None:
    armed = with_arms(study)
    assert set(armed.models) - set(study.models) == set(study.run_arms) == {"hkdd-no_hfd"}
    assert armed.models["hkdd-no_hfd"].options["hfd"] == 0 and study.models["hkdd"].options["hfd"] != 0
