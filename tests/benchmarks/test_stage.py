"""What the stage `sets` makes of a report: the questions of a study, and pages. The stage runs in tests/study."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from lrfr.benchmarks import stage
from lrfr.benchmarks.outcomes import Outcome, differences, draw_probes, mean_of
from lrfr.benchmarks.verb import Report
from lrfr.evaluate.statistics import holm
from lrfr.formats import families

MODELS = ["teacher", "scratch", "kd", "se_dfd", "icd_face"]


@pytest.fixture(scope="module")
def report() -> Report:
    """One protocol with a rate that counts decisions and one that does not."""
    rng, people = np.random.default_rng(0), np.repeat(np.arange(20), 5)
    outcomes = {}
    for model, skill in zip(MODELS, (0.5, 0.3, 0.35, 0.6, 0.55), strict=True):
        hit, value = rng.random(100) < skill, rng.random(100)
        statistics = {"rank1": mean_of(hit), "map": mean_of(value)}
        outcomes[model] = Outcome(100, {"rank1": np.mean(hit), "map": np.mean(value)}, {}, {"rank1": hit}, statistics)
    draws = draw_probes(outcomes, people, np.zeros(100), draws=60, level=0.95)
    asked = families(MODELS).items()
    parts = [differences(draws, outcomes, pairs).assign(question=question) for question, pairs in asked]
    table = pd.concat(parts).assign(set="tiny", protocol="identification")
    return Report("tiny", pd.DataFrame(), {}, pd.DataFrame(), table, [])


def test_a_study_asks_four_questions(report: Report):
    rank1 = report.comparisons[report.comparisons.metric == "rank1"]
    pairs = rank1.groupby("question", sort=False)[["a", "b"]].apply(lambda rows: set(map(tuple, rows.values)))
    for reference in ("scratch", "teacher", "kd"):
        assert pairs[reference] == {(model, reference) for model in MODELS if model != reference}
    assert pairs["five"] == {("se_dfd", "icd_face")}


def test_a_pair_asked_the_other_way_round_has_the_other_sign(report: Report):
    found = report.comparisons.set_index(["question", "a", "b", "metric"])
    there, back = (
        found.loc["scratch", "teacher", "scratch", "rank1"],
        found.loc["teacher", "scratch", "teacher", "rank1"],
    )
    turned = (-back["diff"], -back.high, -back.low, back.p, back.only_b, back.only_a, back.mcnemar)
    forward = (there["diff"], there.low, there.high, there.p, there.only_a, there.only_b, there.mcnemar)
    assert forward == pytest.approx(turned, abs=1e-12)


def test_holm_corrects_within_a_question_and_a_metric(report: Report):
    for (_, metric), rows in report.comparisons.groupby(["question", "metric"]):
        assert rows.p_holm.tolist() == list(holm(rows.p.tolist()))
        if metric == "rank1":
            assert rows.mcnemar_holm.tolist() == list(holm(rows.mcnemar.tolist()))
        else:
            assert rows.mcnemar_holm.isna().all()


def test_the_page_has_a_table_for_each_question(report: Report):
    page = stage.comparisons_page(report)
    assert [line for line in page.splitlines() if line.startswith("## ")] == [
        f"## identification, {title}"
        for title in ("against scratch", "against teacher", "against kd", "the five among each other")
    ]
    row = report.comparisons.iloc[0]
    low, high = 100 * row.low, 100 * row.high
    assert (row.a, row.b) == ("teacher", "scratch")
    assert f"| teacher | {100 * row['diff']:+.1f} [{low:+.1f}, {high:+.1f}], {row.p_holm:.3f} | " in page
    assert "| se_dfd - icd_face | " in page
