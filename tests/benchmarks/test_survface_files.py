import shutil

import numpy as np
import pytest
import scipy.io

from lrfr.benchmarks import miniatures
from lrfr.benchmarks.survface_files import STRANGER, read_search, read_training, read_verification
from tests.gate.refusals import refusal


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sets") / "surv"
    miniatures.write_survface(folder)
    return folder


@pytest.fixture
def copy(original, tmp_path):
    shutil.copytree(original, tmp_path / "copy")
    return tmp_path / "copy" / "QMUL-SurvFace"


def change(path, **variables):
    """Replace variables of a list."""
    content = {key: value for key, value in scipy.io.loadmat(path).items() if not key.startswith("__")}
    scipy.io.savemat(path, content | variables)


def variable(path, name):
    return scipy.io.loadmat(path)[name]


def cell(text):
    return np.array([text])


def test_search_roles_and_counts(original):
    found = read_search(original)
    assert found.gallery.names[:4] == ("101_cam2_1.jpg", "101_cam3_2.jpg", "101_cam1_3.jpg", "102_cam2_1.jpg")
    assert found.gallery.ids.tolist() == np.repeat(range(1, 8), 3).tolist()
    assert found.mated.ids.tolist() == np.repeat(range(1, 8), 2).tolist()
    assert sorted(found.unmated.ids.tolist()) == sorted(
        [STRANGER] * 6 + [100 + p for p in range(8, 12) for _ in range(5)]
    )
    counts = {count.what: (count.observed, count.published) for count in found.counts}
    assert counts["gallery images"] == (21, 60294) and counts["mated probes"] == (14, 60423)
    assert counts["unmated probes"] == (26, 121736) and counts["people in the gallery"] == (7, 3000)
    assert counts["unmated probes without a person's number"] == (6, None)
    assert found.mated.read(0).shape == (24, 20, 3)


def test_verification_pairs_and_counts(original):
    found = read_verification(original / "QMUL-SurvFace")
    assert found.pairs.shape == (40, 2) and found.pairs.dtype == np.int64
    assert found.same.tolist() == [True] * 20 + [False] * 20
    people = found.faces.ids[found.pairs]
    assert np.array_equal(people[:, 0] == people[:, 1], found.same)
    assert [found.faces.names[i] for i in found.pairs[0]] == ["101_cam2_1.jpg", "101_cam1_3.jpg"]
    assert [(count.observed, count.published) for count in found.counts] == [(20, 5320), (20, 5320), (50, 10051)]


def test_training(original):
    found = read_training(original)
    assert [(count.observed, count.published) for count in found.counts] == [(32, 220890), (8, 5319)]
    assert found.people[0] == "117" and found.faces.ids[-1] == 7


def test_a_training_person_in_the_test(copy):
    for role in ("gallery", "mated_probe", "unmated_probe"):
        shutil.copy(
            copy / "training_set/117/117_cam2_1.jpg", copy / "Face_Identification_Test_Set" / role / "117_cam2_1.jpg"
        )
        assert f"{role}/117_cam2_1.jpg: its person is in" in refusal(read_training, copy)
        (copy / "Face_Identification_Test_Set" / role / "117_cam2_1.jpg").unlink()
    read_training(copy)


def test_lists_with_the_evaluation_code(copy):
    (copy / "Face_Identification_Evaluation").mkdir()
    name = "gallery_img_ID_pairs.mat"
    (copy / "Face_Identification_Test_Set" / name).rename(copy / "Face_Identification_Evaluation" / name)
    assert len(read_search(copy).gallery) == 21


def test_gallery_and_mated_probes_are_the_same_people(copy):
    folder = copy / "Face_Identification_Test_Set"
    for role, other, variables in (("mated_probe", "gallery", 2), ("gallery", "mated_probe", 3)):
        path = folder / f"{role}_img_ID_pairs.mat"
        kept = path.read_bytes()
        names, ids = variable(path, f"{role}_set"), variable(path, f"{role}_ids")
        gone = [cell.item() for cell in names[:variables, 0]]
        data = [(folder / role / name).read_bytes() for name in gone]
        for name in gone:
            (folder / role / name).unlink()
        change(path, **{f"{role}_set": names[variables:], f"{role}_ids": ids[variables:]})
        text = refusal(read_search, copy)
        assert f"{other}_img_ID_pairs.mat, entry 1: identity 1 is not in" in text and f"{role}_img_ID_pairs.mat" in text
        path.write_bytes(kept)
        for name, content in zip(gone, data, strict=True):
            (folder / role / name).write_bytes(content)
    read_search(copy)


def test_a_person_has_one_number_and_one_identity(copy):
    path = copy / "Face_Identification_Test_Set" / "mated_probe_img_ID_pairs.mat"
    ids = variable(path, "mated_probe_ids")
    change(path, mated_probe_ids=np.concatenate([ids[2:4], ids[2:]]))
    assert f"{path}, entry 1: '101_cam2_4.jpg' has identity 2" in refusal(read_search, copy)


def test_unmated_probes_are_of_nobody_in_the_gallery(copy):
    folder = copy / "Face_Identification_Test_Set"
    shutil.copy(folder / "unmated_probe/108_cam2_1.jpg", folder / "unmated_probe/101_cam9_9.jpg")
    assert "unmated_probe/101_cam9_9.jpg: person 101 is in the gallery" in refusal(read_search, copy)
    (folder / "unmated_probe/101_cam9_9.jpg").rename(folder / "unmated_probe/nobody.jpg")
    assert "the name 'nobody.jpg' does not start" in refusal(read_search, copy)


def test_one_file_in_gallery_and_probes(copy):
    folder = copy / "Face_Identification_Test_Set"
    path = folder / "mated_probe_img_ID_pairs.mat"
    shutil.copy(folder / "gallery/101_cam2_1.jpg", folder / "mated_probe/101_cam2_1.jpg")
    names = np.array([*[c.item() for c in variable(path, "mated_probe_set").ravel()], "101_cam2_1.jpg"], dtype=object)
    ids = np.append(variable(path, "mated_probe_ids"), 1).astype(np.uint16)
    change(path, mated_probe_set=names[:, None], mated_probe_ids=ids[:, None])
    assert "the same file is in gallery and mated_probe" in refusal(read_search, copy)


def test_pairs_are_checked_entry_by_entry(copy):
    folder = copy / "Face_Verification_Test_Set"
    positive, negative = folder / "positive_pairs_names.mat", folder / "negative_pairs_names.mat"
    good = variable(positive, "positive_pairs_names")

    def check(word, row, column, text):
        pairs = good.copy()
        pairs[row, column] = cell(text)
        change(positive, positive_pairs_names=pairs)
        found = refusal(read_verification, copy)
        assert f"{positive}" in found and f"entry {row + 1}: " in found and word in found

    check("'999_cam1_1.jpg' is not in", 4, 1, "999_cam1_1.jpg")
    check("a positive pair of two people", 0, 0, "102_cam2_1.jpg")
    check("not the name of a file", 7, 0, "../gallery/101_cam2_1.jpg")
    change(positive, positive_pairs_names=good[:-1])
    assert "19 positive and 20 negative pairs" in refusal(read_verification, copy)
    change(positive, positive_pairs_names=good)
    change(negative, negative_pairs_names=good)
    assert f"{negative}, entry 1: a negative pair of one person" in refusal(read_verification, copy)
    change(negative, negative_pairs_names=np.concatenate([good, good], axis=1))
    assert "2 column(s)" in refusal(read_verification, copy)
    negative.unlink()
    assert f"{negative}: cannot be read (No such file" in refusal(read_verification, copy)


def test_other_roots(tmp_path):
    for read in (read_search, read_verification, read_training):
        assert f"{tmp_path}: no folder" in refusal(read, tmp_path)
