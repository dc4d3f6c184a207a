from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from lrfr import formats
from lrfr.errors import UserError
from lrfr.evaluate.statistics import holm
from lrfr.formats import read_table
from lrfr.report import gradients, tables
from tests.protocol import faces

COLUMNS = {  # other programs read these
    "results": "study protocol model pairing resolution metric value low high interval seeds sd_seed n_genuine "
    "n_impostor identities fta folds",
    "comparisons": "study protocol a b pairing resolution metric diff low high p p_holm",
    "runs": "study protocol model pairing fold seed resolution metric value",
    "gradients": "study model term when progress stage mean min max",
    "teacher": "study protocol setting pairing resolution metric value low high interval diff diff_low diff_high p",
}


@pytest.fixture(scope="module")
def summary(tmp_path_factory):
    return faces.summarised(tmp_path_factory.mktemp("study"), faces.tiny_study(), faces.write_faces)


def read(summary, name):
    return read_table(summary / "tables" / f"{name}.csv")


@pytest.mark.parametrize("name", COLUMNS)
def test_columns_and_keys(summary, name):
    table = read(summary, name)
    assert list(table.columns) == COLUMNS[name].split()
    keys = [
        c
        for c in (
            "protocol",
            "model",
            "a",
            "b",
            "setting",
            "pairing",
            "resolution",
            "metric",
            "fold",
            "seed",
            "term",
            "when",
        )
        if c in table
    ]
    assert len(table) and not table.duplicated(keys).any()
    assert set(table.study) == {"tiny"}
    assert (summary / "tables" / f"{name}.md").read_text(encoding="utf-8").startswith("# ")


def test_results_are_means_of_the_runs(summary):
    results, runs = read(summary, "results"), read(summary, "runs")
    keys = ["model", "pairing", "resolution", "metric"]
    means = runs.groupby(keys).value.mean()
    np.testing.assert_allclose(
        results.set_index(keys).value, means.loc[list(results[keys].itertuples(index=False, name=None))], rtol=2e-5
    )
    assert ((results.low <= results.value + 1e-9) & (results.value <= results.high + 1e-9)).mean() > 0.95
    row = results.set_index(keys).loc[("scratch", "lr_lr", "8", "eer")]
    seeds = runs.set_index(keys).loc[("scratch", "lr_lr", "8", "eer")].groupby("seed").value.mean()
    assert row.sd_seed == pytest.approx(seeds.std(ddof=1), rel=1e-4) and row.seeds == 2
    assert (row.n_genuine, row.n_impostor, row.identities, row.fta, row.folds) == (60, 320, 10, 1, 2)
    rank1 = results.set_index(keys).loc[("scratch", "hr_lr", "8", "rank1")]
    assert (rank1.n_genuine, rank1.n_impostor) == (120, 480)


def test_a_model_without_seeds_and_one_with_a_single_fold_say_so(summary):
    results = (
        read(summary, "results")
        .query("metric == 'eer' and pairing == 'lr_lr' and resolution == '8'")
        .set_index("model")
    )
    assert results.seeds.teacher == 1 and np.isnan(results.sd_seed.teacher)
    assert results.folds.kd_tuned_teacher == 1 and results.identities.kd_tuned_teacher == 5
    assert "kd_tuned_teacher (1 of 2 folds)" in (summary / "tables/results.md").read_text(encoding="utf-8")


def test_equal_models_do_not_differ(summary):
    """hkdd is a copy of kd: no difference, but intervals, since another training would have given another student."""
    rows = read(summary, "comparisons").query("a == 'hkdd' and b == 'kd'")
    assert (
        len(rows) == (3 + 2) * 4 + 3
    )  # four metrics in lr_lr at two sizes and hr, and in hr_lr at two sizes; rank1 at three
    assert (rows["diff"] == 0).all() and ((rows.low <= 0) & (rows.high >= 0)).all() and (rows.p > 0.5).all()


def test_comparisons_are_those_asked_for_and_paired(summary):
    comparisons, results = read(summary, "comparisons"), read(summary, "results")
    models, five = set(results.model), ["hkdd", "se_dfd"]
    asked = {(m, r) for r in ("scratch", "teacher", "kd") for m in models if m != r} | {tuple(five)}
    assert set(comparisons[["a", "b"]].itertuples(index=False, name=None)) == asked
    key = ["model", "pairing", "resolution", "metric"]
    value = results.set_index(key).value
    for row in comparisons[(comparisons.a != "kd_tuned_teacher") & (comparisons.b != "kd_tuned_teacher")].itertuples():
        cell = (row.pairing, row.resolution, row.metric)
        assert row.diff == pytest.approx(value[(row.a, *cell)] - value[(row.b, *cell)], abs=2e-5)
    one, other = (
        comparisons[(comparisons.a == a) & (comparisons.b == b)] for a, b in (("kd", "scratch"), ("scratch", "kd"))
    )
    np.testing.assert_allclose(one["diff"].to_numpy(), -other["diff"].to_numpy())
    np.testing.assert_allclose(one.p.to_numpy(), other.p.to_numpy())
    assert "agreement" not in set(comparisons.metric)


def test_a_model_with_one_fold_is_compared_on_that_fold(summary):
    runs, comparisons = read(summary, "runs"), read(summary, "comparisons")
    cell = "pairing == 'lr_lr' and resolution == '8' and metric == 'eer' and fold == 0"
    means = runs.query(cell).groupby("model").value.mean()
    row = comparisons.query(
        "a == 'kd_tuned_teacher' and b == 'kd' and pairing == 'lr_lr' and resolution == '8' and metric == 'eer'"
    ).iloc[0]
    assert row["diff"] == pytest.approx(means.kd_tuned_teacher - means.kd, abs=1e-5)


def test_holm_within_a_reference_pairing_resolution_and_metric(summary):
    comparisons = read(summary, "comparisons")
    five = comparisons.a.isin(formats.FIVE) & comparisons.b.isin(formats.FIVE)
    for _, family in comparisons[~five].groupby(["b", "pairing", "resolution", "metric"]):
        np.testing.assert_allclose(family.p_holm, holm(family.p), rtol=1e-5)
    assert (comparisons.p_holm >= comparisons.p - 1e-9).all() and comparisons.p.between(2 / 201 - 1e-6, 1).all()


def test_teacher_settings_are_compared_with_the_pretrained_one(summary):
    teacher = read(summary, "teacher")
    assert set(teacher.metric) == {"eer", "auc", "accuracy", "tar@far=0.01"} and set(teacher.resolution) == {
        "hr",
        "16",
        "8",
    }
    equal = teacher[
        teacher.setting.isin(["pretrained", "head"])
    ]  # in this invented study the head leaves the vectors alone
    assert (equal[["diff", "diff_low", "diff_high"]] == 0).all(axis=None) and (equal.p == 1).all()
    value = teacher.set_index(["setting", "resolution", "metric"]).value
    for row in teacher.itertuples():
        assert row.diff == pytest.approx(row.value - value[("pretrained", row.resolution, row.metric)], abs=2e-5)
    assert (teacher[teacher.setting == "last_stage"]["diff"] != 0).any()


def test_gradient_ratios_are_averaged_over_folds_and_seeds(summary):
    row = read(summary, "gradients").query("model == 'kd' and when == 'early'").iloc[0]
    assert (row["mean"], row["min"], row["max"]) == (1.5, 0.0, 3.0)
    assert "| kd | kd | 3 | 1.50 [0.00, 3.00] |" in (summary / "tables/gradients.md").read_text(encoding="utf-8")


def ratios(**terms: float) -> pd.DataFrame:
    """Rows of one model's gradients.csv: on its first stage these, early; elsewhere and at the end a tenth of them."""
    rows = [("hkdd", t, "early", "stage1", r) for t, r in terms.items()]
    rows += [("hkdd", t, w, "stage2", r / 10) for t, r in terms.items() for w in ("early", "end")]
    rows += [("hkdd", t, "start", s, 99.0) for t in terms for s in ("stage1", "stage2")]  # nobody is judged by these
    table = pd.DataFrame(rows, columns=["model", "term", "when", "stage", "mean"])
    return table.assign(progress=0.5, min=table["mean"], max=table["mean"])


def test_a_term_is_judged_where_and_when_it_pulls_hardest():
    table = ratios(faint=0.049, low=0.051, high=4.9, loud=5.1)
    assert gradients.breaches(table, {}) == {"hkdd.faint": "dead", "hkdd.loud": "drowning"}
    assert gradients.breaches(table, {"hkdd.loud": "so be it"}) == {"hkdd.faint": "dead"}
    assert gradients.breaches(table, {"hkdd.loud": "so be it", "hkdd.faint": "a control"}) == {}
    page = gradients.shown(table, {"hkdd.loud": "so be it"})
    assert list(page.columns) == ["model", "term", "stage", "start", "early", "end", "verdict"]
    found = dict(zip(page.term, page.verdict, strict=True))
    assert found == {"faint": "dead", "low": "heard", "high": "heard", "loud": "drowning (so be it)"}


def test_order_is_the_house_order(summary):
    rows = read(summary, "results").query("metric == 'eer' and pairing == 'lr_lr'")
    assert list(dict.fromkeys(rows.model)) == [
        "teacher",
        "scratch",
        "kd",
        "feature",
        "kd_tuned_teacher",
        "hkdd",
        "se_dfd",
        "random_net",
        "raw_pixels",
    ]
    assert rows.resolution.iloc[:3].tolist() == ["8", "16", "hr"]


def test_metrics_are_few_and_of_the_results(summary):
    metrics = json.loads((summary / "metrics.json").read_text(encoding="utf-8"))
    assert set(metrics) == {"teacher", "scratch", "kd", "hkdd", "se_dfd"}
    value = (
        read(summary, "results")
        .query("metric == 'eer' and pairing == 'lr_lr'")
        .set_index(["model", "resolution"])
        .value
    )
    for model, numbers in metrics.items():
        for name, number in numbers.items():
            assert number == pytest.approx(value[(model, name.removeprefix("eer_"))], rel=1e-3)


def test_headline(summary):
    results = read(summary, "results")
    wide = formats.headline(results[results.resolution.isin(formats.HEADLINE)], "eer", "lr_lr")
    assert list(wide.columns) == ["model", "8", "16", "hr"]
    row = results.query("model == 'scratch' and metric == 'eer' and pairing == 'lr_lr' and resolution == '8'").iloc[0]
    assert (
        wide.set_index("model").loc["scratch", "8"]
        == f"{100 * row.value:.1f} [{100 * row.low:.1f}, {100 * row.high:.1f}]"
    )


def test_pages_hold_the_numbers_and_stars(summary):
    page = (summary / "tables/comparisons.md").read_text(encoding="utf-8")
    significant = read(summary, "comparisons").query("p_holm < 0.05")
    assert "## Against scratch: eer, lr_lr" in page and "hkdd - se_dfd" in page
    assert page.count("]*") == len(significant)
    assert page.isascii() and "nan" not in page


def test_a_second_run_writes_the_same_bytes(summary, tmp_path, monkeypatch):
    before = {p.name: p.read_bytes() for p in (summary / "tables").iterdir()}
    monkeypatch.chdir(summary.parents[1])
    tables.run(faces.tiny_study())
    assert {p.name: p.read_bytes() for p in (summary / "tables").iterdir()} == before


def test_without_an_evaluation_there_is_one_clear_sentence(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="not there; run `dvc repro` again"):
        tables.run(faces.tiny_study())
    assert not pd.Series(list(tmp_path.iterdir())).size


@pytest.fixture(scope="module")
def lfw(tmp_path_factory):
    """Every protocol's tables."""
    return faces.summarised(tmp_path_factory.mktemp("lfw"), faces.lfw_study(), faces.write_lfw)


@pytest.mark.parametrize("name", COLUMNS)
def test_several_protocols_keep_the_columns(lfw, name):
    table = read(lfw, name)
    assert list(table.columns) == COLUMNS[name].split() and len(table)
    keys = ["protocol", "model", "a", "b", "setting", "pairing", "resolution", "metric", "fold", "seed", "term", "when"]
    assert not table.duplicated([c for c in keys if c in table]).any()
    page = (lfw / "tables" / f"{name}.md").read_text(encoding="utf-8")
    assert page.isascii() and "nan" not in page


def test_protocols_come_in_order_with_their_own_counts(lfw):
    results = read(lfw, "results")
    assert list(dict.fromkeys(results.protocol)) == ["dense", "official", "misaligned"]
    keys = ["protocol", "pairing", "resolution", "metric", "model"]
    table = results.set_index(keys)
    pairs, search = (table.loc[("dense", "hr_lr", "8", metric, "kd")] for metric in ("eer", "rank5"))
    kinds = ["n_genuine", "n_impostor"]
    people = faces.LFW_IMAGES[:24].clip(max=4)
    assert pairs[kinds].tolist() == [(people * (people - 1) // 2).sum(), 300]
    assert search[kinds].tolist() == [(people - 1).sum(), 11 * (people - 1).sum()]
    assert table.loc[("official", "lr_lr", "8", "accuracy", "kd")][kinds].tolist() == [4 * faces.OFFICIAL_KIND] * 2
    assert table.loc[("misaligned", "lr_lr", "8", "eer", "kd")][kinds].tolist() == pairs[kinds].tolist()
    assert set(results[results.model == "kd_tuned_teacher"].folds) == {1} and set(
        results[results.model == "kd"].folds
    ) == {2}
    assert results[["value", "low", "high"]].notna().all(axis=None)


def test_models_are_compared_in_protocol_dense_only(lfw):
    comparisons = read(lfw, "comparisons")
    assert set(comparisons.protocol) == {"dense"} and {"rank1", "rank5", "tar@far=0.1"} <= set(comparisons.metric)
    equal = comparisons.query("a == 'hkdd' and b == 'kd'")
    assert len(equal) and (equal[["diff", "low", "high"]] == 0).all(axis=None)
    value = (
        read(lfw, "results").query("protocol == 'dense'").set_index(["model", "pairing", "resolution", "metric"]).value
    )
    for row in comparisons[~comparisons[["a", "b"]].isin(["kd_tuned_teacher"]).any(axis=1)].itertuples():
        cell = (row.pairing, row.resolution, row.metric)
        assert row.diff == pytest.approx(value[(row.a, *cell)] - value[(row.b, *cell)], abs=2e-5)


def test_headline_and_metrics_are_those_of_protocol_dense(lfw):
    results = read(lfw, "results")
    wide = formats.headline(results.query("protocol == 'dense'"), "eer", "lr_lr").set_index("model")
    cell = "protocol == 'dense' and model == 'kd' and pairing == 'lr_lr' and metric == 'eer' and resolution == '8'"
    row = results.query(cell).iloc[0]
    assert wide.loc["kd", "8"].startswith(f"{100 * row.value:.1f} [")
    metrics = json.loads((lfw / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["kd"]["eer_8"] == pytest.approx(row.value, rel=1e-3)


def test_pages_name_the_protocols(lfw, summary):
    page = (lfw / "tables/results.md").read_text(encoding="utf-8")
    places = [page.index(f"# Protocol `{name}`") for name in ("dense", "official", "misaligned")]
    assert places == sorted(places) and page.count("## accuracy, lr_lr (dyadic multiplier)") == 1
    assert "Protocol" not in (summary / "tables/results.md").read_text(encoding="utf-8")


def test_view_2_stands_beside_what_the_author_states(lfw, summary):
    teacher = read(lfw, "teacher")
    row = teacher[teacher.protocol == "view2"]
    assert row[["setting", "pairing", "resolution", "metric"]].to_numpy().tolist() == [
        ["pretrained", "lr_lr", "hr", "accuracy"]
    ]
    assert row[["diff", "diff_low", "diff_high", "p"]].isna().all(axis=None) and row[
        ["low", "value", "high"]
    ].notna().all(axis=None)
    assert teacher[teacher.protocol == "dense"].p.notna().all()
    page = (lfw / "tables/teacher.md").read_text(encoding="utf-8")
    assert f"| accuracy (view2) | hr | pretrained | {100 * row.value.iloc[0]:.1f} [" in page and "99.13 %" in page
    assert "99.13" not in (summary / "tables/teacher.md").read_text(encoding="utf-8")
