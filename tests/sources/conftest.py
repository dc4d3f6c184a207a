"""A study just large enough for the data stages, in a folder of its own; where the real LFW is; a small invented one.

The tests of the data stages use them too.
"""

import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from lrfr.data.photographs import COMMITTED, MANIFESTS
from lrfr.sources import lfw
from tests.sources.small_lfw import make_small_lfw

ROOT = Path(__file__).resolve().parents[2]
REAL_LFW = Path(os.environ.get("LRFR_LFW_ROOT", ROOT.parent / "shared" / "datasets" / "lfw"))


@pytest.fixture
def manifest():
    return COMMITTED / "orl.csv"


@pytest.fixture(scope="session")
def real_lfw():
    if not (REAL_LFW / lfw.ARCHIVE).is_file():
        pytest.skip("LFW is not on this machine")
    return REAL_LFW


@pytest.fixture
def study(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(COMMITTED, MANIFESTS)
    return SimpleNamespace(
        seed=3,
        threads=1,
        jobs=2,
        runs=tmp_path / "runs",
        reports=tmp_path / "reports",
        faces=SimpleNamespace(
            source="orl", tests=(), people=4, margin=0, folds=2, validation_people=1, resemblance=None, searcher=None
        ),
        views=SimpleNamespace(kinds=("area",), smallest=8, largest=10, size=32),
    )


@pytest.fixture
def small_lfw(tmp_path, monkeypatch):
    return make_small_lfw(tmp_path, monkeypatch)
