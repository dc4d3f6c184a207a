"""What is committed under reports/lfw are the reference numbers: of these parameters, on people nobody trained on."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import yaml

from lrfr.config import Study
from lrfr.report.tables import rescheduled
from tests.deploy.students import check_release

ROOT = Path(__file__).resolve().parents[2]
REPORT = ROOT / "reports" / "lfw"
FLOORS = ("random_net", "raw_pixels")
SINCE = ("scratch_centres",)


@pytest.fixture(scope="module")
def study(composed: Callable[[str], dict]) -> Study:
    """As version 0.7.0 trained it: without what conf/ has gained since."""
    values = composed("lfw")
    for name in SINCE:
        del values["models"][name]
    return Study(**values)


def table(name: str) -> pd.DataFrame:
    return pd.read_csv(REPORT / "tables" / f"{name}.csv", dtype={"resolution": str, "candidate": str})


def test_the_lock_claims_nothing_of_a_study_that_this_code_does_not_reproduce() -> None:
    """docs/known-issues.md: the pages are of version 0.7.0, and nothing of it stays in the lock."""
    lock = yaml.safe_load((ROOT / "dvc.lock").read_text(encoding="utf-8"))["stages"]
    assert not [name for name in lock if "@lfw" in name]
    assert "`reports/lfw` is explained and not reproduced" in (ROOT / "docs" / "known-issues.md").read_text(
        encoding="utf-8"
    )


def test_the_committed_students_are_small_and_complete(study: Study) -> None:
    command = ["git", "ls-files", "-z", "reports/lfw/students"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    tracked = [ROOT / name for name in listed.stdout.split("\0") if name]
    assert len([path for path in tracked if path.suffix == ".safetensors"]) == len(study.models)
    assert sum(path.stat().st_size for path in tracked) <= 25e6


def test_no_number_is_missing(study: Study) -> None:
    results = table("results")
    assert set(results.model) == {*study.models, "teacher", *FLOORS} and set(results.identities) <= {844, 322}
    for protocol, metrics in {
        "dense": ("eer", "auc", "tar@far=0.01", "tar@far=0.001"),
        "official": ("accuracy", "eer", "auc"),
    }.items():
        for metric in metrics:
            for pairing in ("lr_lr", "hr_lr"):
                rows = results[
                    (results.protocol == protocol) & (results.metric == metric) & (results.pairing == pairing)
                ]
                wanted = set(study.resolutions) - ({"hr"} if pairing == "hr_lr" else set())
                assert (
                    set(rows.model) == set(results.model)
                    and (rows.groupby("model").resolution.apply(set) == wanted).all()
                )
    for metric in ("rank1", "rank5"):
        rows = results[(results.protocol == "dense") & (results.metric == metric)]
        assert (rows.groupby("model").resolution.apply(set) == set(study.resolutions)).all()
    assert {"teacher_lr"} <= set(results.pairing) and "misaligned" in set(results.protocol)
    rows = results[results.protocol == "dense"][lambda t: t.metric == "eer"]
    assert set(rows.n_genuine) == {1047} and set(rows.n_impostor) == {60000}
    rows = results[results.protocol == "official"]
    assert set(rows.n_genuine) == {600} and set(rows.n_impostor) == {600}


def test_the_pretrained_teacher_is_the_one_its_author_measured() -> None:
    """98.0 % on all 6,000 pairs of View 2; its author: 99.13 % plain, 99.38 % with jitter."""
    teacher = table("teacher")
    rows = teacher[(teacher.protocol == "view2") & (teacher.setting == "pretrained") & (teacher.metric == "accuracy")]
    [row] = rows.itertuples()
    assert row.resolution == "hr" and row.low <= row.value <= row.high and row.value >= 0.98


def test_the_baseline_without_a_teacher_is_no_straw_man() -> None:
    """At least 86 % on the official pairs at 16 px: a baseline below it would make every gain look large."""
    rows = table("results")
    rows = rows[
        (rows.protocol == "official")
        & (rows.model == "scratch")
        & (rows.metric == "accuracy")
        & (rows.pairing == "lr_lr")
    ]
    assert rows[rows.resolution == "16"].value.item() >= 0.86


def test_the_index_names_the_models_with_further_seeds() -> None:
    results = table("results")
    lead = (REPORT / "index.html").read_text(encoding="utf-8").split("1 seed each, more of ")[1].split(". ")[0]
    assert set(re.findall("<code>([^<]+)</code>", lead)) == set(results[results.seeds > 1].model)


def test_one_method_is_ranked_first_and_tuning_chose_one_value_each(study: Study) -> None:
    tuning = table("tuning")
    assert set(tuning.method) == {*study.tuning.grid, "ranking"} and (tuning.groupby("method").chosen.sum() == 1).all()
    ranking = tuning[tuning.method == "ranking"]
    assert list(ranking.value) == sorted(ranking.value) and set(ranking.candidate) == set(study.models)


@pytest.mark.parametrize("resolution", ["8", "12", "16"])
def test_floors_and_the_shuffled_control_behave(resolution: str) -> None:
    rows = table("results").query("protocol == 'dense' and pairing == 'lr_lr' and metric == 'eer'")
    eer = rows[rows.resolution == resolution].set_index("model").value
    trained = eer.drop([*FLOORS, "teacher", "hr_student", "shuffled"])
    assert trained.max() < eer[list(FLOORS)].min(), "a network that learned nothing is as good"
    assert eer.shuffled > eer.feature + 0.02, "targets of other people's faces teach as much as their own"


def test_another_schedule_is_held_against_the_study_and_the_mirror_image_against_the_results(study: Study) -> None:
    schedule, results = table("schedule"), table("results")
    rows = schedule[(schedule.protocol == "dense") & (schedule.metric == "eer") & (schedule.pairing == "lr_lr")]
    arms = {name.split("-")[0]: epochs for name, epochs in rescheduled(study).items()}
    assert set(rows.model) == set(arms) and (rows.epochs == rows.model.map(arms)).all()
    itself = rows[rows.against == "itself"].set_index(["model", "resolution"])
    usual = results[(results.protocol == "dense") & (results.metric == "eer") & (results.pairing == "lr_lr")]
    usual = usual.set_index(["model", "resolution"]).value.reindex(itself.index)
    assert (itself.value - usual - itself["diff"]).abs().max() < 2e-6
    keys = ["protocol", "model", "pairing", "resolution", "metric"]
    both = table("mirror").merge(results, on=keys, suffixes=("", "_once"), how="left")
    assert set(both.model) == {*study.models, "teacher"} and (both.once - both.value_once).abs().max() < 2e-6


def test_every_number_has_an_interval_around_it() -> None:
    results = table("results")
    known = results[results.low.notna()]
    assert (known.low <= known.high).all() and len(known) > 0.99 * len(results)
    assert ((known.low <= known.value) & (known.value <= known.high)).mean() > 0.99


def test_no_photograph_leaves_the_machine() -> None:
    """LFW's people did not agree to be shown: the pages have no mosaics of faces."""
    assert not [path for path in REPORT.rglob("*.png") if "face" in path.stem and "accuracy" not in path.stem]
    assert not [path for path in REPORT.rglob("*") if path.suffix in (".jpg", ".jpeg", ".npy")]


def test_the_status_names_what_has_not_run(study: Study) -> None:
    text = (REPORT / "STATUS.md").read_text(encoding="utf-8")
    assert f"Models: {len(study.models)} of {len(study.models)}. Tuned models: {len(study.tuning.grid)} of" in text


def test_the_released_students_are_those_of_the_study() -> None:
    released = sorted((ROOT / "lrfr" / "weights").glob("lfw-*.safetensors"))
    assert len(released) == 2 and (ROOT / "lrfr/weights/lfw-scratch.safetensors") in released
    for path in released:
        card = check_release(path, ROOT)
        assert card["study"] == "lfw" and card["measured"]
