"""The tiny study after the stages `references` and `embed`."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lrfr.config import Study
from lrfr.models.student import build_student
from lrfr.protocol import embed, references
from lrfr.train.checkpoint import save_tensors

OFFICIAL = [
    ("official", *row) for row in ((0, 0, 0, 35, 1), (0, 1, 7, 14, 1), (0, 0, 3, 8, 1), (0, 1, 20, 1, 1))
]  # tested by the fold, and others


def with_students(study: Study, **changes: object) -> Study:
    """Two models with two seeds each, and their students, which are fresh ones; below the current folder."""
    values = study.model_dump() | {"arms": {}} | changes
    values["models"] = {name: values["models"][name] for name in ("scratch", "se_dfd")}
    values["tuning"] |= {"grid": {}}
    values["train"] |= {"seeds": (0, 1)}
    study = Study(**values)
    for name, model in study.models.items():
        for seed in study.train.seeds:
            state = build_student(study.student, model.student, study.views.size, seed + 5).state_dict()
            half = {key: t.half() if t.is_floating_point() else t for key, t in state.items()}
            save_tensors(study.reports / "students" / name / f"fold0-seed{seed}.safetensors", half)
    return study


@pytest.fixture
def students(tiny: Study) -> Study:
    return with_students(tiny)


@pytest.fixture(scope="session")
def embedded(trained_study: tuple[Study, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, Path]:
    """After both stages, in one process and without the other protocols (folder `plain`), then in two and with them."""
    study, source = trained_study
    folder = tmp_path_factory.mktemp("embedded")
    shutil.copytree(source, folder, dirs_exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        references.run(study)  # before there is any student
        embed.run(with_students(study))
        (study.runs / "plain").mkdir()
        for name in ("references", "embeddings"):
            (study.runs / name).rename(study.runs / "plain" / name)
        evaluate = study.evaluate.model_dump() | {"misaligned": 0.03, "official": True}
        study = with_students(study, evaluate=evaluate, jobs=2)
        columns = ["list", "fold", "official_fold", "image_a", "image_b", "same"]
        pd.DataFrame(OFFICIAL, columns=columns).to_csv(study.runs / "official.csv", index=False)
        references.run(study)
        embed.run(study)
    return study, folder


@pytest.fixture
def stage(embedded: tuple[Study, Path], monkeypatch: pytest.MonkeyPatch) -> Study:
    """For reading only; the test runs inside."""
    monkeypatch.chdir(embedded[1])
    return embedded[0]


def arrays(study: Study, file: str) -> dict[str, np.ndarray]:
    with np.load(study.runs / f"{file}.npz") as archive:
        return dict(archive)


def added(study: Study, file: str) -> dict[str, np.ndarray]:
    """What processes and other protocols have added; what was there stays as it was, bit for bit."""
    before, after = arrays(study, f"plain/{file}"), arrays(study, file)
    assert all(np.array_equal(after.pop(key), array) for key, array in before.items())
    return after
