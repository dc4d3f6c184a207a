import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lrfr.benchmarks import miniatures
from lrfr.benchmarks.scface_files import read_landmarks, read_scface
from lrfr.errors import UserError
from tests.gate.refusals import refusal


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sets") / "sc"
    miniatures.write_scface(folder)
    return folder


@pytest.fixture
def copy(original, tmp_path):
    shutil.copytree(original, tmp_path / "copy")
    return tmp_path / "copy" / "SCface_database"


def test_gallery_probes_and_counts(original):
    found = read_scface(original)
    assert found.gallery.names[0] == "001_frontal.JPG" and found.gallery.ids.tolist() == list(range(1, 10))
    assert list(found.probes) == [1, 2, 3]
    for distance, faces in found.probes.items():
        assert faces.ids.tolist() == np.repeat(range(1, 10), 5).tolist()
        assert faces.names[6] == f"cam_2/002_cam2_{distance}.jpg" and faces.keys[6][0].endswith(f"distance_{distance}")
    assert [faces.read(0).shape[:2] for faces in found.probes.values()] == [
        (75, 100),
        (108, 144),
        (168, 224),
    ]  # far to near
    counts = {count.what: (count.observed, count.published) for count in found.counts}
    assert counts["subjects"] == (9, 130) and counts["probes at distance 1"] == (45, 650)


def test_landmarks_lie_in_the_face(original):
    found = read_scface(original)
    assert len(found.landmarks) == 9 * (1 + 3 * 6)
    for distance, (width, scene) in miniatures.SCENES.items():
        eyes = found.landmarks[f"004_cam3_{distance}"]
        assert eyes.shape == (4, 2) and eyes[1, 0] - eyes[0, 0] == pytest.approx(0.36 * width, abs=0.11)
        assert eyes[2, 0] == pytest.approx(scene[0] / 2, abs=0.6) and (np.diff(eyes[1:, 1]) > 0).all()


def test_all_images_in_one_folder(copy):
    found = read_scface(copy)
    (copy / "surveillance_cameras_all").mkdir()
    for path in copy.glob("surveillance_cameras_distance_*/*/*"):
        path.rename(copy / "surveillance_cameras_all" / path.name)
    (copy / "surveillance_cameras_all" / "001_cam8.jpg").write_bytes(b"infrared mugshot")
    again = read_scface(copy)
    for distance in (1, 2, 3):
        assert again.probes[distance].names == tuple(name.split("/")[1] for name in found.probes[distance].names)


def test_the_larger_mugshots_where_there_are_no_others(copy):
    (copy / "mugshot_frontal_cropped_all").rename(copy / "mugshot_frontal_original_all")
    assert len(read_scface(copy).gallery) == 9
    shutil.rmtree(copy / "mugshot_frontal_original_all")
    assert "neither mugshot_frontal_cropped_all nor" in refusal(read_scface, copy)


def test_without_annotations(copy):
    (copy / "scface_annotations.txt").unlink()
    assert read_scface(copy).landmarks == {}


def test_no_probe_may_be_missing(copy):
    """The number of probes is the denominator: 5 a subject and distance."""
    (copy / "surveillance_cameras_distance_2/cam_4/003_cam4_2.jpg").unlink()
    (copy / "surveillance_cameras_distance_2/cam_5/003_cam5_2.jpg").unlink()
    text = refusal(read_scface, copy)
    assert "003_cam4_2.jpg and 1 others of distance 2 are missing" in text


def test_names_and_places_that_contradict(copy):
    def check(name, word):
        source = copy / "surveillance_cameras_distance_1/cam_1/001_cam1_1.jpg"
        (copy / name).parent.mkdir(exist_ok=True)
        shutil.copy(source, copy / name)
        text = refusal(read_scface, copy)
        assert name.lower() in text.lower() and word in text
        (copy / name).unlink()

    check("surveillance_cameras_distance_1/cam_1/001_cam1_2.jpg", "another camera or distance")
    check("surveillance_cameras_distance_1/cam_1/001_cam2_1.jpg", "another camera or distance")
    check("surveillance_cameras_distance_1/cam_1/001_cam1_1.JPG", "a second image")
    check("surveillance_cameras_distance_1/cam_1/1_cam1_1.jpg", "not a name like")
    check("surveillance_cameras_distance_1/cam_1/001_cam9_1.jpg", "not a name like")
    check("surveillance_cameras_distance_1/cam_1/077_cam1_1.jpg", "subject without a mugshot")
    check("mugshot_frontal_cropped_all/001_frontal.jpg", "second mugshot")
    check("mugshot_frontal_cropped_all/001_left.jpg", "not a name like")
    read_scface(copy)


def test_damaged_trees(copy, tmp_path):
    (copy / "surveillance_cameras_distance_3/loose.jpg").touch()
    assert "surveillance_cameras_distance_3: not one folder a camera" in refusal(read_scface, copy)
    shutil.rmtree(copy / "surveillance_cameras_distance_3")
    assert "surveillance_cameras_distance_3: cannot be read" in refusal(read_scface, copy)
    assert "neither" in refusal(read_scface, tmp_path / "absent")


LINE = "001_frontal 10 20 30 20 20 30 20 40"


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("001_frontal 10 20 30 20 20 30 20", "not a name and eight numbers"),
        (LINE + " 1 2 3 4", "not a name and eight numbers"),
        (LINE.replace("10", "ten"), "not a name and eight numbers"),
        (LINE.replace("10", "-10"), "not a name and eight numbers"),
        (LINE.replace("10", "nan"), "not a name and eight numbers"),
        (LINE.replace("10", "1e3"), "not a name and eight numbers"),
        (LINE.replace("10", "\u0661"), "not a name and eight numbers"),
        (LINE + "\n" + LINE, "comes twice"),
        ("001_frontal 20 40 20 30 10 20 30 20", "the mouth is not below the eyes"),
    ],
)
def test_annotations_line_by_line(tmp_path, line, word):
    path = tmp_path / "scface_annotations.txt"
    path.write_text(f"# eyes, nose, mouth\n\n{line}\n")
    text = refusal(read_landmarks, path)
    assert text.startswith(f"{path}, line {3 + line.count(chr(10))}: ") and word in text


def test_annotations_in_any_order_of_points(tmp_path):
    path = tmp_path / "a.txt"
    for line in (LINE, "001_frontal.jpg 30 20 10 20 20 40 20 30"):
        path.write_bytes(line.replace(" ", "\t").encode() + b"\r\n")
        assert read_landmarks(path)["001_frontal"].tolist() == [[10, 20], [30, 20], [20, 30], [20, 40]]


def test_annotations_that_lack_an_image(copy):
    path = copy / "scface_annotations.txt"
    path.write_text("\n".join(line for line in path.read_text().splitlines() if "005_cam2_3" not in line))
    assert f"{path}: no line for 005_cam2_3" in refusal(read_scface, copy)
    path.write_bytes(b"001_frontal \xff")
    assert f"{path}, line 1: not a name and eight numbers" in refusal(read_scface, copy)
    path.unlink()
    path.mkdir()
    assert read_scface(copy).landmarks == {}


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.binary(max_size=100), st.text(alphabet="0123456789. #_\n\r\tabc", max_size=100).map(str.encode)))
def test_any_annotations_give_points_or_a_sentence(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "any.txt"
    path.write_bytes(data)
    try:
        found = read_landmarks(path)
    except UserError as error:
        assert str(error).startswith(str(path))
    else:
        assert all(points.shape == (4, 2) and np.isfinite(points).all() for points in found.values())
