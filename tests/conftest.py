"""What several packages' tests share: conf/ as composed, and a tiny invented study whose teacher has really been
trained.
"""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from lrfr.config import Study
from lrfr.train.trainings import plan_file, training, trials

ROOT = Path(__file__).resolve().parents[1]
PEOPLE, IMAGES = 6, 6  # of the tiny study: one fold with 3 people to train on, 2 for validation, 1 for the test


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole studies first: they take minutes, and no core shall wait for the last of them."""
    items.sort(key=lambda item: "study" not in item.path.parent.name)


@pytest.fixture(scope="session")
def composed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict]:
    """study -> what hydra makes of conf/ for it, composed by the function that `dvc exp run -S study=NAME` uses."""
    from dvc.utils.hydra import compose_and_dump

    @cache
    def compose(study: str) -> dict:
        target = tmp_path_factory.mktemp("composed") / "params.yaml"
        compose_and_dump(str(target), str(ROOT / "conf"), None, "config", None, [f"study={study}"])
        return yaml.safe_load(target.read_text(encoding="utf-8"))

    return lambda study: copy.deepcopy(compose(study))


@pytest.fixture(scope="session")
def tiny_values(composed: Callable[[str], dict]) -> dict:
    """Parameters of a study that trains in seconds: every model of `smoke`, three epochs, narrow networks."""
    values = composed("smoke")
    values |= {
        "study": "tiny",
        "jobs": 1,
        "notebooks": [],
    }
    values["models"] = {name: block for name, block in values["models"].items() if "like" not in block}
    values["faces"] |= {"people": PEOPLE, "folds": PEOPLE, "run_folds": [0], "validation_people": 2}
    values["views"] |= {"smallest": 8, "largest": 16}
    values["train"] |= {"epochs": 3, "batch": 12, "people_per_batch": 2}
    values["student"] |= {"channels": [8, 8, 12, 16], "se_channels": [8, 8, 11, 15], "se_reduction": 4, "embedding": 32}
    values["student"]["start"] = None
    for name, epochs in (("head", 2), ("last_stage", 1), ("se", 1)):
        values["teacher"][name] |= {"epochs": epochs, "batch": 9}
    values["models"]["kd_tuned_teacher"]["tuned"] |= {"batch": 9, "max_epochs": 1, "threads": 1}
    values["evaluate"] |= {"resolutions": [8, 16]}
    return values


def invented_faces() -> np.ndarray:
    """uint8 (36, 150, 150, 3): coarse random patterns, one a person, with noise an image."""
    rng = np.random.Generator(np.random.Philox(key=7))
    pattern = np.repeat(rng.uniform(40, 215, (PEOPLE, 6, 6, 3)), IMAGES, axis=0)
    coarse = (pattern + rng.normal(0, 20, pattern.shape)).clip(0, 255).astype(np.uint8)
    return coarse.repeat(25, axis=1).repeat(25, axis=2)


@pytest.fixture(scope="session")
def trained_study(tmp_path_factory: pytest.TempPathFactory, tiny_values: dict) -> tuple[Study, Path]:
    """The tiny study and a folder with what its stages up to `targets` wrote. For reading only."""
    from lrfr.data.degradations import view_bank
    from lrfr.data.splits import identity_folds
    from lrfr.train import targets, teacher

    study, folder = Study(**tiny_values), tmp_path_factory.mktemp("trained")
    runs = folder / study.runs
    (runs / "views").mkdir(parents=True)
    chips, sizes = invented_faces(), (study.views.smallest, study.views.largest, study.views.size)
    np.save(runs / "chips.npy", chips)
    np.save(runs / "views" / "area.npy", view_bank("area", chips, *sizes, study.seed, range(len(chips))))
    person = np.repeat(np.arange(PEOPLE), IMAGES)
    index = pd.DataFrame(
        {"image": range(len(person)), "person": person, "set": "orl", "name": "invented", "fallback": 0, "removed": 0}
    )
    index.to_csv(runs / "index.csv", index=False)
    identity_folds(PEOPLE, study.faces.folds, study.faces.validation_people, study.seed).to_csv(
        runs / "folds.csv", index=False
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        teacher.run(study)
        targets.run(study)
    return study, folder


def write_plans(study: Study, code: str = "0123456789abcdef run") -> None:
    """What the stage `plan` writes for trainings and tunings, with invented code: the real one takes seconds."""
    (study.runs / "plan").mkdir(exist_ok=True)
    blocks = {name: training(study, name) for name in (*study.models, *study.variants)}
    blocks |= {f"tune-{name}": trials(study, name) for name in study.tuning.grid}
    for name, block in blocks.items():
        text = json.dumps({"parameters": block.model_dump(mode="json"), "code": [code]})
        plan_file(study, name).write_text(text, encoding="utf-8")


@pytest.fixture
def tiny(trained_study: tuple[Study, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    """The tiny study in a folder of its own, where a test may change everything; the test runs inside."""
    study, folder = trained_study
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    write_plans(study)
    monkeypatch.setenv("LRFR_CACHE", str(tmp_path / ".cache"))
    return study


@pytest.fixture
def changed() -> Callable[..., Study]:
    """(study, {"train.epochs": 2, ...}) -> the study with these parameters, validated and planned again."""

    def change(study: Study, values: dict[str, object]) -> Study:
        whole = study.model_dump()
        for key, value in values.items():
            block, names = whole, key.split(".")
            for name in names[:-1]:
                block = block[name]
            block[names[-1]] = value
        study = Study(**whole)
        if (study.runs / "plan").is_dir():
            write_plans(study)
        return study

    return change
