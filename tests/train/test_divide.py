"""The stage `divide`: folds and official pairs, and whom it leaves out."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from lrfr.data import prepare
from lrfr.data.align import COLUMNS
from lrfr.data.photographs import LISTS, make_manifest
from lrfr.data.splits import identity_folds
from lrfr.errors import UserError
from lrfr.sources import SOURCES, lfw
from lrfr.train import divide
from tests.sources import conftest
from tests.sources.small_lfw import invented

study, small_lfw = conftest.study, conftest.small_lfw  # fixtures

ORL = {"orl": SOURCES["orl"]}
POINTS = [20, 22, 40, 22, 30, 32, 22, 42, 38, 42.0]


def write_landmarks(study, images):
    study.reports.mkdir(exist_ok=True)
    rows = [[image, 1, 0.99, 1, *POINTS] for image in range(images)]
    pd.DataFrame(rows, columns=COLUMNS).to_csv(study.reports / "landmarks.csv", index=False)


def tables(study):
    return (pd.read_csv(study.runs / "folds.csv"), pd.read_csv(study.runs / "official.csv"))


def test_identity_folds(study):
    write_landmarks(study, 40)
    prepare.run(study, ORL)
    divide.run(study, ORL)
    folds, official = tables(study)
    assert folds.equals(identity_folds(4, 2, 1, study.seed)) and official.empty
    assert (study.runs / "official.csv").read_text() == "list,fold,official_fold,image_a,image_b,same\n"
    assert (study.reports / "overlap.csv").read_text() == "name,set,cosine,resembles,left_out\n"


@pytest.fixture
def lfw_sources(small_lfw):
    """After the stage `lfw_study`, whose photographs they are."""
    small_lfw.sources = {
        "lfw": lfw.SOURCE._replace(manifest=small_lfw.manifest, fallback=(10, 10, 50, 50), first_fold={})
    }
    return small_lfw.sources


@pytest.fixture
def lfw_study(study, small_lfw, lfw_sources, monkeypatch):
    """Eight people, two photographs of which are one under two names, B_Person's second and G_Person's first."""
    faces = small_lfw.photographs
    faces["G_Person/G_Person_0001.jpg"] = faces["B_Person/B_Person_0002.jpg"]
    small_lfw.write()
    small_lfw.write_manifest()
    monkeypatch.setenv("LRFR_LFW_ROOT", str(small_lfw.root))
    study.faces.source, study.faces.people, study.faces.folds, study.faces.validation_people = "lfw", 8, 1, 1
    write_landmarks(study, len(faces))
    return study


def test_lfw(lfw_study, lfw_sources, small_lfw):
    prepare.run(lfw_study, lfw_sources)
    divide.run(lfw_study, lfw_sources)
    index = pd.read_csv(lfw_study.runs / "index.csv")
    wrong = ["B_Person/B_Person_0002.jpg", "G_Person/G_Person_0001.jpg"]
    assert index["name"][index["removed"] == 1].tolist() == wrong
    assert index["name"].tolist() == sorted(small_lfw.photographs)
    (pair,) = pd.read_csv(lfw_study.runs / "duplicates.csv").to_dict("records")
    assert [pair["name_a"], pair["name_b"]] == wrong
    assert (pair["cosine"], pair["same_person"], pair["identical"]) == (1, 0, 1)
    folds, official = tables(lfw_study)
    role = folds.set_index("person")["role"]
    assert role[role == "test"].index.tolist() == [0, 1, 2, 3, 4, 5] and role[7] == "validation"  # H has two
    numbers = pd.Series(index["image"].to_numpy(), index["name"])
    expected = lfw.read_pairs(small_lfw.root / lfw.PAIRS)
    assert official["official_fold"].equals(expected["fold"]) and official["same"].equals(expected["same"])
    assert set(official["list"]) == {"official"} and not official["fold"].any()
    assert all(official[f"image_{side}"].tolist() == numbers[expected[f"name_{side}"]].tolist() for side in "ab")


def test_lfw_folds_are_its_own(lfw_study, lfw_sources):
    prepare.run(lfw_study, lfw_sources)
    lfw_study.faces.folds = 5
    with pytest.raises(UserError, match=r"^faces\.folds: the official pairs of lfw make 1 folds; set it to that\.$"):
        divide.run(lfw_study, lfw_sources)
    lfw_study.faces.folds = 1
    lfw_sources["lfw"] = lfw_sources["lfw"]._replace(first_fold={"test people": 7})
    with pytest.raises(UserError, match=r"^lfw: fold 0 has test people: 6 instead of 7; "):
        divide.run(lfw_study, lfw_sources)
    assert not (lfw_study.runs / "folds.csv").exists()


def test_lfw_with_fewer_people_than_its_pairs(lfw_study, lfw_sources):
    lfw_study.faces.people = 4
    write_landmarks(lfw_study, 7)
    prepare.run(lfw_study, lfw_sources)
    reason = r"E_Person/E_Person_0002\.jpg: an official pair needs this .*raise faces\.people"
    with pytest.raises(UserError, match=reason):
        divide.run(lfw_study, lfw_sources)


class Held(dict):
    read = dict.__getitem__


def made_up(tmp_path, name, photographs, lists=None):
    """A source of photographs {name: (person, bytes)}."""
    path = tmp_path / f"{name}.csv"
    path.write_bytes(make_manifest((key, *value) for key, value in photographs.items()))
    held = Held({key: data for key, (_, data) in photographs.items()})
    return lfw.SOURCE._replace(manifest=path, fallback=None, open=lambda: held, lists=lists, first_fold={})


@pytest.fixture
def tested(study, tmp_path):
    """Five people with five photographs each, the last of person 2 shows a face of the second test source."""
    own = {f"{p}-{i}.jpg": (str(p), invented(10 * p + i)) for p in range(5) for i in range(5)}
    x = {f"{k}/x.jpg": (f"x{k}", invented(100 + k)) for k in range(2)}
    y = {f"{k}/y.jpg": (f"y{k}", invented(200 + k)) for k in range(2)}
    y["1/y.jpg"] = ("y1", own["2-4.jpg"][1])
    pairs = [("one", k, "0/x.jpg", "1/x.jpg", 0) for k in range(3)]
    sources = {
        "orl": made_up(tmp_path, "own", own),
        "lfw": made_up(tmp_path, "x", x, lambda: pd.DataFrame(pairs, columns=LISTS)),
        "cfp": made_up(tmp_path, "y", y, lambda: pd.DataFrame([("two", 1, "1/y.jpg", "0/y.jpg", 0)], columns=LISTS)),
    }
    study.faces = SimpleNamespace(
        source="orl",
        tests=("lfw", "cfp"),
        people=5,
        folds=1,
        margin=41,
        validation_people=1,
        resemblance=0.9999,
        searcher=SimpleNamespace(name="edgeface_xxs", weights="random"),
    )
    write_landmarks(study, 29)
    prepare.run(study, sources)
    return sources


def test_who_resembles_somebody_of_a_test_source_is_left_out(study, tested):
    divide.run(study, tested)
    folds, official = tables(study)
    role = folds.set_index("person")["role"]
    assert role.index.tolist() == [0, 1, 3, 4, 5, 6, 7, 8] and role[[5, 6, 7, 8]].eq("test").all()
    assert sorted(role[[0, 1, 3, 4]]) == ["train"] * 3 + ["validation"] and not folds["fold"].any()
    assert official.values.tolist() == [
        *(["one", 0, k, 25, 26, 0] for k in range(3)),
        ["two", 0, 1, 28, 27, 0],
    ]
    overlap = pd.read_csv(study.reports / "overlap.csv")
    assert list(overlap.columns) == divide.OVERLAP and overlap["name"].tolist() == [f"2-{i}.jpg" for i in range(5)]
    assert overlap.iloc[4].tolist() == ["2-4.jpg", "cfp", 1.0, "1/y.jpg", 1] and overlap["left_out"].all()
    assert (overlap["cosine"][:4] < 0.9999).all()


def test_the_same_in_pieces(study, tested, monkeypatch):
    divide.run(study, tested)
    before = (study.reports / "overlap.csv").read_bytes()
    monkeypatch.setattr(divide, "CHUNK", 50)  # whole batches
    study.jobs = 1
    divide.run(study, tested)
    assert (study.reports / "overlap.csv").read_bytes() == before


def test_without_a_search_nobody_is_left_out(study, tested):
    study.faces.resemblance = study.faces.searcher = None
    divide.run(study, tested)
    folds, _ = tables(study)
    assert folds["person"].tolist() == list(range(9))
    assert (study.reports / "overlap.csv").read_text() == "name,set,cosine,resembles,left_out\n"


def test_nearest():
    faces, others = np.eye(3)[[0, 1, 2, 0]], np.eye(3)[[2, 0]]
    cosine, row = divide.nearest(faces, others)
    assert cosine.tolist() == [1, 0, 1, 1] and row[[0, 2, 3]].tolist() == [1, 0, 1]
