import shutil

import numpy as np
import pytest
import scipy.io

from lrfr.benchmarks import miniatures
from lrfr.benchmarks.tinyface_files import DISTRACTOR, read_tinyface, read_training
from tests.gate.refusals import refusal


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sets") / "tiny"
    miniatures.write_tinyface(folder)
    return folder


@pytest.fixture
def test_set(original, tmp_path):
    """A copy of the test part that may be damaged."""
    shutil.copytree(original, tmp_path / "copy")
    return tmp_path / "copy" / "tinyface" / "Testing_Set"


def write_list(path, names, ids, variable="probe"):
    cells = np.array(names, dtype=object)[:, None]
    scipy.io.savemat(path, {f"{variable}_set": cells, f"{variable}_ids": np.array(ids, np.uint16)[:, None]})


def lists(test_set, role="probe", variable="probe"):
    """The names and identities of a list, and a function that writes the list again."""
    path = test_set / f"{role}_img_ID_pairs.mat"
    content = scipy.io.loadmat(path)
    names = [cell.item() for cell in content[f"{variable}_set"].ravel()]
    return names, content[f"{variable}_ids"].ravel().tolist(), lambda n, i: write_list(path, n, i, variable)


def read(test_set):
    return read_tinyface(test_set.parents[1])


def test_roles_and_counts(original):
    found = read_tinyface(original)
    assert found.probes.names[:4] == ("1_3.jpg", "1_4.jpg", "1_5.jpg", "2_3.jpg")
    assert found.probes.ids.tolist() == np.repeat(range(1, 9), 3).tolist() and found.probes.ids.dtype == np.int64
    assert found.gallery.ids.tolist() == np.repeat(range(1, 9), 2).tolist()
    assert len(found.distractors) == 40 and set(found.distractors.ids.tolist()) == {DISTRACTOR}
    counts = {count.what: (count.observed, count.published) for count in found.counts}
    assert counts["probes"] == (24, 3728) and counts["gallery images with a mate"] == (16, 4443)
    assert counts["distractors"] == (40, 153428) and counts["genuine pairs"] == (8 * 2 * 3, 12308)
    assert counts["people among the probes"] == (8, 2569)
    assert found.probes.read(0).shape == (20, 16, 3)


def test_images_are_keyed_by_folder_and_name(original):
    """Names come several times: a table by name alone gives a training face another person's role."""
    found, training = read_tinyface(original), read_training(original)
    roles = (found.gallery, found.probes, found.distractors)
    keys = [key for role in roles for key in role.keys]
    assert len(set(keys)) == len(keys) and ("Probe", "1_3.jpg") in keys
    assert {name.split("/")[1] for name in training.faces.names} & set(found.probes.names)
    assert [count.observed for count in training.counts] == [32, 8] and training.counts[0].published == 7804


def test_the_root_may_be_either_folder(original):
    assert read_tinyface(original / "tinyface").probes.names == read_tinyface(original).probes.names


def test_the_lists_may_lie_with_the_code(test_set):
    other = test_set.parent / "Face_Identification_Evaluation"
    other.mkdir()
    (test_set / "probe_img_ID_pairs.mat").rename(other / "probe_img_ID_pairs.mat")
    assert len(read(test_set).probes) == 24
    (other / "probe_img_ID_pairs.mat").unlink()
    assert "probe_img_ID_pairs.mat: cannot be read (No such file" in refusal(read, test_set)


def test_the_order_is_that_of_the_list(test_set):
    names, ids, save = lists(test_set)
    save(names[::-1], ids[::-1])
    assert read(test_set).probes.names == tuple(names[::-1]) and read(test_set).probes.ids.tolist() == ids[::-1]


def test_folder_and_list_must_agree(test_set):
    names, ids, save = lists(test_set)
    save(names[:-1] + ["9_9.jpg"], ids)
    text = refusal(read, test_set)
    assert "probe_img_ID_pairs.mat, entry 24: " in text and "9_9.jpg" in text
    save(names[:-1], ids[:-1])
    assert "Probe/8_5.jpg: this file" in refusal(read, test_set)
    save([*names, names[0]], [*ids, ids[0]])
    assert "entry 25: '1_3.jpg' is listed twice" in refusal(read, test_set)
    save(names, ids)
    (test_set / "Probe" / "8_5.jpg").unlink()
    assert "entry 24: '8_5.jpg'" in refusal(read, test_set)


def test_identities_must_fit_names_and_gallery(test_set):
    names, ids, save = lists(test_set)
    save(names, [2, *ids[1:]])
    assert "probe_img_ID_pairs.mat, entry 1: '1_3.jpg' has identity 2" in refusal(read, test_set)
    save(names, [77, *ids[1:]])  # an identity that nobody else has
    assert "probe_img_ID_pairs.mat, entry 1: '1_3.jpg' has identity 77" in refusal(read, test_set)
    (test_set / "Probe" / "1_3.jpg").rename(test_set / "Probe" / "99_3.jpg")  # a number that nobody else has
    save(["99_3.jpg", *names[1:]], ids)
    assert "probe_img_ID_pairs.mat, entry 1: '99_3.jpg' has identity 1" in refusal(read, test_set)
    (test_set / "Probe" / "99_3.jpg").rename(test_set / "Probe" / "1_3.jpg")
    save(names, [0, *ids[1:]])
    assert "probe_ids, entry 1: 0.0 is no person's number" in refusal(read, test_set)
    save(names, ids)
    gallery, gallery_ids, save_gallery = lists(test_set, "gallery_match", "gallery")
    for name in gallery[:2]:
        (test_set / "Gallery_Match" / name).unlink()
    save_gallery(gallery[2:], gallery_ids[2:])
    assert "probe_img_ID_pairs.mat, entry 1: identity 1 is not in the gallery" in refusal(read, test_set)


def test_names_without_a_number(test_set):
    names, ids, save = lists(test_set)
    (test_set / "Probe" / names[0]).rename(test_set / "Probe" / "anna.jpg")
    save(["anna.jpg", *names[1:]], ids)
    assert "entry 1: the name 'anna.jpg'" in refusal(read, test_set)


def test_one_file_in_gallery_and_probes(test_set):
    names, ids, save = lists(test_set)
    shutil.copy(test_set / "Gallery_Match" / "1_1.jpg", test_set / "Probe" / "1_1.jpg")
    save([*names, "1_1.jpg"], [*ids, 1])
    assert "Gallery_Match/1_1.jpg: the same file is in Gallery_Match and Probe" in refusal(read, test_set)
    (test_set / "Probe" / "1_1.jpg").rename(test_set / "Probe" / "1_99.jpg")
    save([*names, "1_99.jpg"], [*ids, 1])
    counts = {count.what: count.observed for count in read(test_set).counts}
    assert counts["gallery images identical to a probe"] == 1 and counts["distractors identical to a probe"] == 0


def test_other_things_in_the_folders(test_set):
    (test_set / "Gallery_Distractor" / "list.txt").touch()
    assert "Gallery_Distractor/list.txt: not an image" in refusal(read, test_set)
    shutil.rmtree(test_set / "Gallery_Distractor")
    assert "Gallery_Distractor: cannot be read" in refusal(read, test_set)


def test_other_roots(tmp_path):
    assert "no folder Testing_Set" in refusal(read_tinyface, tmp_path)
    (tmp_path / "tinyface.zip").touch()
    assert "unpack it first" in refusal(read_tinyface, tmp_path / "tinyface.zip")


def test_a_damaged_image_is_named_when_it_is_read(test_set):
    (test_set / "Probe" / "1_3.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    found = read(test_set)
    assert "Probe/1_3.jpg: " in refusal(found.probes.read, 0)
