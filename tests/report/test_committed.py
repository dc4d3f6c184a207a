"""What is committed under reports/orl keeps the promises that the README makes about it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import yaml

from lrfr.config import Study, load
from lrfr.formats import FIVE, HEADLINE, headline, markdown
from lrfr.methods import METHODS
from lrfr.plan import plans
from lrfr.report.gradients import breaches

ROOT = Path(__file__).resolve().parents[2]
REPORT = ROOT / "reports" / "orl"
STUDY = load(ROOT / "params.yaml")
SHOWN = ("teacher", "start", "hr_student", "scratch", "kd", *FIVE)  # the README's rows


def table(name: str) -> pd.DataFrame:
    return pd.read_csv(REPORT / "tables" / f"{name}.csv", dtype={"resolution": str})


@pytest.mark.parametrize("study", ["lfw", "orl"])
def test_the_readme_shows_the_committed_numbers(study: str) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    results = pd.read_csv(ROOT / "reports" / study / "tables" / "results.csv", dtype={"resolution": str})
    rows = results[(results.protocol == "dense") & results.resolution.isin(HEADLINE) & results.model.isin(SHOWN)]
    shown = re.search(rf"<!-- headline {study} -->\n(.*?)\n?<!-- /headline -->", text, re.DOTALL)
    assert shown and shown[1].strip() == markdown(headline(rows, "eer", "lr_lr")).strip()
    for image in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", text):
        assert (ROOT / image).is_file(), image


def test_every_model_floor_and_pairing_is_there() -> None:
    results = table("results")
    assert set(results.model) == {*STUDY.models, "teacher", "start", "random_net", "raw_pixels"}
    for metric in ("accuracy", "eer", "auc", "tar@far=0.01"):
        rows = results[(results.metric == metric) & (results.pairing == "lr_lr")]
        assert (rows.groupby("model").resolution.apply(set) == set(STUDY.resolutions)).all(), metric
    assert {"lr_lr", "hr_lr", "teacher_lr"} <= set(results.pairing) and {"rank1", "agreement"} <= set(results.metric)
    everyone = results[results.model != "kd_tuned_teacher"]
    assert set(everyone.folds) == {STUDY.faces.folds} and set(results[results.model == "kd_tuned_teacher"].folds) == {1}
    counts = everyone[(everyone.metric == "eer")]
    assert set(counts.identities) == {STUDY.faces.people} and set(counts.fta) == {0}


def test_intervals_hold_their_values() -> None:
    results = table("results")
    assert (results.low <= results.value).all() and (results.value <= results.high).all()


@pytest.mark.parametrize("resolution", ["8", "12", "16"])
@pytest.mark.parametrize("reference", ["scratch", "teacher"])
def test_differences_with_intervals_at_low_resolution(reference: str, resolution: str) -> None:
    rows = table("comparisons")
    rows = rows[
        (rows.b == reference) & (rows.resolution == resolution) & (rows.metric == "eer") & (rows.pairing == "lr_lr")
    ]
    assert set(FIVE) <= set(rows.a) and rows[["diff", "low", "high", "p", "p_holm"]].notna().all(axis=None)


def test_training_on_small_faces_helps_on_small_faces() -> None:
    """The one ordering that 24 training people can show: `scratch` beats `hr_student` at 8 px."""
    results = table("results").query("metric == 'eer' and resolution == '8'").set_index(["pairing", "model"]).value
    for pairing in ("lr_lr", "hr_lr"):
        assert results[pairing, "scratch"] < results[pairing, "hr_student"]


@pytest.mark.parametrize("name", sorted(path.parts[-3] for path in (ROOT / "reports").glob("*/tables/gradients.csv")))
def test_no_term_is_dead_and_none_drowns_the_rest(composed: Callable[[str], dict], name: str) -> None:
    """Or the study says why it may; and nothing is excused that needs no excuse."""
    study = Study(**composed(name))
    gradients = pd.read_csv(ROOT / "reports" / name / "tables" / "gradients.csv")
    assert breaches(gradients, study.excused) == {} and study.excused.keys() <= breaches(gradients, {}).keys()
    taught = {name for name, model in study.models.items() if METHODS[model.method].needs}
    assert set(gradients[gradients.when == "end"].model) == taught


def test_the_teacher_table_compares_three_settings() -> None:
    teacher = table("teacher")
    assert set(teacher.setting) == {"pretrained", "head", "last_stage"} and set(teacher.resolution) == {"hr", "16", "8"}
    other = teacher[(teacher.setting == "last_stage") & (teacher.metric == "eer")]
    assert (other["diff"] != 0).all()


def test_reports_are_small_and_complete() -> None:
    # students are in git for `lfw` alone, where they take hours; see .gitignore
    files = [path for path in REPORT.rglob("*") if path.is_file() and "students" not in path.relative_to(REPORT).parts]
    assert sum(path.stat().st_size for path in files) < 20e6
    for name in STUDY.notebooks:
        assert (REPORT / name / "index.html").is_file() and list((REPORT / name).glob("*.png")), name
        assert json.loads((REPORT / name / "figures.json").read_text(encoding="utf-8"))
    assert (REPORT / "08-comparison" / "accuracy-against-resolution.png").is_file()


def test_the_lock_belongs_to_these_parameters_and_this_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every stage of the lock has read the plan that is made today: lock, parameters and code agree."""
    monkeypatch.chdir(ROOT)
    text = (ROOT / "dvc.lock").read_text(encoding="utf-8")
    hashes = {dep["path"]: dep["md5"] for stage in yaml.safe_load(text)["stages"].values() for dep in stage["deps"]}
    for name, content in plans(STUDY).items():
        written = json.dumps(content, indent=1) + "\n"
        assert hashes[f"runs/orl/plan/{name}.json"] == hashlib.md5(written.encode()).hexdigest(), name
    assert len(text.encode()) < 200_000


@pytest.mark.parametrize(
    "path", sorted((ROOT / "reports").glob("*/tables/export.csv")), ids=lambda path: path.parts[-3]
)
def test_exported_students_keep_their_error_rates(path: Path) -> None:
    exported = pd.read_csv(path)
    assert (exported.distance_float <= 1e-4).all() and (exported.bytes_int8 <= 0.3 * exported.bytes_float).all()
    assert (exported[["diff_float", "diff_int8"]].abs() <= 0.005).all(axis=None)
