import numpy as np
import pandas as pd
import pytest

from lrfr.data import align, detect, orl, prepare
from lrfr.data.degrade import view_bank
from lrfr.data.splits import identity_folds
from lrfr.errors import UserError

POINTS = [30.0, 50.0, 62.0, 50.5, 46.0, 70.0, 34.0, 88.0, 58.0, 88.0]


@pytest.fixture
def landmarks(study):
    rows = [[i, 1, 0.99, 1, *POINTS] for i in range(40)]
    rows[5] = [5, 0, np.nan, 0, *[np.nan] * 10]
    study.runs.mkdir()
    table = pd.DataFrame(rows, columns=detect.COLUMNS)
    table.to_csv(study.runs / "landmarks.csv", index=False)
    return table


def test_stage(study, landmarks):
    prepare.run(study)
    chips, views = np.load(study.runs / "chips.npy"), np.load(study.runs / "views.npy")
    assert chips.shape == (40, 150, 150, 3) and views.shape == (40, 2, 4, 32, 32, 3) and chips.dtype == views.dtype == np.uint8
    assert np.array_equal(views, view_bank(chips, 8, 10, 32))
    row = orl.read_manifest(people=4).iloc[7]
    face = orl.read_face(row["name"], row["sha256"])
    assert np.array_equal(chips[7], align.chip(face, np.reshape(POINTS, (5, 2)), orl.FALLBACK))
    index = pd.read_csv(study.runs / "index.csv")
    assert list(index.columns) == ["image", "person", "name", "fallback"]
    assert index["image"].tolist() == list(range(40)) and index["person"].tolist() == [i // 10 for i in range(40)]
    assert index["fallback"].tolist() == [int(i == 5) for i in range(40)] and index["name"][39] == "s4/10.pgm"
    assert pd.read_csv(study.runs / "folds.csv").equals(identity_folds(4, 2, 1, study.seed))


def test_same_bytes_again(study, landmarks):
    names = ("chips.npy", "views.npy", "index.csv", "folds.csv")
    written = []
    for _ in range(2):
        prepare.run(study)
        written.append([(study.runs / name).read_bytes() for name in names])
    assert written[0] == written[1]
    assert {path.name for path in study.runs.iterdir()} == {"landmarks.csv", *names}


def test_a_changed_image_stops_the_stage(study, landmarks):
    text = orl.MANIFEST.read_text()
    sha = orl.read_manifest(people=1)["sha256"][3]
    orl.MANIFEST.write_text(text.replace(sha, "0" * 64))
    with pytest.raises(UserError, match=r"s1/4\.pgm: its bytes differ"):
        prepare.run(study)
    assert [path.name for path in study.runs.iterdir()] == ["landmarks.csv"]


@pytest.mark.parametrize("change", [lambda t: t.iloc[:-1], lambda t: t.drop(columns="x3"), lambda t: t.iloc[::-1]])
def test_landmarks_of_other_images(study, landmarks, change):
    change(landmarks).to_csv(study.runs / "landmarks.csv", index=False)
    with pytest.raises(UserError, match="run the detect stage again"):
        prepare.run(study)


def test_missing_landmarks(study):
    with pytest.raises(UserError, match="landmarks.csv: cannot be read"):
        prepare.run(study)
