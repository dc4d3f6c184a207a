import numpy as np
import pandas as pd
import pytest

from lrfr.data import align, photographs, prepare
from lrfr.data.align import COLUMNS
from lrfr.data.degradations import view_bank
from lrfr.data.degrade import middle
from lrfr.data.photographs import MANIFESTS, read_manifest
from lrfr.errors import UserError
from lrfr.gate.images import read_image
from lrfr.sources import SOURCES, lfw, orl

ORL = {"orl": SOURCES["orl"]}

POINTS = [30.0, 50.0, 62.0, 50.5, 46.0, 70.0, 34.0, 88.0, 58.0, 88.0]


NAMES = ("chips.npy", "views/area.npy", "index.csv", "duplicates.csv")


def write_landmarks(study, images, points=POINTS, absent=5):
    rows = [[i, 1, 0.99, 1, *points] for i in range(images)]
    rows[absent] = [absent, 0, np.nan, 0, *[np.nan] * 10]
    study.reports.mkdir()
    table = pd.DataFrame(rows, columns=COLUMNS)
    table.to_csv(study.reports / "landmarks.csv", index=False)
    return table


@pytest.fixture
def landmarks(study):
    return write_landmarks(study, 40)


def test_stage(study, landmarks):
    prepare.run(study, ORL)
    chips, views = np.load(study.runs / "chips.npy"), np.load(study.runs / "views" / "area.npy")
    assert (
        chips.shape == (40, 150, 150, 3)
        and views.shape == (40, 4, 32, 32, 3)
        and chips.dtype == views.dtype == np.uint8
    )
    assert np.array_equal(views, view_bank("area", chips, 8, 10, 32, study.seed, range(40)))
    for number, points in ((5, None), (7, np.reshape(POINTS, (5, 2)))):
        face = read_image(orl.Photographs().read(f"s1/{number + 1}.pgm"))
        assert np.array_equal(chips[number], align.chip(face, points, orl.FALLBACK))
    index = pd.read_csv(study.runs / "index.csv")
    assert list(index.columns) == ["image", "person", "set", "name", "fallback", "removed"]
    assert index["image"].tolist() == list(range(40)) and index["person"].tolist() == [i // 10 for i in range(40)]
    assert index["fallback"].tolist() == [int(i == 5) for i in range(40)] and index["name"][39] == "s4/10.pgm"
    assert not index["removed"].any() and pd.read_csv(study.runs / "duplicates.csv")["same_person"].all()
    assert set(index["set"]) == {"orl"}


def test_same_bytes_in_one_process_or_two(study, landmarks, monkeypatch):
    written = []
    for jobs, chunk in ((2, 7), (1, 40)):
        study.jobs = jobs
        monkeypatch.setattr(prepare, "CHUNK", chunk)
        prepare.run(study, ORL)
        written.append([(study.runs / name).read_bytes() for name in NAMES])
    assert written[0] == written[1]
    files = {path.relative_to(study.runs).as_posix() for path in study.runs.rglob("*") if path.is_file()}
    assert files == set(NAMES)


def test_arrays_are_as_numpy_saves_them(study, landmarks, tmp_path):
    prepare.run(study, ORL)
    for name in ("chips.npy", "views/area.npy"):
        np.save(tmp_path / "again.npy", np.load(study.runs / name))
        assert (tmp_path / "again.npy").read_bytes() == (study.runs / name).read_bytes()


def test_a_changed_image_stops_the_stage(study, landmarks):
    path = MANIFESTS / "orl.csv"
    path.write_text(path.read_text().replace(read_manifest(path)["sha256"][3], "0" * 64))
    with pytest.raises(UserError, match=r"s1/4\.pgm: its bytes differ"):
        prepare.run(study, ORL)
    assert not study.runs.exists()


def test_a_photograph_that_cannot_be_decoded_leaves_nothing(study, landmarks, monkeypatch):
    monkeypatch.setattr(photographs, "read_bytes", lambda *_: b"no image")
    with pytest.raises(UserError, match=r"s1/1\.pgm: cannot be read as an image"):
        prepare.run(study, ORL)
    assert not list(study.runs.iterdir())


def test_test_sources_come_after_the_training_source(study, small_lfw, monkeypatch):
    """Their people have numbers of their own, their faces no stored views, and every chip its margin."""
    monkeypatch.setenv("LRFR_LFW_ROOT", str(small_lfw.root))
    study.faces.tests, study.faces.margin, study.views.kinds = ("lfw",), 5, ("area", "camera")
    sources = ORL | {"lfw": lfw.SOURCE._replace(manifest=small_lfw.manifest, fallback=(10, 10, 50, 50))}
    table = write_landmarks(study, 40 + len(small_lfw.photographs))
    prepare.run(study, sources)
    index, chips = pd.read_csv(study.runs / "index.csv"), np.load(study.runs / "chips.npy")
    assert index["image"].tolist() == list(range(len(table))) and index["set"].tolist()[39:41] == ["orl", "lfw"]
    assert index["person"].tolist()[39:42] == [3, 4, 5] and index["name"][40] == "A_Person/A_Person_0001.jpg"
    assert chips.shape == (len(table), 160, 160, 3)
    for kind in study.views.kinds:
        views = np.load(study.runs / "views" / f"{kind}.npy")
        assert np.array_equal(views, view_bank(kind, chips[:40], 8, 10, 32, study.seed, range(40)))
    face = read_image(small_lfw.photographs["A_Person/A_Person_0001.jpg"])
    assert np.array_equal(middle(chips[40:41], 150)[0], align.chip(face, np.reshape(POINTS, (5, 2)), None))


@pytest.mark.parametrize("change", [lambda t: t.iloc[:-1], lambda t: t.drop(columns="x3"), lambda t: t.iloc[::-1]])
def test_landmarks_of_other_images(study, landmarks, change):
    change(landmarks).to_csv(study.reports / "landmarks.csv", index=False)
    with pytest.raises(UserError, match="run the detect stage again"):
        prepare.run(study, ORL)


def test_missing_landmarks(study):
    with pytest.raises(UserError, match="landmarks.csv: cannot be read"):
        prepare.run(study, ORL)
