"""The tiny study once more, without the slow teacher with gates and with a person of whom one photograph is left."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lrfr.config import Study


@pytest.fixture(scope="session")
def trained_singles(trained_study: tuple[Study, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, Path]:
    """Its teacher and targets. For reading only."""
    from lrfr.train import targets, teacher

    study, source = trained_study
    study = study.model_copy(update={"teacher": study.teacher.model_copy(update={"se": None})})
    folder = tmp_path_factory.mktemp("singles")
    shutil.copytree(source, folder, dirs_exist_ok=True)
    runs = folder / study.runs
    index, folds = pd.read_csv(runs / "index.csv"), pd.read_csv(runs / "folds.csv")
    person = folds[(folds.fold == 0) & (folds.role == "train")].person.min()
    kept = np.where(index.person == person, 1, 4)  # photographs; of the others as few as a batch needs
    index["removed"] = (index.groupby("person").cumcount() >= kept).astype(int)
    index.to_csv(runs / "index.csv", index=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        teacher.run(study)
        targets.run(study)
    return study, folder


@pytest.fixture
def singles(trained_singles: tuple[Study, Path], monkeypatch: pytest.MonkeyPatch) -> Study:
    """The study; the test runs in its folder and changes nothing there."""
    study, folder = trained_singles
    monkeypatch.chdir(folder)
    return study
