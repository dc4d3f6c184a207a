from __future__ import annotations

import shutil

import numpy as np
import pytest
import scipy.io

from lrfr.benchmarks import miniatures, search, survface
from lrfr.benchmarks.survface import STRANGER, read_survface
from tests.evaluate.embeddings import cosine, failed, from_similarities, lattice, people
from tests.evaluate.test_verification import DISTANCES, KINDS
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
    found = read_survface(original)
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
    found = read_survface(original / "QMUL-SurvFace")
    assert found.pairs.shape == (40, 2) and found.pairs.dtype == np.int64
    assert found.same.tolist() == [True] * 20 + [False] * 20
    people = found.verification.ids[found.pairs]
    assert np.array_equal(people[:, 0] == people[:, 1], found.same)
    assert [found.verification.names[i] for i in found.pairs[0]] == ["101_cam2_1.jpg", "101_cam1_3.jpg"]
    assert [(count.observed, count.published) for count in found.counts[:3]] == [(20, 5320), (20, 5320), (50, 10051)]


def test_lists_with_the_evaluation_code(copy):
    (copy / "Face_Identification_Evaluation").mkdir()
    name = "gallery_img_ID_pairs.mat"
    (copy / "Face_Identification_Test_Set" / name).rename(copy / "Face_Identification_Evaluation" / name)
    assert len(read_survface(copy).gallery) == 21


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
        text = refusal(read_survface, copy)
        assert f"{other}_img_ID_pairs.mat, entry 1: identity 1 is not in" in text and f"{role}_img_ID_pairs.mat" in text
        path.write_bytes(kept)
        for name, content in zip(gone, data, strict=True):
            (folder / role / name).write_bytes(content)
    read_survface(copy)


def test_a_person_has_one_number_and_one_identity(copy):
    path = copy / "Face_Identification_Test_Set" / "mated_probe_img_ID_pairs.mat"
    ids = variable(path, "mated_probe_ids")
    change(path, mated_probe_ids=np.concatenate([ids[2:4], ids[2:]]))
    assert f"{path}, entry 1: '101_cam2_4.jpg' has identity 2" in refusal(read_survface, copy)


def test_unmated_probes_are_of_nobody_in_the_gallery(copy):
    folder = copy / "Face_Identification_Test_Set"
    shutil.copy(folder / "unmated_probe/108_cam2_1.jpg", folder / "unmated_probe/101_cam9_9.jpg")
    assert "unmated_probe/101_cam9_9.jpg: person 101 is in the gallery" in refusal(read_survface, copy)
    (folder / "unmated_probe/101_cam9_9.jpg").rename(folder / "unmated_probe/nobody.jpg")
    assert "the name 'nobody.jpg' does not start" in refusal(read_survface, copy)


def test_one_file_in_gallery_and_probes(copy):
    folder = copy / "Face_Identification_Test_Set"
    path = folder / "mated_probe_img_ID_pairs.mat"
    shutil.copy(folder / "gallery/101_cam2_1.jpg", folder / "mated_probe/101_cam2_1.jpg")
    names = np.array([*[c.item() for c in variable(path, "mated_probe_set").ravel()], "101_cam2_1.jpg"], dtype=object)
    ids = np.append(variable(path, "mated_probe_ids"), 1).astype(np.uint16)
    change(path, mated_probe_set=names[:, None], mated_probe_ids=ids[:, None])
    assert "the same file is in gallery and mated_probe" in refusal(read_survface, copy)


def test_pairs_are_checked_entry_by_entry(copy):
    folder = copy / "Face_Verification_Test_Set"
    positive, negative = folder / "positive_pairs_names.mat", folder / "negative_pairs_names.mat"
    good = variable(positive, "positive_pairs_names")

    def check(word, row, column, text):
        pairs = good.copy()
        pairs[row, column] = cell(text)
        change(positive, positive_pairs_names=pairs)
        found = refusal(read_survface, copy)
        assert f"{positive}" in found and f"entry {row + 1}: " in found and word in found

    check("'999_cam1_1.jpg' is not in", 4, 1, "999_cam1_1.jpg")
    check("a positive pair of two people", 0, 0, "102_cam2_1.jpg")
    check("not the name of a file", 7, 0, "../gallery/101_cam2_1.jpg")
    change(positive, positive_pairs_names=good[:-1])
    assert "19 positive and 20 negative pairs" in refusal(read_survface, copy)
    change(positive, positive_pairs_names=good)
    change(negative, negative_pairs_names=good)
    assert f"{negative}, entry 1: a negative pair of one person" in refusal(read_survface, copy)
    change(negative, negative_pairs_names=np.concatenate([good, good], axis=1))
    assert "2 column(s)" in refusal(read_survface, copy)
    negative.unlink()
    assert f"{negative}: cannot be read (No such file" in refusal(read_survface, copy)


def test_other_roots(copy, tmp_path):
    shutil.rmtree(copy / "Face_Identification_Test_Set")
    assert f"{copy}: no folder Face_Identification_Test_Set" in refusal(read_survface, copy)
    assert f"{tmp_path}: no folder" in refusal(read_survface, tmp_path)


TOPS = (0.40, 0.66, 0.52, 0.45, 0.31, 0.48, 0.58, 0.22, 0.36, 0.62)
MATED = [[0.9, 0.2, 0.1], [0.3, 0.7, 0.65], [0.6, 0.1, 0.55], [0.35, 0.5, 0.3], [0.1, 0.85, 0.2]]
RATES = (0.3, 0.1, 0.01, 0.001)


def placed(distances):
    """Two images a pair, on a circle: rows 2i and 2i + 1 have distance i and a hair, lest rounding cross the grid."""
    distances = np.asarray(distances, dtype=float)
    angle = 2 * np.arcsin(np.where(np.isinf(distances), 0, distances + 1e-9) / 2)
    images = np.stack([np.ones_like(angle), np.zeros_like(angle), np.cos(angle), np.sin(angle)], axis=1).reshape(-1, 2)
    images[np.repeat(np.isinf(distances), 2)] = np.nan
    return images


def at_distances(distances, same):
    """The outcome of pairs at these distances; inf = failed."""
    rows = np.arange(2 * len(same)).reshape(-1, 2)
    return survface.verification(placed(distances), rows[same], rows[~np.asarray(same)])


def test_e3():
    outcome = at_distances(DISTANCES, KINDS)
    interpolated = [outcome.metrics[f"tar_interpolated@far={rate:g}"] for rate in RATES]
    assert interpolated == pytest.approx([0.85, 0.70, 0.36, 0.306], abs=1e-12)
    conservative = [outcome.metrics[f"tar@far={rate:g}"] for rate in RATES]
    assert conservative == pytest.approx([0.85, 0.70, 0.30, 0.30], abs=1e-12)
    assert outcome.metrics["auc"] == pytest.approx(0.85, abs=1e-12)
    assert outcome.metrics["accuracy"] == pytest.approx(0.70, abs=1e-12)
    right = outcome.decisions["accuracy"].reshape(2, 10, 2)  # a fold has two pairs of each kind
    expected = [0.5, 0.75, 1, 0.5, 0.5, 0.75, 1, 1, 0.5, 0.5]
    np.testing.assert_allclose(right.mean(axis=(0, 2)), expected, rtol=0, atol=1e-12)
    assert (outcome.counts["genuine"], outcome.counts["impostor"], outcome.counts["fta_pairs"]) == (20, 20, 0)


def slow_verification(genuine, impostor):
    """The MATLAB code's steps by loops: thresholds, ROC, interpolation between distinct FARs, trapezoids, ten folds."""
    grid = [k / 1000 for k in range(200, 2001)]
    roc = {0.0: 0.0}  # FAR -> the largest TAR there
    area, old = 0.0, (0.0, 0.0)
    for t in [*grid, np.inf]:
        far, tar = (sum(d < t or t == np.inf for d in kind) / len(kind) for kind in (impostor, genuine))
        area += (far - old[0]) * (tar + old[1]) / 2
        old, roc[far] = (far, tar), max(tar, roc.get(far, 0.0))
    values = {"auc": area}
    for rate in RATES:
        below, above = max(f for f in roc if f <= rate), min(f for f in roc if f > rate)
        share = (rate - below) / (above - below)
        values[f"tar_interpolated@far={rate:g}"] = roc[below] + share * (roc[above] - roc[below])
        allowed = [t for t in [*impostor, np.inf] if sum(d < t for d in impostor) / len(impostor) <= rate + 1e-12]
        values[f"tar@far={rate:g}"] = sum(d < max(allowed) for d in genuine) / len(genuine)
    accuracies, size = [], len(genuine) // 10

    def right(t, indices):
        return sum((genuine[i] < t) + (impostor[i] >= t) for i in indices)

    for fold in range(10):
        test = range(fold * size, (fold + 1) * size)
        train = [i for i in range(10 * size) if i not in test]
        best = max(grid, key=lambda t: right(t, train))  # max takes the first
        accuracies.append(right(best, test) / (2 * size))
    return values | {"accuracy": float(np.mean(accuracies)), "accuracy_std": float(np.std(accuracies))}


def drawn_pairs(seed, size=30):
    """Images, and the rows of as many genuine and impostor pairs; some images failed."""
    rng = np.random.default_rng(seed)
    images = people(rng, np.repeat(np.arange(20), 3), 0.9)
    images[rng.choice(60, 5, replace=False)] = np.nan
    positive = np.array([3 * k + rng.choice(3, 2, replace=False) for k in rng.integers(0, 20, size)])
    negative = np.array([3 * rng.choice(20, 2, replace=False) + rng.integers(0, 3, 2) for _ in range(size)])
    return images, positive, negative


@pytest.mark.parametrize("seed", range(3))
def test_verification_agrees_with_loops(seed):
    images, positive, negative = drawn_pairs(seed)
    distances = [
        [np.inf if failed(images[[i, j]]) else float(np.linalg.norm(images[i] / np.linalg.norm(images[i].astype(float))
         - images[j] / np.linalg.norm(images[j].astype(float)))) for i, j in pairs]
        for pairs in (positive, negative)
    ]  # fmt: skip
    outcome = survface.verification(images, positive, negative)
    assert outcome.metrics == pytest.approx(slow_verification(*distances), abs=1e-12)
    ones = np.ones(60)
    for metric, statistic in outcome.statistics.items():
        assert statistic(ones) == pytest.approx(outcome.metrics[metric], abs=1e-12)
    assert outcome.counts["fta_images"] == 5 and outcome.counts["fta_pairs"] == np.isinf(distances).sum() > 0


def test_weights_are_repetitions():
    images, positive, negative = drawn_pairs(7)
    outcome = survface.verification(images, positive, negative)
    times = np.random.default_rng(0).integers(0, 4, 60)
    repeated = survface.verification(
        images, *(np.repeat(p, times[s], axis=0) for p, s in ((positive, slice(30)), (negative, slice(30, 60))))
    )
    for metric in set(outcome.statistics) - {"accuracy"}:  # whose folds would be others
        assert outcome.statistics[metric](times) == pytest.approx(repeated.metrics[metric], abs=1e-12)


def test_a_failed_pair_is_never_accepted():
    """Ten genuine and ten impostor pairs, apart; one genuine image fails."""
    distances, same = np.repeat([0.5, 1.5], 10), np.repeat([True, False], 10)
    assert at_distances(distances, same).metrics["accuracy"] == 1
    distances[3] = np.inf
    metrics = at_distances(distances, same).metrics
    assert metrics["accuracy"] == pytest.approx(0.95) and metrics["tar@far=0.3"] == pytest.approx(0.9)
    distances[10:] = np.inf  # a failed impostor pair is rejected, not left out
    assert at_distances(distances, same).metrics["tar@far=0.001"] == pytest.approx(0.9)


def e4(rank=1, unmated=TOPS, monkeypatch=None):
    """Gallery images A, B, C; unmated probes resemble A."""
    similarity = np.vstack([MATED, [[t, 0, 0] for t in unmated]])
    probes, gallery = from_similarities(similarity)
    monkeypatch.setattr(survface, "RANK", rank)
    return survface.identification(gallery, list("ABC"), probes[:5], list("ABCAB"), probes[5:])


@pytest.mark.parametrize(("rank", "expected"), [(1, (0.6, 0.6, 0.6, 0.6)), (2, (0.8, 0.6, 0.6, 0.6))])
def test_e4(rank, expected, monkeypatch):
    outcome = e4(rank, monkeypatch=monkeypatch)
    found = [outcome.metrics[f"tpir{rank}@fpir={fpir:g}"] for fpir in (0.3, 0.2, 0.1, 0.01)]
    assert found == pytest.approx(expected, abs=1e-12)
    assert outcome.metrics["rank1"] == pytest.approx(0.6, abs=1e-12)


def slow_identification(gallery, gallery_labels, mated, mated_labels, unmated):
    """Templates, searches and rates by loops."""
    templates = {}
    for person in sorted(set(gallery_labels)):
        images = [
            x.astype(float)
            for x, label in zip(gallery, gallery_labels, strict=True)
            if label == person and not failed(x)
        ]
        templates[person] = sum(images) / len(images) if images else None

    def score(probe, person):
        return -np.inf if failed(probe) or templates[person] is None else cosine(probe, templates[person])

    tops = [max(score(probe, person) for person in templates) for probe in unmated]
    own, ranks = [], []
    for probe, label in zip(mated, mated_labels, strict=True):
        own.append(score(probe, label))
        ranks.append(1 + sum(score(probe, person) >= own[-1] for person in templates if person != label))
    values = {f"rank{k}": np.mean([r <= k and o > -np.inf for r, o in zip(ranks, own, strict=True)]) for k in (1, 20)}
    for fpir in (0.3, 0.2, 0.1, 0.01):
        threshold = min(t for t in tops if sum(top > t for top in tops) / len(tops) <= fpir + 1e-12)
        found = [r <= 20 and o > threshold for r, o in zip(ranks, own, strict=True)]
        values[f"tpir20@fpir={fpir:g}"] = np.mean(found)
    wins = [
        (o > t) + 0.5 * (o == t) if r <= 20 and o > -np.inf else 0
        for r, o in zip(ranks, own, strict=True)
        for t in tops
    ]  # as the area under TPIR20 over FPIR
    return values | {"tpir20_auc": np.mean(wins)}


def drawn_search(seed, ties):
    rng = np.random.default_rng(seed)
    labels = [np.concatenate([np.arange(30), rng.integers(0, 30, extra)]) for extra in (30, 20)]
    if ties:
        sets = [lattice(rng, size) for size in (60, 50, 40)]
    else:
        sets = [people(rng, x, 1.0) for x in (*labels, rng.integers(30, 99, 40))]
    for x in sets:
        x[rng.random(len(x)) < 0.15] = np.nan
    sets[0][labels[0] == 4] = np.nan  # a person without a template
    return sets[0], labels[0], sets[1], labels[1], sets[2]


@pytest.mark.parametrize("ties", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_identification_agrees_with_loops(seed, ties, monkeypatch):
    monkeypatch.setattr(search, "BLOCK", 17)
    case = drawn_search(seed, ties)
    outcome = survface.identification(*case)
    assert outcome.metrics == pytest.approx(slow_identification(*case), abs=1e-12)
    ones = np.ones(90)
    assert {metric: value(ones) for metric, value in outcome.statistics.items()} == pytest.approx(
        outcome.metrics, abs=1e-12
    )
    times = np.random.default_rng(seed).integers(0, 4, 90)
    repeated = survface.identification(
        *case[:2], *(np.repeat(x, times[:50], axis=0) for x in case[2:4]), np.repeat(case[4], times[50:], axis=0)
    )
    assert {metric: value(times) for metric, value in outcome.statistics.items()} == pytest.approx(
        repeated.metrics, abs=1e-12
    )
    assert outcome.counts["templates"] == 30 and outcome.counts["fta_templates"] >= 1
    for part, x in (("gallery", case[0]), ("mated", case[2]), ("unmated", case[4])):
        assert outcome.counts[f"fta_{part}"] == np.isnan(x).all(axis=1).sum() > 0


def test_unmated_probes_never_join_the_gallery():
    """A stranger on top of a mated probe raises the threshold, not the rank."""
    gallery, mated = np.eye(3), np.array([[1.0, 0.1, 0]])
    outcome = survface.identification(gallery, [0, 1, 2], mated, [0], [[1.0, 0.1, 0], [0.1, 0.2, 1.0]])
    assert outcome.metrics["rank1"] == 1
    assert outcome.metrics["tpir20@fpir=0.3"] == 0  # its score is that of a stranger who must be rejected
    assert outcome.metrics["tpir20_auc"] == pytest.approx((0.5 + 1) / 2)  # ties with that stranger, beats the other


def test_templates_are_means_of_what_was_acquired(monkeypatch):
    gallery = np.array([[1, 0, 0], [0, 0, 3], [0, 1, 0], [np.nan] * 3, [np.nan] * 3], dtype=np.float32)
    asked = []
    monkeypatch.setattr(survface, "search", lambda *arguments: asked.append(arguments) or search.search(*arguments))
    outcome = survface.identification(gallery, list("baabc"), np.eye(3), list("abc"), np.eye(3))
    _, means, _, people = asked[0]
    assert list(people) == ["a", "b", "c"] and outcome.counts["fta_templates"] == 1
    np.testing.assert_array_equal(means, [[0, 0.5, 1.5], [1, 0, 0], [np.nan] * 3])


def test_a_failed_stranger_counts_and_a_failed_mate_misses():
    gallery = np.eye(2)
    nan = [np.nan, np.nan]
    outcome = survface.identification(gallery, [0, 1], [[1, 0.1], nan], [0, 1], [[1, 0], nan, nan, nan])
    assert outcome.metrics["tpir20@fpir=0.3"] == 0.5  # one of four strangers may pass
    assert outcome.metrics["tpir20@fpir=0.2"] == 0 and outcome.metrics["rank20"] == 0.5


def test_bad_input_is_one_clear_sentence():
    gallery = np.eye(2)
    with pytest.raises(ValueError, match="no mate"):
        survface.identification(gallery, [0, 1], gallery, [0, 2], gallery)
    with pytest.raises(ValueError, match="one label per row"):
        survface.identification(gallery, [0], gallery, [0, 1], gallery)
    with pytest.raises(ValueError, match="10 pairs of each kind"):
        survface.verification(gallery, [[0, 0]] * 10, [[0, 1]] * 9)
