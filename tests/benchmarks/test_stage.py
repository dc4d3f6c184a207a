"""What the stage `sets` makes of the verb's report: the questions of a study, and pages. The stage runs in tests/study."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd
import pytest

from lrfr.benchmarks import stage as sets
from lrfr.benchmarks.verb import Report
from lrfr.evaluate.statistics import holm

MODELS = ["teacher", "scratch", "kd", "se_dfd", "icd_face"]
VALUES = dict(zip(MODELS, (0.5, 0.3, 0.35, 0.6, 0.55), strict=True))


@pytest.fixture(scope="module")
def report() -> Report:
    """One protocol with a rate that counts decisions and one that does not; every p is another."""
    rows = []
    for metric in ("rank1", "map"):
        for k, (a, b) in enumerate(combinations(MODELS, 2)):
            diff, decided = VALUES[a] - VALUES[b], metric == "rank1"
            tests = (k, 10.0, 0.001 * (k + 1), np.nan) if decided else (np.nan,) * 4
            rows.append(
                ("tiny", "identification", a, b, metric, diff, diff - 0.1, diff + 0.2, 0.01 * (k + 1), np.nan, *tests)
            )
    columns = ["set", "protocol", "a", "b", "metric", "diff", "low", "high", "p", "p_holm"]
    table = pd.DataFrame(rows, columns=[*columns, "only_a", "only_b", "mcnemar", "mcnemar_holm"])
    results = pd.DataFrame([("tiny", "identification", m, "rank1", VALUES[m]) for m in MODELS])
    results.columns = ["set", "protocol", "model", "metric", "value"]
    return Report("tiny", pd.DataFrame(), {}, results, table, [])


def test_a_study_asks_four_questions(report: Report):
    table = sets.comparisons(report)
    pairs = (
        table[table.metric == "rank1"]
        .groupby("question", sort=False)[["a", "b"]]
        .apply(lambda rows: set(map(tuple, rows.values)))
    )
    for reference in ("scratch", "teacher", "kd"):
        assert pairs[reference] == {(model, reference) for model in MODELS if model != reference}
    assert pairs["five"] == {("se_dfd", "icd_face")}


def test_differences_have_their_sign_and_their_interval(report: Report):
    for row in sets.comparisons(report).itertuples():
        assert row.diff == pytest.approx(VALUES[row.a] - VALUES[row.b])
        below, above = (0.1, 0.2) if MODELS.index(row.a) < MODELS.index(row.b) else (0.2, 0.1)
        assert (row.low, row.high) == pytest.approx((row.diff - below, row.diff + above))
        if row.metric == "rank1":
            k = [set(pair) for pair in combinations(MODELS, 2)].index({row.a, row.b})
            assert (row.only_a, row.only_b) == ((k, 10) if below == 0.1 else (10, k))


def test_holm_corrects_within_a_question_and_a_metric(report: Report):
    for (_, metric), rows in sets.comparisons(report).groupby(["question", "metric"]):
        assert rows.p_holm.tolist() == list(holm(rows.p.tolist()))
        if metric == "rank1":
            assert rows.mcnemar_holm.tolist() == list(holm(rows.mcnemar.tolist()))
        else:
            assert rows.mcnemar_holm.isna().all()


def test_the_page_has_a_table_for_each_question(report: Report):
    page = sets.comparisons_page(report, sets.comparisons(report))
    assert [line for line in page.splitlines() if line.startswith("## ")] == [
        f"## identification, {title}"
        for title in ("against scratch", "against teacher", "against kd", "the five among each other")
    ]
    assert "| teacher | +20.0 [+10.0, +40.0], " in page and "| se_dfd - icd_face | +5.0 [-5.0, +25.0], " in page
