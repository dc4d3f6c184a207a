import io
import itertools
import tarfile

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from lrfr.data import detect
from lrfr.data.align import COLUMNS, POINTS
from lrfr.data.photographs import MANIFESTS, read_manifest
from lrfr.errors import UserError
from lrfr.gate.images import read_image
from lrfr.sources import SOURCES, orl
from lrfr.sources.lfw import ARCHIVE

ORL = {"orl": SOURCES["orl"]}


@pytest.fixture(scope="module")
def mtcnn():
    return detect.detector()


@pytest.fixture
def face():
    return read_image(orl.Photographs().read("s1/1.pgm"))


def plausible(points):
    eyes, nose, mouth = points[:2], points[2], points[3:]
    in_order = eyes[0, 0] < eyes[1, 0] and mouth[0, 0] < mouth[1, 0]
    return in_order and eyes[:, 1].max() < nose[1] < mouth[:, 1].min()


def test_points_are_in_the_photographs_pixels(mtcnn, face):
    faces, probability, points = detect.landmarks(mtcnn, face, 2, 40)
    assert faces == 1 and probability > 0.9 and plausible(points)
    assert np.array_equal(points, np.round(points, 1))
    assert np.abs(points - [(27.6, 52), (62.7, 50.4), (46.8, 72.1), (32.4, 89), (59.4, 88.8)]).max() < 0.5
    larger = detect.landmarks(mtcnn, face, 3, 20)[
        2
    ]  # another border and enlargement change what it sees, not where it is
    assert np.abs(larger - points).max() < 3


def test_the_pupils_are_dark(mtcnn, face):
    grey = np.asarray(face)[..., 0].astype(float)
    for x, y in detect.landmarks(mtcnn, face, 2, 40)[2][:2].round().astype(int):
        assert grey[y - 2 : y + 3, x - 2 : x + 3].min() < np.percentile(grey[y - 15 : y + 16, x - 12 : x + 13], 15)


def test_nearest_to_the_centre_wins(mtcnn, face):
    pair = Image.new("RGB", (300, 112), (90, 90, 90))
    pair.paste(face, (104, 0))
    pair.paste(face, (205, 0))
    faces, _, points = detect.landmarks(mtcnn, pair, 2, 40)
    alone = detect.landmarks(mtcnn, face, 2, 40)[2]
    assert faces == 2 and np.abs(points - alone - [104, 0]).max() < 3


def test_no_face(mtcnn):
    assert detect.landmarks(mtcnn, Image.new("RGB", (92, 112), (120, 120, 120)), 2, 40) is None


def test_stage_does_not_depend_on_processes(study, monkeypatch):
    study.faces.people = 1
    monkeypatch.setattr(detect, "CHUNK", 5)
    detect.run(study, ORL)
    table = pd.read_csv(study.reports / "landmarks.csv")
    names = read_manifest(MANIFESTS / "orl.csv", people=1)["name"]
    images = [(image, name, orl.Photographs().read(name)) for image, name in enumerate(names)]
    here = pd.DataFrame(detect.detect_chunk(images, 2, 40), columns=COLUMNS)
    pd.testing.assert_frame_equal(table, here)
    assert table["found"].all() and all(plausible(points.reshape(5, 2)) for points in table[POINTS].to_numpy())
    assert not study.runs.exists()


def test_a_changed_photograph_stops_the_stage_before_the_detector_starts(study, monkeypatch):
    path = MANIFESTS / "orl.csv"
    sha256 = read_manifest(path)["sha256"][39]
    path.write_text(path.read_text().replace(sha256, "0" * 64))
    monkeypatch.setattr(detect, "parallel_map", lambda *_: pytest.fail("started"))
    with pytest.raises(UserError, match=r"s4/10\.pgm: its bytes differ"):
        detect.run(study, ORL)


def test_a_photograph_without_a_face_is_recorded():
    file = io.BytesIO()
    Image.new("RGB", (92, 112), (120, 120, 120)).save(file, "PNG")
    ((image, found, probability, faces, *points),) = detect.detect_chunk([(7, "x", file.getvalue())], 2, 40)
    assert (image, found, faces) == (7, 0, 0) and np.isnan([probability, *points]).all()


def test_colour_photographs(mtcnn, real_lfw):
    with tarfile.open(real_lfw / ARCHIVE, "r|gz") as archive:
        members = (member for member in archive if member.name.endswith(".jpg"))
        photographs = [archive.extractfile(member).read() for member in itertools.islice(members, 3)]
    for data in photographs:
        _, _, points = detect.landmarks(mtcnn, read_image(data), 1, 0)
        assert plausible(points) and np.abs(points.mean(0) - 125).max() < 30
