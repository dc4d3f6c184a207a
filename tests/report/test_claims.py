"""claims.csv: every figure comes from the study's tables, and no verdict says more than they can."""

from __future__ import annotations

import pandas as pd
import pytest

from lrfr.errors import UserError
from lrfr.report import claims

CELL = {"protocol": "dense", "pairing": "lr_lr", "resolution": "16", "metric": "eer"}


def compared(a: str, b: str, diff: float, p_holm: float, **cell: str) -> dict:
    return {
        "a": a,
        "b": b,
        **CELL,
        **cell,
        "diff": diff,
        "low": diff - 0.01,
        "high": diff + 0.01,
        "p": p_holm,
        "p_holm": p_holm,
    }


def write(study, rows: list[dict], official: bool = True, tuned: bool = True) -> None:
    folder = study.reports / "tables"
    whole = [row for row in rows if "-" not in row["b"]]
    pd.DataFrame(whole, columns=[*compared("a", "b", 0, 1)]).to_csv(folder / "comparisons.csv", index=False)
    arms = [
        {
            **{name: row[name] for name in CELL},
            **{"method": row["a"], "arm": row["b"].split("-")[1], "p": row["p"]},
            **{"diff": -row["diff"], "diff_low": -row["high"], "diff_high": -row["low"]},  # the arm minus its method
        }
        for row in rows
        if "-" in row["b"]
    ]
    columns = ["method", "arm", *CELL, "diff", "diff_low", "diff_high", "p"]
    pd.DataFrame(arms, columns=columns).to_csv(folder / "ablation.csv", index=False)
    accuracy = [
        ("official", model, "lr_lr", resolution, "accuracy", 0.8, 0.78, 0.82)
        for model in ("se_dfd", "mkmmd")
        for resolution in ("16", "hr")
    ]
    names = ["protocol", "model", "pairing", "resolution", "metric", "value", "low", "high"]
    pd.DataFrame(accuracy if official else [], columns=names).to_csv(folder / "results.csv", index=False)
    cost = [(name, 1_000_000, 3.0) for name in study.models] + [("teacher", 5_500_000, 18.0)]
    pd.DataFrame(cost, columns=["model", "params", "latency_ms"]).to_csv(folder / "cost.csv", index=False)
    schemes = [("tuned", 4, 1.0), ("on line", 0, 1.5), ("cached", 0, 6.25)][0 if tuned else 1 :]
    pd.DataFrame(schemes, columns=["scheme", "teacher_epochs", "speedup"]).to_csv(folder / "schemes.csv", index=False)


def made(study) -> pd.DataFrame:
    claims.run(study)
    return pd.read_csv(study.reports / "tables" / "claims.csv")


def one(table: pd.DataFrame, paper: str, part: str) -> pd.Series:
    rows = table[(table.paper == paper) & table.claim.str.contains(part, regex=False)]
    assert len(rows) == 1, list(table.claim[table.paper == paper])
    return rows.iloc[0]


def test_columns_verdicts_and_papers(project):
    write(project, [])
    table = made(project)
    assert list(table.columns) == claims.COLUMNS
    assert set(table.verdict) <= {claims.CONFIRMED, claims.NOT_COMPARABLE, "tie", "better", "worse", "not tested"}
    assert set(table.paper) == {"hkdd", "se_dfd", "mkmmd", "icd_face", "acs_review"}
    assert table.note.str.fullmatch(r"[^.]+.*\.").all()
    first = (project.reports / "tables" / "claims.csv").read_bytes()
    claims.run(project)
    assert (project.reports / "tables" / "claims.csv").read_bytes() == first


@pytest.mark.parametrize(
    ("diff", "p_holm", "verdict"),
    [(-0.03, 0.01, "better"), (0.03, 0.01, "worse"), (-0.03, 0.2, "tie"), (0.005, 0.01, "tie")],
)
def test_a_difference_counts_only_with_its_interval_and_after_correction(project, diff, p_holm, verdict):
    write(project, [compared("hkdd", "scratch", diff, p_holm), compared("hkdd", "scratch", 0.5, 0.001, resolution="8")])
    row = one(made(project), "hkdd", "minus scratch")
    assert (row.measured, row.low, row.high) == pytest.approx((diff, diff - 0.01, diff + 0.01))
    assert row.verdict == verdict


def test_what_was_not_compared_is_not_tested(project):
    write(project, [])
    table = made(project)
    for paper in claims.CLAIMS:
        row = one(table, paper, "minus kd")
        assert row.verdict == "not tested" and pd.isna(row.measured)
    assert (table.verdict[table.claim.str.contains("SCface|TinyFace")] == "not tested").all()


def test_an_evaluated_arm_answers_for_its_part(project):
    write(project, [compared("icd_face", "icd_face-no_sdc", -0.02, 0.01)])
    assert one(made(project), "icd_face", "icd_face-no_sdc").verdict == "better"


def test_sizes_times_and_lfw_are_never_more_than_a_mechanism(project):
    write(project, [compared("se_dfd", "scratch", -0.03, 0.01, resolution="hr")])
    table = made(project)
    figures = {
        ("se_dfd", "million parameters"): (1.0, claims.NOT_COMPARABLE),
        ("se_dfd", "4 times smaller"): (5.5, claims.NOT_COMPARABLE),
        ("se_dfd", "accuracy on LFW"): (0.8, claims.CONFIRMED),
        ("mkmmd", "(on line)"): (1.5, claims.CONFIRMED),
        ("mkmmd", "(cached)"): (6.25, claims.CONFIRMED),
        ("mkmmd", "faster inference"): (6.0, claims.CONFIRMED),
        ("mkmmd", "latency on a CPU"): (3.0, claims.NOT_COMPARABLE),
        ("mkmmd", "accuracy on LFW"): (0.8, claims.NOT_COMPARABLE),
        ("hkdd", "real-time"): (3.0, claims.CONFIRMED),
    }
    for (paper, part), (value, verdict) in figures.items():
        row = one(table, paper, part)
        assert (row.measured, row.verdict) == (pytest.approx(value), verdict), part
    text = (project.reports / "tables" / "claims.md").read_text(encoding="utf-8")
    assert "80.0 [78.0, 82.0] %" in text and "| 6x |" in text and "| 3 ms |" in text


def test_lfw_without_a_gain_confirms_nothing_and_without_lfw_nothing_is_tested(project):
    write(project, [])
    assert one(made(project), "se_dfd", "accuracy on LFW").verdict == claims.NOT_COMPARABLE
    write(project, [], official=False, tuned=False)
    table = made(project)
    for paper, part in (("se_dfd", "accuracy on LFW"), ("mkmmd", "accuracy on LFW"), ("mkmmd", "tuned teacher")):
        assert one(table, paper, part).verdict == "not tested"


def test_a_method_that_is_not_trained_is_not_tested(project, changed):
    write(project, [])
    models = {name: block for name, block in project.model_dump()["models"].items() if name != "icd_face"}
    table = made(changed(project, {"models": models, "arms": {}}))
    assert list(table.verdict[table.paper == "icd_face"]) == ["not tested"]


def test_a_missing_table_is_one_sentence(project):
    write(project, [])
    for name in ("cost", "claims"):
        (project.reports / "tables" / f"{name}.csv").unlink(missing_ok=True)
    with pytest.raises(UserError, match="cost.csv: not there"):
        claims.run(project)
    assert not (project.reports / "tables" / "claims.csv").exists()
