from __future__ import annotations

import shutil

import numpy as np
import pytest
import scipy.io

from lrfr.benchmarks import miniatures, search, tinyface
from lrfr.benchmarks.outcomes import table
from lrfr.benchmarks.tinyface import DISTRACTOR, read_tinyface
from tests.evaluate.embeddings import cosine, failed, from_similarities, lattice, people
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
    """Names come several times, in the training part too: a table by name alone confuses them."""
    found = read_tinyface(original)
    roles = (found.gallery, found.probes, found.distractors)
    keys = [(role.folder.name, name) for role in roles for name in role.names]
    assert len(set(keys)) == len(keys) and ("Probe", "1_3.jpg") in keys
    assert {path.name for path in original.glob("tinyface/Training_Set/*/*")} & set(found.probes.names)


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
    text = refusal(read, test_set)
    assert "probe_img_ID_pairs.mat, entry 1: identity 1 is not in" in text and "gallery_match_img" in text


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


# E2: a tie with a distractor (third probe) and a failed acquisition (fourth)
SIMILARITY = [
    [0.9, 0.3, 0.5, 0.2, 0.6, 0.1],
    [0.2, 0.8, 0.7, 0.1, 0.9, 0.0],
    [0.4, 0.1, 0.2, 0.6, 0.6, 0.3],
    [np.nan] * 6,
]
PROBES, GALLERY = [1, 2, 3, 1], [1, 1, 2, 3]


def e2(similarity=SIMILARITY, labels=PROBES):
    probes, gallery = from_similarities(similarity)
    return tinyface.evaluate(probes, labels, gallery[:4], GALLERY, gallery[4:])


def slow(probes, probe_labels, gallery, gallery_labels, distractors, mates_first=False):
    """The official code's loops over a sorted list, with a rank for each probe and its average precision."""
    images = [(x, label) for x, label in zip(gallery, gallery_labels, strict=True)] + [(x, None) for x in distractors]
    ranks, precisions = [], []
    for probe, person in zip(probes, probe_labels, strict=True):
        rows = []
        for x, label in images:
            mate = label is not None and label == person
            rows.append((-np.inf if failed(x) or failed(probe) else cosine(probe, x), mate))
        if all(score == -np.inf for score, mate in rows if mate):
            ranks.append(np.inf)
            precisions.append(0.0)
            continue
        rows.sort(key=lambda row: (-row[0], row[1] != mates_first))
        good = sum(mate for _, mate in rows)
        old_recall, old_precision, ap, intersect, first = 0.0, 1.0, 0.0, 0, None
        for j, (_, mate) in enumerate(rows):
            if mate:
                intersect += 1
                first = j + 1 if first is None else first
            recall, precision = intersect / good, intersect / (j + 1)
            ap += (recall - old_recall) * ((old_precision + precision) / 2)
            old_recall, old_precision = recall, precision
        ranks.append(first)
        precisions.append(ap)
    return np.array(ranks), np.array(precisions)


def test_e2():
    outcome = e2()
    for row, expected in enumerate([17 / 24, 1 / 6, 0.25, 0]):
        only = np.eye(4)[row]
        assert outcome.statistics["map"](only) == pytest.approx(expected, abs=1e-12)
    assert outcome.metrics["map"] == pytest.approx(0.28125, abs=1e-12)
    assert outcome.metrics["rank1"] == 0.25 and outcome.metrics["rank5"] == 0.75
    assert outcome.metrics["map_optimistic"] == pytest.approx(0.46875, abs=1e-12)
    assert outcome.metrics["rank1_optimistic"] == 0.5
    assert outcome.counts == {
        "probes": 4, "gallery": 4, "distractors": 2, "fta_probes": 1, "fta_gallery": 0, "fta_distractors": 0,
    }  # fmt: skip
    assert not outcome.decisions["rank50"][3]  # a failed probe is a miss at any rank, though the gallery has six images


def test_leaving_a_failed_probe_out_would_flatter():
    outcome = e2(SIMILARITY[:3], PROBES[:3])
    assert outcome.metrics["rank1"] == pytest.approx(1 / 3) and outcome.metrics["map"] == pytest.approx(
        0.375, abs=1e-12
    )


def drawn(seed, exact):
    rng = np.random.default_rng(seed)
    probe_labels, gallery_labels = (
        rng.integers(0, 6, 25),
        rng.permutation(np.repeat(np.arange(6), rng.integers(1, 5, 6))),
    )
    if exact:
        sets = [lattice(rng, size) for size in (25, len(gallery_labels), 40)]
    else:
        sets = [people(rng, labels, 1.5) for labels in (probe_labels, gallery_labels, rng.integers(10, 60, 40))]
    for x in sets:
        x[rng.random(len(x)) < 0.2] = np.nan
    sets[1][gallery_labels == 5] = np.nan  # every mate of one person failed
    return sets[0], probe_labels, sets[1], gallery_labels, sets[2]


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_agrees_with_the_official_loops(seed, exact, monkeypatch):
    monkeypatch.setattr(search, "BLOCK", 11)
    case = drawn(seed, exact)
    outcome = tinyface.evaluate(*case)
    ranks, precisions = slow(*case)
    for k in (1, 5, 10, 20, 50):
        assert outcome.metrics[f"rank{k}"] == pytest.approx(np.mean(ranks <= k), abs=1e-12)
        np.testing.assert_array_equal(outcome.decisions[f"rank{k}"], ranks <= k)
    assert outcome.metrics["map"] == pytest.approx(np.mean(precisions), abs=1e-12)
    ranks, precisions = slow(*case, mates_first=True)
    assert outcome.metrics["rank1_optimistic"] == pytest.approx(np.mean(ranks <= 1), abs=1e-12)
    assert outcome.metrics["map_optimistic"] == pytest.approx(np.mean(precisions), abs=1e-12)
    ones = np.ones(25)
    assert {metric: value(ones) for metric, value in outcome.statistics.items()} == pytest.approx(
        outcome.metrics, abs=1e-12
    )


def test_distractors_are_in_the_gallery():
    """One distractor at the probe itself, in front of the mate: rank 2."""
    outcome = tinyface.evaluate([[1, 0.1]], [7], [[1, 0]], [7], [[1, 0.1]])
    assert outcome.metrics["rank1"] == 0 and outcome.metrics["rank5"] == 1


def test_a_distractor_is_nobody_even_if_its_number_is_a_probes():
    outcome = tinyface.evaluate([[1, 0], [0, 1]], [0, 1], [[1, 0.2], [0.2, 1]], [0, 1], [[1, 0], [0, 1], [1, 1]])
    assert outcome.metrics["rank1"] == 0 and outcome.metrics["rank5"] == 1


def test_a_copy_among_the_distractors_stands_in_front():
    probes, gallery = [[0.3, 0.4, 0.5]], [[0.1, 0.2, 0.9]]
    outcome = tinyface.evaluate(probes, ["ann"], gallery, ["ann"], gallery)
    assert outcome.metrics["rank1"] == 0 and outcome.metrics["rank1_optimistic"] == 1
    assert outcome.metrics["map"] == pytest.approx(0.25) and outcome.metrics["map_optimistic"] == 1


def test_a_perfect_and_a_random_model():
    rng = np.random.default_rng(3)
    probe_labels, gallery_labels, strangers = np.arange(40), np.repeat(np.arange(40), 2), rng.integers(40, 100, 200)
    perfect = tinyface.evaluate(
        *(
            people(rng, x, 0, centres=200) if i % 2 == 0 else x
            for i, x in enumerate((probe_labels,) * 2 + (gallery_labels,) * 2)
        ),
        people(rng, strangers, 0, centres=200),
    )
    assert all(value == 1 for value in perfect.metrics.values())
    n = 2000
    random = tinyface.evaluate(
        rng.normal(size=(n, 64)),
        np.arange(n) % 40,
        rng.normal(size=(80, 64)),
        gallery_labels,
        rng.normal(size=(20, 64)),
    )
    for k in (1, 5):  # two mates among 100: 1 - C(98, k) / C(100, k)
        expected = 1 - np.prod([(98 - i) / (100 - i) for i in range(k)])
        assert random.metrics[f"rank{k}"] == pytest.approx(expected, abs=4 * np.sqrt(expected / n) * 2)


def test_table():
    frame = table({"kd": e2(), "hkdd": e2()})
    assert list(frame.columns[:3]) == ["model", "metric", "value"] and set(frame.fta_probes) == {1}
    assert frame[(frame.model == "hkdd") & (frame.metric == "map")].value.item() == pytest.approx(0.28125, abs=1e-12)


def test_bad_input_is_one_clear_sentence():
    with pytest.raises(ValueError, match="probe 0 has no mate"):
        tinyface.evaluate([[1.0, 0]], [7], [[1.0, 0]], [8], [[1.0, 0]])
    with pytest.raises(ValueError, match="same dimensions"):
        tinyface.evaluate([[1.0, 0]], [7], [[1.0, 0]], [7], [[1.0, 0, 0]])
    with pytest.raises(ValueError, match="one label per row"):
        tinyface.evaluate([[1.0, 0]], [7], [[1.0, 0]], [7, 8], [[1.0, 0]])
