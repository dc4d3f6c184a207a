"""The source `recordio`: a training set whose faces are aligned and whose manifest the user's own command writes."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from lrfr.benchmarks import miniatures
from lrfr.data import align, detect, photographs, prepare
from lrfr.data.photographs import read_bytes, read_manifest
from lrfr.gate.images import read_image
from lrfr.gate.insightface_bin import ARCFACE
from lrfr.gate.recordio import RecordSet
from lrfr.sources import SOURCES, recordio
from lrfr.train import divide
from tests.gate.refusals import refusal

SET = {"recordio": recordio.SOURCE}


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("LRFR_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("LRFR_RECORDIO_ROOT", raising=False)
    miniatures.write_records(tmp_path / "set", 4, 3)
    return tmp_path / "set"


@pytest.fixture
def study(root, tmp_path, monkeypatch):
    """A study on the first three people, after `lrfr study` has stored what it stores."""
    monkeypatch.chdir(tmp_path)
    for file, data in recordio.choose_root(root).files.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    return SimpleNamespace(
        seed=3,
        threads=1,
        jobs=1,
        runs=tmp_path / "runs",
        reports=tmp_path / "reports",
        faces=SimpleNamespace(source="recordio", tests=(), people=3, margin=0, folds=3, validation_people=1),
        views=SimpleNamespace(kinds=("area",), smallest=8, largest=10, size=32),
    )


def test_the_manifest_lists_every_face(study, root):
    table, records = read_manifest(recordio.MANIFEST), RecordSet(root)
    assert table["name"].tolist() == [str(key) for key in range(1, 13)]
    assert table["person"].tolist() == [str(label) for label in records.labels]
    opened = SOURCES["recordio"].open()
    for i, row in enumerate(table.itertuples()):
        assert read_bytes(opened, row.name, row.sha256) == records.face(i)[1]


def test_what_is_stored_and_counted(root, tmp_path):
    chosen = recordio.choose_root(root)
    assert chosen.files.keys() == {recordio.MANIFEST, tmp_path / "cache" / "recordio-root"}
    assert [(c.what, c.observed, c.published) for c in chosen.counts] == [
        ("training images", 12, None),
        ("training people", 4, 4),
    ]
    assert str(root) not in chosen.files[recordio.MANIFEST].decode()
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "recordio-root").write_text(f"{root}\n")
    assert recordio.choose_root(None).files == {recordio.MANIFEST: chosen.files[recordio.MANIFEST]}


def test_nothing_is_detected_in_aligned_faces(study, monkeypatch):
    monkeypatch.setattr(detect, "parallel_map", lambda *_: pytest.fail("started"))
    detect.run(study, SET)
    table = pd.read_csv(study.reports / "landmarks.csv")
    assert table["image"].tolist() == list(range(9)) and table["found"].all() and table["probability"].isna().all()
    assert np.array_equal(table[align.POINTS].to_numpy(), np.tile(ARCFACE.ravel(), (9, 1)))


def test_chips_are_warped_by_the_template(study, root):
    detect.run(study, SET)
    prepare.run(study, SET)
    chips, opened = np.load(study.runs / "chips.npy"), SOURCES["recordio"].open()
    face = read_image(opened.read(read_manifest(recordio.MANIFEST)["name"][4]))
    assert len(chips) == 9 and np.array_equal(chips[4], align.chip(face, ARCFACE, recordio.WHOLE))
    index = pd.read_csv(study.runs / "index.csv")
    assert index["person"].tolist() == [0] * 3 + [1] * 3 + [2] * 3 and not index[["fallback", "removed"]].any(axis=None)
    divide.run(study, SET)
    assert set(pd.read_csv(study.runs / "folds.csv")["role"]) == {"train", "validation", "test"}


def test_only_equal_pixels_are_one_photograph(study, monkeypatch):
    """Faces of two people that are alike at 24 pixels stay, one under two labels does not."""
    detect.run(study, SET)
    monkeypatch.setattr(prepare.duplicates, "THRESHOLD", -1.0)
    prepare.run(study, SET)
    assert pd.read_csv(study.runs / "duplicates.csv").empty
    monkeypatch.setattr(
        photographs, "read_bytes", lambda photographs, name, sha256: photographs.read("1" if name == "4" else name)
    )
    prepare.run(study, SET)
    assert np.flatnonzero(pd.read_csv(study.runs / "index.csv")["removed"]).tolist() == [0, 3]


def test_another_set_at_the_known_place_is_refused(study, root):
    detect.run(study, SET)
    for path in root.iterdir():
        path.unlink()
    miniatures.write_records(root, 4, 4)
    assert "4: its bytes differ from the manifest" in refusal(prepare.run, study, SET)


def test_refusals(root, tmp_path):
    opened = recordio.Photographs(root)
    for name in ("0", "13", "99999", "x"):
        assert refusal(opened.read, name).startswith(f"record {name}: missing from")
    (root / "property").write_text("4,96,112")
    assert "faces of 112 x 96 pixels; 112 x 112, aligned, are needed" in refusal(recordio.Photographs, root)
    unknown = refusal(recordio.choose_root, None)
    assert "it is not known where it is; run `lrfr study paper --root PATH` or set LRFR_RECORDIO_ROOT" in unknown
    assert "property: cannot be read" in refusal(recordio.choose_root, tmp_path)
