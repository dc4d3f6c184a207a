import numpy as np
import pandas as pd
import pytest

from lrfr.data import align, prepare
from lrfr.data.align import COLUMNS
from lrfr.data.degrade import view_bank
from lrfr.data.photographs import MANIFESTS, read_manifest
from lrfr.data.splits import identity_folds
from lrfr.errors import UserError
from lrfr.gate.images import read_image
from lrfr.sources import SOURCES, lfw, orl

ORL = SOURCES["orl"]

POINTS = [30.0, 50.0, 62.0, 50.5, 46.0, 70.0, 34.0, 88.0, 58.0, 88.0]


NAMES = ("chips.npy", "views.npy", "index.csv", "folds.csv", "official.csv", "duplicates.csv")


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
    chips, views = np.load(study.runs / "chips.npy"), np.load(study.runs / "views.npy")
    assert (
        chips.shape == (40, 150, 150, 3)
        and views.shape == (40, 4, 32, 32, 3)
        and chips.dtype == views.dtype == np.uint8
    )
    assert np.array_equal(views, view_bank(chips, 8, 10, 32))
    for number, points in ((5, None), (7, np.reshape(POINTS, (5, 2)))):
        face = read_image(orl.Photographs().read(f"s1/{number + 1}.pgm"))
        assert np.array_equal(chips[number], align.chip(face, points, orl.FALLBACK))
    index = pd.read_csv(study.runs / "index.csv")
    assert list(index.columns) == ["image", "person", "name", "fallback", "removed"]
    assert index["image"].tolist() == list(range(40)) and index["person"].tolist() == [i // 10 for i in range(40)]
    assert index["fallback"].tolist() == [int(i == 5) for i in range(40)] and index["name"][39] == "s4/10.pgm"
    assert not index["removed"].any() and pd.read_csv(study.runs / "duplicates.csv")["same_person"].all()
    assert (study.runs / "official.csv").read_text() == "fold,official_fold,image_a,image_b,same\n"
    assert pd.read_csv(study.runs / "folds.csv").equals(identity_folds(4, 2, 1, study.seed))


def test_same_bytes_in_one_process_or_two(study, landmarks, monkeypatch):
    written = []
    for jobs, chunk in ((2, 7), (1, 40)):
        study.jobs = jobs
        monkeypatch.setattr(prepare, "CHUNK", chunk)
        prepare.run(study, ORL)
        written.append([(study.runs / name).read_bytes() for name in NAMES])
    assert written[0] == written[1]
    assert {path.name for path in study.runs.iterdir()} == set(NAMES)


def test_arrays_are_as_numpy_saves_them(study, landmarks, tmp_path):
    prepare.run(study, ORL)
    for name in ("chips.npy", "views.npy"):
        np.save(tmp_path / name, np.load(study.runs / name))
        assert (tmp_path / name).read_bytes() == (study.runs / name).read_bytes()


def test_a_changed_image_stops_the_stage(study, landmarks):
    path = MANIFESTS / "orl.csv"
    path.write_text(path.read_text().replace(read_manifest(path)["sha256"][3], "0" * 64))
    with pytest.raises(UserError, match=r"s1/4\.pgm: its bytes differ"):
        prepare.run(study, ORL)
    assert not study.runs.exists()


def test_a_photograph_that_cannot_be_decoded_leaves_nothing(study, landmarks, monkeypatch):
    monkeypatch.setattr(prepare, "read_bytes", lambda *_: b"no image")
    with pytest.raises(UserError, match=r"s1/1\.pgm: cannot be read as an image"):
        prepare.run(study, ORL)
    assert not list(study.runs.iterdir())


@pytest.fixture
def lfw_source(small_lfw):
    return lfw.SOURCE._replace(manifest=small_lfw.manifest, fallback=(10, 10, 50, 50), first_fold={})


@pytest.fixture
def lfw_study(study, small_lfw, monkeypatch):
    """Eight people, two photographs of which are one under two names, B_Person's second and G_Person's first."""
    faces = small_lfw.photographs
    faces["G_Person/G_Person_0001.jpg"] = faces["B_Person/B_Person_0002.jpg"]
    small_lfw.write()
    small_lfw.write_manifest()
    monkeypatch.setenv("LRFR_LFW_ROOT", str(small_lfw.root))
    study.faces.source, study.faces.people, study.faces.folds, study.faces.validation_people = "lfw", 8, 1, 1
    write_landmarks(study, len(faces), np.array([20, 22, 40, 22, 30, 32, 22, 42, 38, 42.0]))
    return study


def test_lfw(lfw_study, lfw_source, small_lfw):
    prepare.run(lfw_study, lfw_source)
    assert {path.name for path in lfw_study.runs.iterdir()} == set(NAMES)
    index = pd.read_csv(lfw_study.runs / "index.csv")
    wrong = ["B_Person/B_Person_0002.jpg", "G_Person/G_Person_0001.jpg"]
    assert index["name"][index["removed"] == 1].tolist() == wrong and index["name"].tolist() == sorted(
        small_lfw.photographs
    )
    (pair,) = pd.read_csv(lfw_study.runs / "duplicates.csv").to_dict("records")
    assert [pair["name_a"], pair["name_b"]] == wrong and (pair["cosine"], pair["same_person"], pair["identical"]) == (
        1,
        0,
        1,
    )
    folds = pd.read_csv(lfw_study.runs / "folds.csv").set_index("person")["role"]
    assert (
        folds[folds == "test"].index.tolist() == [0, 1, 2, 3, 4, 5] and folds[7] == "validation"
    )  # H has two photographs
    pairs, numbers = pd.read_csv(lfw_study.runs / "official.csv"), pd.Series(index["image"].to_numpy(), index["name"])
    expected = lfw.read_pairs(small_lfw.root / lfw.PAIRS)
    assert (
        pairs["official_fold"].equals(expected["fold"])
        and pairs["same"].equals(expected["same"])
        and not pairs["fold"].any()
    )
    assert all(pairs[f"image_{side}"].tolist() == numbers[expected[f"name_{side}"]].tolist() for side in "ab")


def test_lfw_folds_are_its_own(lfw_study, lfw_source):
    lfw_study.faces.folds = 5
    with pytest.raises(UserError, match=r"^faces\.folds: the official pairs of lfw make 1 folds; set it to that\.$"):
        prepare.run(lfw_study, lfw_source)
    lfw_study.faces.folds = 1
    lfw_source = lfw_source._replace(first_fold={"test people": 7})
    with pytest.raises(UserError, match=r"^lfw: fold 0 has test people: 6 instead of 7; "):
        prepare.run(lfw_study, lfw_source)
    assert not list(lfw_study.runs.iterdir())


def test_lfw_with_fewer_people_than_its_pairs(lfw_study, lfw_source):
    lfw_study.faces.people = 4
    table = pd.read_csv(lfw_study.reports / "landmarks.csv")
    table[:7].to_csv(lfw_study.reports / "landmarks.csv", index=False)
    with pytest.raises(
        UserError, match=r"E_Person/E_Person_0002\.jpg: an official pair needs this .*raise faces\.people"
    ):
        prepare.run(lfw_study, lfw_source)


@pytest.mark.parametrize("change", [lambda t: t.iloc[:-1], lambda t: t.drop(columns="x3"), lambda t: t.iloc[::-1]])
def test_landmarks_of_other_images(study, landmarks, change):
    change(landmarks).to_csv(study.reports / "landmarks.csv", index=False)
    with pytest.raises(UserError, match="run the detect stage again"):
        prepare.run(study, ORL)


def test_missing_landmarks(study):
    with pytest.raises(UserError, match="landmarks.csv: cannot be read"):
        prepare.run(study, ORL)
