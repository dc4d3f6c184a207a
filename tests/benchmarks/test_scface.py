from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lrfr.benchmarks import miniatures, scface, search
from lrfr.benchmarks.scface import read_landmarks, read_scface
from lrfr.errors import UserError
from tests.evaluate.embeddings import cosine, failed, lattice, people
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


NAN = [np.nan] * 3
FIRST, TOTAL = [1, 7, 10, 13, 14, 17, 18, 23, 24, 25], 5623  # of the subjects that split 0 tests


def test_e5():
    probes = [[0.6, 0.5, 0.1], [0.7, 0.6, 0.2], NAN, [0.9, 0.1, 0], [0.4, 0.4, 0.1], [0.1, 0.2, 0.8], *np.eye(3)]
    outcome = scface.evaluate(np.eye(3), [1, 2, 3], probes, [1, 2, 3] * 3, np.repeat([1, 2, 3], 3))
    for distance, strict, lax in ((1, 1 / 3, 1 / 3), (2, 2 / 3, 1), (3, 1, 1)):
        assert outcome.metrics[f"rank1@d{distance}"] == pytest.approx(strict, abs=1e-12)
        assert outcome.metrics[f"rank1@d{distance}_optimistic"] == pytest.approx(lax, abs=1e-12)
        assert outcome.counts[f"probes@d{distance}"] == 3 and outcome.counts[f"fta@d{distance}"] == (distance == 1)
    decisions = [outcome.decisions[f"rank1@d{distance}"] for distance in (1, 2, 3)]
    np.testing.assert_array_equal(decisions, [[1, 0, 0], [1, 0, 1], [1, 1, 1]])


def drawn(seed, ties=False, subjects=26):
    """Two cameras and three distances; failed probes and a failed mugshot."""
    rng = np.random.default_rng(seed)
    names = 100 + rng.permutation(subjects)
    probe_subjects, distances = np.tile(np.repeat(names, 2), 3), np.repeat([1, 2, 3], 2 * subjects)
    if ties:
        gallery, probes = lattice(rng, subjects), lattice(rng, len(distances))
    else:
        gallery = people(rng, names - 100, 0.2)
        probes = people(rng, probe_subjects - 100, 0.3) + (rng.normal(size=(len(distances), 8)) / distances[:, None])
    probes[rng.random(len(probes)) < 0.1] = np.nan
    gallery[4] = np.nan
    return gallery, names, probes, probe_subjects, distances


def slow(gallery, names, probes, probe_subjects, distances, optimistic=False):
    """Rank-1 by distance, by loops; a tie is lost unless optimistic."""
    right = {}
    for probe, subject, distance in zip(probes, probe_subjects, distances, strict=True):
        scores = {
            n: -np.inf if failed(x) or failed(probe) else cosine(x, probe) for n, x in zip(names, gallery, strict=True)
        }
        own = scores.pop(subject)
        best = max(scores.values())
        right.setdefault(distance, []).append(own > best or (optimistic and own == best and own > -np.inf))
    return {distance: np.mean(hits) for distance, hits in right.items()}


@pytest.mark.parametrize("ties", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_loops(seed, ties, monkeypatch):
    monkeypatch.setattr(search, "BLOCK", 10)
    case = drawn(seed, ties)
    outcome = scface.evaluate(*case)
    for ending, lax in (("", False), ("_optimistic", True)):
        for distance, value in slow(*case, lax).items():
            assert outcome.metrics[f"rank1@d{distance}{ending}"] == pytest.approx(value, abs=1e-12)
    ones = np.ones(len(case[2]))
    assert {metric: value(ones) for metric, value in outcome.statistics.items()} == pytest.approx(
        outcome.metrics, abs=1e-12
    )
    assert outcome.counts["fta_gallery"] == 1
    for distance in (1, 2, 3):
        assert not outcome.decisions[f"rank1@d{distance}"][case[3][case[4] == distance] == case[1][4]].any()
    fta = sum(outcome.counts[f"fta@d{distance}"] for distance in (1, 2, 3))
    assert fta == np.isnan(case[2]).all(axis=1).sum() > 0


def test_the_denominator_is_fixed():
    """A face that was not found is a miss of 52, and leaving its row out is refused."""
    gallery, names, probes, probe_subjects, distances = drawn(0)
    outcome = scface.evaluate(gallery, names, probes, probe_subjects, distances)
    assert [outcome.counts[f"probes@d{d}"] for d in (1, 2, 3)] == [52, 52, 52]
    assert outcome.metrics["rank1@d1"] * 52 == pytest.approx(round(outcome.metrics["rank1@d1"] * 52), abs=1e-9)
    kept = ~np.isnan(probes).all(axis=1)
    with pytest.raises(ValueError, match="never left out"):
        scface.evaluate(gallery, names, probes[kept], probe_subjects[kept], distances[kept])


def test_failed_mugshots_are_never_found():
    """Not even by an optimistic sort among nothing but failed mugshots."""
    for subjects in (1, 2):
        names = np.arange(subjects)
        outcome = scface.evaluate([NAN] * subjects, names, np.eye(3)[:subjects], names, np.ones(subjects, dtype=int))
        assert outcome.metrics == {"rank1@d1": 0, "rank1@d1_optimistic": 0}


def test_splits_are_the_published_ones_and_differ():
    subjects = np.arange(1, 131)
    first, second = (scface.tested_subjects(subjects, split) for split in (0, 1))
    assert len(first) == len(second) == 80 and not np.array_equal(first, second)
    assert first[:10].tolist() == FIRST and first.sum() == TOTAL  # publications name them: they never change
    np.testing.assert_array_equal(scface.tested_subjects(subjects[::-1], 0), first)
    lines = ["split,subject,role"]
    for split in range(scface.SPLITS):
        tested = scface.tested_subjects(subjects, split)
        lines += [f"{split},{subject},{'test' if subject in tested else 'train'}" for subject in subjects]
    published = Path(__file__).parents[2] / "docs" / "benchmarks" / "scface-splits.csv"
    assert published.read_text(encoding="utf-8").splitlines() == lines


def test_splits_search_among_their_own_people_only(monkeypatch):
    monkeypatch.setattr(scface, "SPLITS", 2)
    case = drawn(2)
    outcome = scface.evaluate_splits(*case)
    values = []
    for split in (0, 1):
        tested = scface.tested_subjects(case[1], split)
        assert len(tested) == 16
        g, p = np.isin(case[1], tested), np.isin(case[3], tested)
        values.append(slow(case[0][g], case[1][g], case[2][p], case[3][p], case[4][p]))
    for distance in (1, 2, 3):
        both = [value[distance] for value in values]
        assert outcome.metrics[f"rank1@d{distance}"] == pytest.approx(np.mean(both), abs=1e-12)
        assert outcome.metrics[f"rank1@d{distance}_sd"] == pytest.approx(np.std(both, ddof=1), abs=1e-12)
        statistic = outcome.statistics[f"rank1@d{distance}"]
        assert statistic(np.ones(len(case[2]))) == pytest.approx(np.mean(both), abs=1e-12)
    assert outcome.counts["probes@d1"] == 32 and outcome.counts["subjects"] == 16


def test_bad_input_is_one_clear_sentence():
    gallery, names, probes, probe_subjects, distances = drawn(0)
    with pytest.raises(ValueError, match="several gallery images"):
        scface.evaluate(gallery, np.where(names == 100, 101, names), probes, probe_subjects, distances)
    with pytest.raises(ValueError, match="no gallery image"):
        scface.evaluate(gallery[1:], names[1:], probes, probe_subjects, distances)
    with pytest.raises(ValueError, match="one distance per row"):
        scface.evaluate(gallery, names, probes, probe_subjects, distances[:-1])
