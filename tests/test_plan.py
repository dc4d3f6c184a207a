"""The plan: every stage and training has a file of its own, which changes with what shapes it and with nothing else."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from lrfr import plan
from lrfr.config import Study
from lrfr.errors import UserError
from lrfr.models import student
from lrfr.stages import STAGES

ROOT = Path(__file__).resolve().parents[1]
ONE = [stage for stage, one in STAGES.items() if not one.item and stage != "plan"]  # stages that run once a study


@pytest.fixture(scope="module")
def study(composed: Callable[[str], dict]) -> Study:
    return Study(**composed("smoke"))


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch) -> Callable[[Study], dict[str, dict]]:
    monkeypatch.chdir(ROOT)
    return plan.plans


def changes(planned: Callable, before: Study, after: Study) -> set[str]:
    """Which files differ, notebooks apart: they are given the whole study."""
    old, new = planned(before), planned(after)
    assert old.keys() == new.keys()
    return {name for name in old if old[name] != new[name] and not name.startswith("notebook-")}


def test_there_is_a_file_for_every_stage_training_tuning_and_notebook(planned: Callable, study: Study):
    files = planned(study)
    trainings = {*study.models, "hkdd-no_hfd", "kd-seed1"}
    assert set(files) == {*ONE, *trainings, "tune-feature", *(f"notebook-{name}" for name in study.notebooks)}
    assert all(content["code"] and content["parameters"] for content in files.values())


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"jobs": 7}, set()),  # the time, never a number
        ({"models.hkdd.options.hfd": 9}, {"hkdd"}),  # the arm has an hfd of its own
        ({"models.hkdd.options.beta": 9}, {"hkdd", "hkdd-no_hfd"}),
        ({"models.kd.options.weight": 9}, {"kd", "kd-seed1"}),
        ({"models.feature.options.weight": 9}, {"feature"}),  # tuned: a choice asks for no other trial
        ({"models.feature.recipe": {"margin": 0.1}}, {"feature", "tune-feature"}),
        ({"models.feature.teacher": "shuffled"}, {"feature", "tune-feature"}),
        ({"arms.hkdd-beta_1.options": {"beta": 3}}, set()),  # described, and not trained
        ({"tuning.epochs": 2}, {"tune-feature"}),
    ],
    ids=lambda value: " ".join(sorted(value)) or "nothing",
)
def test_a_training_changes_with_its_own_block_alone(
    planned: Callable, study: Study, changed: Callable[..., Study], change: dict, expected: set[str]
):
    assert changes(planned, study, changed(study, change)) - set(ONE) == expected


@pytest.mark.parametrize(
    ("change", "changing", "staying"),
    [
        (
            {"evaluate.draws": 200},
            {"evaluate"},
            {"detect", "prepare", "teacher", "targets", "references", "embed", "kd"},
        ),
        (
            {"train.epochs": 4},
            {"kd", "scratch", "benchmark"},
            {"prepare", "teacher", "targets", "references", "evaluate", "tune-feature"},
        ),
        ({"models.hkdd.student": "se"}, {"hkdd", "embed"}, {"references", "kd"}),
        ({"evaluate.misaligned": 0.1}, {"references", "embed"}, {"teacher", "targets", "kd"}),
        ({"teacher.head.epochs": 3}, {"teacher", "kd"}, {"detect", "prepare", "evaluate"}),
        ({"faces.margin": 41}, {"prepare"}, {"detect", "teacher", "evaluate"}),
        (
            {"faces.resemblance": 0.4, "faces.searcher": {"name": "edgeface_xs", "weights": "random"}},
            {"divide"},
            {"detect", "prepare", "evaluate"},
        ),
        ({"faces.tests": ("lfw",), "faces.folds": 1}, {"detect", "prepare", "divide"}, {"teacher", "targets"}),
        ({"seed": 1}, {"divide", "teacher", "kd", "evaluate"}, {"detect", "targets"}),
    ],
    ids=lambda value: " ".join(sorted(value)) or "nothing",
)
def test_a_stage_changes_with_what_it_reads(
    planned: Callable, study: Study, changed: Callable[..., Study], change: dict, changing: set[str], staying: set[str]
):
    found = changes(planned, study, changed(study, change))
    assert changing <= found and not staying & found


def test_weights_to_start_from_are_part_of_every_training(
    planned: Callable, study: Study, changed: Callable[..., Study], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(student, "RELEASED", tmp_path)
    study = changed(study, {"student.start": "sharp"})
    with pytest.raises(UserError, match="student.start: no sharp.safetensors in lrfr/weights"):
        plan.plans(study)
    (tmp_path / "sharp.safetensors").write_bytes(b"1")
    before = plan.plans(study)
    (tmp_path / "sharp.safetensors").write_bytes(b"2")
    after = plan.plans(study)
    found = {name for name in before if before[name] != after[name]}
    assert {"kd", "scratch", "references", "tune-feature"} <= found and not {"teacher", "targets", "evaluate"} & found


PRINT = """
import json
from lrfr import config, plan
print(json.dumps(plan.plans(config.load())))
"""


def in_process(folder: Path) -> dict[str, dict]:
    environment = os.environ | {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", PRINT], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory, composed: Callable[[str], dict]) -> tuple[Path, dict[str, dict]]:
    """A copy of the code with the study `orl` and a further seed, and its plan."""
    folder = tmp_path_factory.mktemp("copy")
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "lrfr", folder / "lrfr", ignore=ignored)
    values = composed("orl") | {"notebooks": []}
    values["models"]["kd-seed1"] = {"like": "kd", "seed": 1}
    (folder / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    return folder, in_process(folder)


@pytest.mark.parametrize(
    ("old", "new", "trainings"),
    [
        (
            "(study.train.model_dump() | changes)",
            "(study.train.model_dump() | changes | ({'epochs': 1} if model.method == 'hkdd' else {}))",
            {"hkdd"},
        ),
        (
            'if all_models(study)[name].folds == "all" else',
            'if all_models(study)[name].folds == "all" and name != "mkmmd" else',
            {"mkmmd"},
        ),
        ('{"seeds": (variant.seed,)}', '{"seeds": (variant.seed + 1,)}', {"kd-seed1"}),
    ],
    ids=["train_of", "folds_of", "seed"],
)
def test_what_decides_recipes_folds_and_seeds_has_no_hole(
    copy: tuple[Path, dict[str, dict]], old: str, new: str, trainings: set[str]
):
    """Two lines that train HKDD for one epoch, or a model on one fold, change exactly these trainings."""
    folder, before = copy
    path = folder / "lrfr" / "train" / "trainings.py"
    whole = path.read_text(encoding="utf-8")
    assert whole.count(old) == 1
    path.write_text(whole.replace(old, new), encoding="utf-8")
    try:
        after = in_process(folder)
    finally:
        path.write_text(whole, encoding="utf-8")
    named = {name for name in before if name not in STAGES}
    assert {name for name in named if before[name] != after[name]} == trainings


def test_seeds_that_are_evaluated_are_in_the_plan_of_the_evaluation(copy: tuple[Path, dict[str, dict]]):
    folder, before = copy
    path = folder / "lrfr" / "train" / "trainings.py"
    whole = path.read_text(encoding="utf-8")
    path.write_text(
        whole.replace("return (*study.train.seeds,", "return (*study.train.seeds[:1],", 1), encoding="utf-8"
    )
    try:
        after = in_process(folder)
    finally:
        path.write_text(whole, encoding="utf-8")
    stale = {name for name in before if before[name] != after[name]}
    fresh = {"detect", "prepare", "teacher", "targets", "references", "kd", "kd-seed1"}
    assert {"embed", "evaluate"} <= stale and not stale & fresh


def test_a_text_changes_pages_and_no_training(copy: tuple[Path, dict[str, dict]]):
    folder, before = copy
    path = next((folder / "lrfr" / "report" / "templates").glob("*.j2"))
    whole = path.read_text(encoding="utf-8")
    path.write_text(whole + " ", encoding="utf-8")
    try:
        after = in_process(folder)
    finally:
        path.write_text(whole, encoding="utf-8")
    stale = {name for name in before if before[name] != after[name]}
    fresh = {"evaluate", "references", "embed", "teacher", "targets"}
    assert {"site", "summary", "status"} <= stale and stale <= set(STAGES) - fresh


def test_a_study_decides_nothing_by_itself(study: Study):
    with pytest.raises(LookupError, match="study.copy is a function; move it to lrfr.train.trainings"):
        plan.values(study, {("copy",)})
    assert plan.values(study, {("train", "seeds"), ("runs",), ("jobs",), ("model_copy",)}) == {"train.seeds": [0]}


def test_a_notebook_that_does_not_exist_is_one_sentence(planned: Callable, study: Study, changed: Callable[..., Study]):
    with pytest.raises(UserError, match="99-nothing.ipynb: no such notebook"):
        planned(changed(study, {"notebooks": ("99-nothing",)}))


def test_a_notebook_counts_its_code_and_not_its_prose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "notebooks" / "a.ipynb"

    def digest(code: str, prose: str) -> str:
        cells = [{"cell_type": "code", "source": [code]}, {"cell_type": "markdown", "source": [prose]}]
        path.write_text(json.dumps({"cells": cells}), encoding="utf-8")
        return plan.notebook_code("a").digest

    assert digest("x = 1", "one") == digest("x = 1  # the same", "two") != digest("x = 2", "one")


def test_every_stage_depends_on_its_own_file_and_on_no_list_of_parameters():
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    assert stages.keys() == STAGES.keys()
    for name, stage in stages.items():
        command = re.fullmatch(rf"python -m lrfr stage {name}(?: --(\w+) \$\{{item\.(\w+)\}})?", stage["cmd"])
        assert command and (command[1] or "") == STAGES[name].item == (command[2] or "")
        if name == "plan":
            assert stage["params"] == [{"params.yaml": None}]
            continue
        item = {"distill": "${item.training}", "tune": "tune-${item.model}", "notebook": "notebook-${item.notebook}"}
        assert stage["deps"][0] == f"runs/${{item.study}}/plan/{item.get(name, name)}.json" and "params" not in stage
