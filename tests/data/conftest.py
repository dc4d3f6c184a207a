"""A study just large enough for the data stages, in a folder of its own."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from lrfr.data import orl

COMMITTED = Path(__file__).resolve().parents[2] / "lrfr" / "data" / "manifests" / "orl.csv"


@pytest.fixture
def manifest():
    return COMMITTED


@pytest.fixture
def study(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    orl.MANIFEST.parent.mkdir(parents=True)
    shutil.copy(COMMITTED, orl.MANIFEST)
    return SimpleNamespace(
        seed=3,
        threads=1,
        jobs=2,
        runs=tmp_path / "runs",
        faces=SimpleNamespace(people=4, folds=2, validation_people=1),
        detect=SimpleNamespace(enlarge=2, border=40),
        views=SimpleNamespace(smallest=8, largest=10, size=32),
    )
