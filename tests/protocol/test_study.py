from __future__ import annotations

import shutil

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from lrfr.errors import UserError
from lrfr.evaluate.identification import rank_k
from lrfr.evaluate.statistics import identity_bootstrap
from lrfr.evaluate.verification import (
    area_under_roc,
    balanced_accuracy,
    balanced_threshold,
    equal_error_rate,
    tar_at_far,
    ten_fold_accuracy,
)
from lrfr.protocol import folds
from lrfr.protocol import study as stage
from lrfr.protocol.cells import embedding_file
from tests.protocol import faces


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """The tiny study after the stage; tests read its files."""
    folder = tmp_path_factory.mktemp("study")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        study = faces.tiny_study()
        faces.write_faces(study)
        stage.run(study)
    return folder, study


def read(folder, study, name):
    return pd.read_csv(folder / study.runs / "evaluation" / f"{name}.csv", dtype={"resolution": str, "folds": str})


def held_out(folder, study, fold):
    """People and roles of the rows of an embedding file, by plain loops."""
    index = pd.read_csv(folder / study.runs / "index.csv").sort_values("image")
    folds = pd.read_csv(folder / study.runs / "folds.csv")
    role = {r.person: r.role for r in folds.itertuples() if r.fold == fold}
    people = [p for p in index.person if role[p] != "train"]
    return np.array(people), np.array([role[p] for p in people])


def slow_scores(first, second, rows, people):
    """Scores, kinds and people of all pairs i < j, first photograph of one array, second of the other."""
    out = [
        (-np.linalg.norm(first[i] - second[j]), people[i], people[j]) for n, i in enumerate(rows) for j in rows[n + 1 :]
    ]
    scores, a, b = map(np.array, zip(*out, strict=True))
    return scores, a, b


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@pytest.mark.parametrize("model", ["scratch", "feature", "teacher"])
@pytest.mark.parametrize("pairing", ["lr_lr", "hr_lr", "teacher_lr"])
def test_numbers_are_those_of_the_public_functions(evaluated, model, pairing):
    folder, study = evaluated
    fold, seed, resolution = 1, 0, "8"
    points = read(folder, study, "points").query(
        "kind == 'model' and model == @model and fold == @fold and seed == @seed"
    )
    points = points[(points.pairing == pairing) & (points.resolution == resolution)].set_index("metric").value
    if pairing == "teacher_lr" and model != "feature":
        assert points.empty
        return
    load = lambda name: np.load(folder / embedding_file(study, name))  # noqa: E731
    space = (lambda x: x) if model == "teacher" else unit
    arrays = {r: space(load(model)[f"fold{fold}/seed{seed}/{r}"].astype(float)) for r in ("8", "hr")}
    teacher = load("teacher")[f"fold{fold}/seed0/hr"].astype(float)
    standard = unit(load("teacher")[f"fold{fold}/seed0/standardised"].astype(float))
    first = {"lr_lr": arrays["8"], "hr_lr": arrays["hr"], "teacher_lr": standard}[pairing]
    people, roles = held_out(folder, study, fold)
    rows = {role: np.flatnonzero(roles == role) for role in ("test", "validation")}
    scores, a, b = slow_scores(first, arrays["8"], rows["test"], people)
    validation, va, vb = slow_scores(first, arrays["8"], rows["validation"], people)
    threshold = balanced_threshold(validation, va == vb)
    expected = {
        "eer": equal_error_rate(scores, a == b),
        "auc": area_under_roc(scores, a == b),
        "tar@far=0.01": tar_at_far(scores, a == b, 0.01),
        "accuracy": balanced_accuracy(scores, a == b, threshold),
    }
    if pairing == "lr_lr":
        expected["agreement"] = spearmanr(scores, slow_scores(teacher, teacher, rows["test"], people)[0])[0]
    for metric, value in expected.items():
        assert points[metric] == pytest.approx(value, abs=1e-9), metric


def test_intervals_are_those_of_identity_bootstrap(evaluated):
    """Mean over folds and seeds, people drawn within folds: the public function with the same draws."""
    folder, study = evaluated
    parts = []
    for fold in (0, 1):
        people, roles = held_out(folder, study, fold)
        for seed in faces.SEEDS:
            x = unit(np.load(folder / study.runs / "embeddings/scratch.npz")[f"fold{fold}/seed{seed}/8"].astype(float))
            scores, a, b = slow_scores(x, x, np.flatnonzero(roles == "test"), people)
            parts.append((fold, scores, a + 100 * fold, b + 100 * fold))
    strata = np.concatenate([np.full(len(scores), fold) for fold, scores, _, _ in parts])
    part = np.concatenate([np.full(len(scores), n) for n, (_, scores, _, _) in enumerate(parts)])
    scores, a, b = (np.concatenate([p[k] for p in parts]) for k in (1, 2, 3))

    def mean_of_parts(scores, same, weights):
        return np.mean([equal_error_rate(scores[part == n], same[part == n], weights[part == n]) for n in range(4)])

    slow = identity_bootstrap(
        mean_of_parts, scores, a == b, a, b, strata, study.evaluate.draws, study.evaluate.level, study.seed
    )
    rows = read(folder, study, "draws").query(
        "model == 'scratch' and folds == '0 1' and metric == 'eer' and pairing == 'lr_lr'"
    )
    row = rows[rows.resolution == "8"].iloc[0]
    assert row.value == pytest.approx(slow[0], abs=1e-9) and row.interval == "identity bootstrap"
    assert row.low <= slow[1] + 0.01 and row.high >= slow[2] - 0.01  # and of trainings, see below
    # without the luck of trainings it is the public function's to the last digit
    noise = {("dense", "lr_lr", "8", "eer"): 0.0}
    people = {(protocol, fold): 5 for protocol in ("dense",) for fold in (0, 1)}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        draws = stage.evaluate_model(study, "model", "scratch")[1]
        plain, _ = stage.fold_means(study, {("model", "scratch"): draws}, people, noise)
    found = next(r for r in plain if r[2] == "0 1" and r[3:7] == ("dense", "lr_lr", "8", "eer"))
    np.testing.assert_allclose(np.array(found[7:10], float), slow, atol=1e-9)


def test_an_interval_covers_people_and_trainings(evaluated):
    """The variance of draws is that of people plus that of one training over the number of seeds."""
    folder, study = evaluated
    key, variance = ("dense", "lr_lr", "8", "eer"), 0.04
    people = {("dense", fold): 5 for fold in (0, 1)}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        draws = {name: stage.evaluate_model(study, "model", name)[1] for name in ("scratch", "teacher")}
        found = {}
        for noise in (0.0, variance):
            results = {("model", name): dict(own) for name, own in draws.items()}
            rows, values = stage.fold_means(study, results, people, {key: noise})
            for row, own in zip(rows, values, strict=False):
                if row[2] == "0 1" and row[3:7] == key:
                    found[row[1], noise] = own
    added = found["scratch", variance] - found["scratch", 0.0]
    assert added.var() == pytest.approx(variance / len(faces.SEEDS), rel=0.35)  # 200 draws
    assert np.array_equal(found["teacher", variance], found["teacher", 0.0])  # which nobody trained here
    points = read(folder, study, "points")
    pooled = stage.training_variance(points)[key]
    means = points[
        points.metric.eq("eer") & points.pairing.eq("lr_lr") & points.resolution.eq("8") & points.protocol.eq("dense")
    ]
    by = means[means.kind == "model"].groupby(["model", "seed"]).value.mean().unstack()
    assert pooled == pytest.approx(by.dropna().var(axis=1).mean())


def test_every_measurement_is_there_once(evaluated):
    folder, study = evaluated
    points = read(folder, study, "points")
    keys = ["kind", "model", "pairing", "fold", "seed", "resolution", "metric"]
    assert not points.duplicated(keys).any() and points.value.between(-1, 1).all()
    models = points[points.kind == "model"]
    assert set(models.model) == {"teacher", "random_net", "raw_pixels", *study.models}
    assert set(models[models.model == "kd_tuned_teacher"].fold) == {0}
    assert set(models[models.pairing == "teacher_lr"].model) == {"feature"}
    assert set(models[(models.pairing == "hr_lr") & (models.resolution == "hr")].metric) == {"rank1"}
    assert set(models[models.metric == "rank1"].pairing) == {"hr_lr"}
    assert set(points.protocol) == set(read(folder, study, "draws").protocol) == {"dense"} and "rank5" not in set(
        points.metric
    )
    assert set(points[points.kind == "setting"].model) == {"pretrained", "head", "last_stage"}
    teacher = models[(models.model == "teacher") & (models.metric == "agreement") & (models.resolution == "hr")]
    np.testing.assert_allclose(teacher.value, 1)


def test_values_lie_on_the_lattice_of_their_counts(evaluated):
    """GRIM: a rate of n comparisons is a whole number of n-ths."""
    folder, study = evaluated
    points, counts = read(folder, study, "points"), read(folder, study, "counts")
    pairs, searches = (counts[counts.searches == k].set_index("fold") for k in (0, 1))
    sizes = {
        "rank1": searches.n_genuine,
        "tar@far=0.01": pairs.n_genuine,
        "accuracy": 2 * pairs.n_genuine * pairs.n_impostor,
        "auc": 2 * pairs.n_genuine * pairs.n_impostor,
    }
    for metric, size in sizes.items():
        rows = points[points.metric == metric]
        scaled = rows.value * rows.fold.map(size)
        np.testing.assert_allclose(scaled, scaled.round(), atol=1e-6)
    assert pairs.n_genuine.tolist() == [5 * 6] * 2 and pairs.n_impostor.tolist() == [190 - 30] * 2
    assert searches.n_genuine.tolist() == [4 * 15] * 2 and searches.n_impostor.tolist() == [4 * 15 * 4] * 2
    assert pairs.fta.tolist() == [1, 0]


def small(study, models=("kd",), **changes):
    """The study with few models and draws."""
    evaluate = study.evaluate.model_copy(update={"draws": 20})
    return study.model_copy(
        update={"models": {name: study.models[name] for name in models}, "evaluate": evaluate, **changes}
    )


def test_a_fold_without_people_is_one_clear_sentence(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    study = faces.tiny_study()
    faces.write_faces(study)
    folds = pd.read_csv(study.runs / "folds.csv")
    folds[folds.role != "validation"].to_csv(study.runs / "folds.csv", index=False)
    with pytest.raises(UserError, match="validation of fold 0 has too few people"):
        stage.run(study)


@pytest.fixture(scope="module")
def lfw(tmp_path_factory):
    """The tiny study of every protocol after the stage."""
    folder = tmp_path_factory.mktemp("lfw")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        study = faces.lfw_study()
        faces.write_lfw(study)
        stage.run(study)
    return folder, study


def lfw_rows(folder, study, fold):
    """Image numbers and people of the rows of an embedding file, and the role of each, by plain loops."""
    index = pd.read_csv(folder / study.runs / "index.csv")
    folds = pd.read_csv(folder / study.runs / "folds.csv").query("fold == @fold").sort_values("person")
    images = faces.lfw_rows(index, folds.role.tolist(), study.faces.validation_images)
    people = index.person.to_numpy()[images]
    return images, people, folds.role.to_numpy()[people]


def lfw_points(lfw, fold=1, model="feature", resolution="8"):
    points = read(*lfw, "points").query(
        "kind == 'model' and model == @model and fold == @fold and resolution == @resolution"
    )
    return points.set_index(["protocol", "pairing", "metric"]).value


def lfw_arrays(folder, study, fold=1, model="feature"):
    with np.load(folder / embedding_file(study, model)) as archive:
        names = [*study.resolutions, *(f"misaligned-{r}" for r in ("8", "16", "32"))]
        return {name: unit(archive[f"fold{fold}/seed0/{name}"].astype(float)) for name in names}


def test_lfw_dense_metrics_are_those_of_the_public_functions(lfw):
    folder, study = lfw
    fold, points, arrays = 1, lfw_points(lfw), lfw_arrays(*lfw)
    _, people, roles = lfw_rows(folder, study, fold)
    validation, va, vb = slow_scores(arrays["hr"], arrays["8"], np.flatnonzero(roles == "validation"), people)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        built = folds.build_fold(study, fold)
    rows, pairs = built.test, built.test_pairs
    for person in set(people[roles == "test"]):  # the first four photographs of everybody
        own = np.flatnonzero(people == person)
        assert [r for r in rows if people[r] == person] == own[:4].tolist()
    genuine = [(i, j) for i in range(len(rows)) for j in range(i + 1, len(rows)) if people[rows[i]] == people[rows[j]]]
    listed = list(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True))
    assert [pair for pair, same in zip(listed, pairs.same, strict=True) if same] == genuine
    scores = np.array([-np.linalg.norm(arrays["hr"][rows[i]] - arrays["8"][rows[j]]) for i, j in listed])
    same = people[rows[pairs.first]] == people[rows[pairs.second]]
    expected = {
        "eer": equal_error_rate(scores, same),
        "auc": area_under_roc(scores, same),
        "tar@far=0.1": tar_at_far(scores, same, 0.1),
        "tar@far=0.01": tar_at_far(scores, same, 0.01),
        "accuracy": balanced_accuracy(scores, same, balanced_threshold(validation, va == vb)),
    }
    gallery = [rows[people[rows] == person][0] for person in sorted(set(people[rows]))]
    probes = [r for r in rows if r not in gallery]
    distance = np.array([[-np.linalg.norm(arrays["hr"][g] - arrays["8"][p]) for g in gallery] for p in probes])
    for rank in (1, 5):
        expected[f"rank{rank}"] = rank_k(distance, people[probes], people[gallery], rank)
    assert set(points["dense"]["hr_lr"].index) == set(expected)
    for metric, value in expected.items():
        assert points["dense", "hr_lr", metric] == pytest.approx(value, abs=1e-9), metric
    slow = {
        (i, j): -np.linalg.norm(arrays["misaligned-8"][rows[i]] - arrays["misaligned-8"][rows[j]]) for i, j in listed
    }
    assert set(points["misaligned"]["lr_lr"].index) == {"eer", "auc", "tar@far=0.1", "tar@far=0.01"}
    assert points["misaligned", "lr_lr", "eer"] == pytest.approx(equal_error_rate(list(slow.values()), same), abs=1e-9)
    with np.load(folder / study.runs / "references/teacher.npz") as archive:
        hr = archive["fold1/seed0/hr"].astype(float)
    teacher = [-np.linalg.norm(hr[rows[i]] - hr[rows[j]]) for i, j in listed]
    own = [-np.linalg.norm(arrays["8"][rows[i]] - arrays["8"][rows[j]]) for i, j in listed]
    assert points["dense", "lr_lr", "agreement"] == pytest.approx(spearmanr(own, teacher)[0], abs=1e-9)


@pytest.mark.parametrize("pairing", ["lr_lr", "hr_lr", "teacher_lr"])
def test_lfw_official_metrics_by_loops(lfw, pairing):
    folder, study = lfw
    points, arrays = lfw_points(lfw), lfw_arrays(*lfw)
    images, _, _ = lfw_rows(folder, study, 1)
    with np.load(folder / study.runs / "references/teacher.npz") as archive:
        standard = unit(archive["fold1/seed0/standardised"].astype(float))
    first = {"lr_lr": arrays["8"], "hr_lr": arrays["hr"], "teacher_lr": standard}[pairing]
    table = pd.read_csv(folder / study.runs / "official.csv").query("fold == 1")
    assert set(table.official_fold) == {2, 3}
    row = {image: k for k, image in enumerate(images)}
    distances = np.array(
        [np.sum((first[row[r.image_a]] - arrays["8"][row[r.image_b]]) ** 2) for r in table.itertuples()]
    )
    same, right = table.same.to_numpy() == 1, 0
    for number in (2, 3):
        own = table.official_fold.to_numpy() == number
        cuts = sorted(set(distances[~own]))
        middles = [(a + b) / 2 for a, b in zip(cuts, cuts[1:], strict=False)]
        hits = [sum((distances[~own] <= t) == same[~own]) for t in middles]
        threshold = np.median([t for t, h in zip(middles, hits, strict=True) if h == max(hits)])
        right += sum((distances[own] <= threshold) == same[own])
    assert points["official", pairing, "accuracy"] == pytest.approx(right / len(table), abs=1e-9)
    assert points["official", pairing, "eer"] == pytest.approx(equal_error_rate(-distances, same), abs=1e-9)
    assert points["official", pairing, "auc"] == pytest.approx(area_under_roc(-distances, same), abs=1e-9)


def test_lfw_intervals_are_those_of_the_public_functions(lfw):
    """Protocol dense, one fold and seed: the percentiles of identity_bootstrap on the same pairs."""
    folder, study = lfw
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        pairs, rows = (built := folds.build_fold(study, 0)).test_pairs, built.test
    _, people, _ = lfw_rows(folder, study, 0)
    x = lfw_arrays(folder, study, 0, "kd_tuned_teacher")["16"][rows]
    scores = -np.linalg.norm(x[pairs.first] - x[pairs.second], axis=1)
    a, b = people[rows[pairs.first]], people[rows[pairs.second]]
    slow = identity_bootstrap(equal_error_rate, scores, a == b, a, b, None, study.evaluate.draws, 0.95, study.seed)
    table = read(folder, study, "draws").query("model == 'kd_tuned_teacher' and resolution == '16' and metric == 'eer'")
    row = table.query("protocol == 'dense' and pairing == 'lr_lr' and folds == '0'").iloc[0]
    np.testing.assert_allclose(row[["value", "low", "high"]].astype(float), slow, atol=1e-9)


def test_lfw_every_measurement_is_there_once(lfw):
    folder, study = lfw
    points, draws = read(folder, study, "points"), read(folder, study, "draws")
    assert not points.duplicated(["kind", "model", "protocol", "pairing", "fold", "seed", "resolution", "metric"]).any()
    models = points[points.kind == "model"]
    assert set(models.protocol) == {"dense", "official", "misaligned"} and set(
        points[points.kind == "setting"].protocol
    ) == {"dense"}
    found = models.groupby(["protocol", "pairing"]).metric.agg(set)
    far = {"tar@far=0.1", "tar@far=0.01"}
    assert found["dense", "lr_lr"] == {"accuracy", "eer", "auc", "agreement"} | far
    assert found["dense", "hr_lr"] == {"accuracy", "eer", "auc", "rank1", "rank5"} | far
    assert found["misaligned"].to_dict() == {"lr_lr": {"eer", "auc"} | far}
    assert found["official"].to_dict() == dict.fromkeys(["hr_lr", "lr_lr", "teacher_lr"], {"accuracy", "eer", "auc"})
    assert set(models[models.protocol == "misaligned"].resolution) == {"8", "16", "32"}
    assert set(models[(models.pairing == "hr_lr") & (models.resolution == "hr")].metric) == {"rank1", "rank5"}
    assert set(models[models.pairing == "teacher_lr"].model) == {"feature"}
    assert set(models.model) == {"teacher", "random_net", "raw_pixels", *study.models}
    # draws.npy: the rows of protocol dense, which come first
    values = np.load(folder / study.runs / "evaluation/draws.npy")
    dense = draws.protocol == "dense"
    assert len(values) == dense.sum() and dense[: len(values)].all() and values.shape[1] == study.evaluate.draws
    inside = [
        np.nanmin(v) - 1e-6 <= r.value <= np.nanmax(v) + 1e-6
        for v, r in zip(values, draws[dense].itertuples(), strict=True)
    ]
    assert np.mean(inside) > 0.99
    names = draws.groupby(["protocol", draws.metric == "agreement"]).interval.agg(set)
    assert names["dense", False] == names["misaligned", False] == {"identity bootstrap"}
    assert names["dense", True] == {"identity bootstrap, fixed ranks"} and names["official", False] == {
        "dyadic multiplier"
    }
    assert (draws.low <= draws.value + 1e-9).all() and (draws.value <= draws.high + 1e-9).mean() > 0.99


def test_lfw_values_lie_on_the_lattice_of_their_counts(lfw):
    folder, study = lfw
    points, counts = read(folder, study, "points"), read(folder, study, "counts")
    counts = counts.set_index(["protocol", "searches", "fold"]).sort_index()
    images = [min(4, n) for n in faces.LFW_IMAGES[:12]]
    assert (
        counts.n_genuine["dense", 0, 0] == sum(n * (n - 1) // 2 for n in images)
        and counts.n_impostor["dense", 0, 0] == 150
    )
    assert counts.n_genuine["dense", 1, 0] == sum(images) - 12
    assert counts.n_impostor["dense", 1, 0] == 11 * (sum(images) - 12)
    assert counts.identities["dense", 0, 0] == 12 and counts.fta["dense", 0, 0] == 1 and counts.fta["dense", 0, 1] == 0
    assert counts.loc["misaligned"].equals(counts.loc["dense"].loc[[0]])
    assert (
        counts.loc["official"][["n_genuine", "n_impostor"]].to_numpy().tolist() == [[2 * faces.OFFICIAL_KIND] * 2] * 2
    )
    assert (counts.loc["official"].identities <= 12).all()
    sizes = {
        ("official", "accuracy"): lambda c: c.n_genuine + c.n_impostor,
        ("official", "auc"): lambda c: 2 * c.n_genuine * c.n_impostor,
        ("dense", "tar@far=0.01"): lambda c: c.n_genuine,
        ("misaligned", "tar@far=0.1"): lambda c: c.n_genuine,
        ("dense", "rank1"): lambda c: c.n_genuine,
        ("dense", "rank5"): lambda c: c.n_genuine,
    }
    for (protocol, metric), size in sizes.items():
        rows = points[(points.protocol == protocol) & (points.metric == metric)]
        counted = counts.loc[(protocol, int(metric.startswith("rank")))]
        scaled = rows.value * rows.fold.map(size(counted))
        assert len(rows) and np.abs(scaled - scaled.round()).max() < 1e-6


def test_view_2_of_the_pretrained_teacher(lfw):
    folder, study = lfw
    row = read(folder, study, "draws").query("protocol == 'view2'")
    assert len(row) == 1
    row = row.iloc[0]
    assert (row.kind, row.model, row.folds, row.pairing, row.resolution) == (
        "setting",
        "pretrained",
        "all",
        "lr_lr",
        "hr",
    )
    table = pd.read_csv(folder / study.runs / "official.csv")  # written in the order of the official folds
    with np.load(folder / study.runs / "references/teacher_settings.npz") as archive:
        place = {image: k for k, image in enumerate(archive["view2_images"])}
        x = archive["view2"].astype(float)
    distances = [np.sum((x[place[r.image_a]] - x[place[r.image_b]]) ** 2) for r in table.itertuples()]
    assert row.value == pytest.approx(ten_fold_accuracy(distances, table.same == 1, "exact").mean, abs=1e-12)
    assert row.low < row.value < row.high and row.interval == "dyadic multiplier"


def test_processes_and_order_of_folds_change_nothing(lfw, tmp_path, monkeypatch):
    folder, study = lfw
    monkeypatch.chdir(tmp_path)
    shutil.copytree(folder / study.runs, study.runs)
    written = []
    for jobs, run_folds in ((1, (0, 1)), (2, (1, 0))):
        order = study.faces.model_copy(update={"run_folds": run_folds})
        stage.run(small(study, ("scratch", "feature"), jobs=jobs, faces=order))
        written.append({path.name: path.read_bytes() for path in (study.runs / "evaluation").iterdir()})
    assert written[0] == written[1]


@pytest.mark.parametrize(
    ("file", "key", "damage", "words"),
    [
        ("kd", "fold0/seed0/8", None, "kd.npz: holds no 'fold0/seed0/8'"),
        ("kd", "fold0/seed0/8", lambda x: x[:-1], "held-out faces"),
        ("kd", "fold0/seed0/8", lambda x: x * np.nan, "not finite"),
        ("kd", "fold1/seed0/misaligned-16", None, "kd.npz: holds no 'fold1/seed0/misaligned-16'"),
        ("teacher_settings", "view2_images", None, "holds no 'view2_images'"),
        ("teacher_settings", "view2", None, "holds no 'view2'"),
    ],
)
def test_a_damaged_embedding_file_is_one_clear_sentence(lfw, tmp_path, monkeypatch, file, key, damage, words):
    folder, study = lfw
    monkeypatch.chdir(tmp_path)
    shutil.copytree(folder / study.runs, study.runs)
    shutil.rmtree(study.runs / "evaluation")
    path = embedding_file(study, file)
    with np.load(path) as archive:
        arrays = dict(archive)
    array = arrays.pop(key)
    np.savez(path, **arrays if damage is None else arrays | {key: damage(array)})
    with pytest.raises(UserError, match=words):
        stage.run(small(study))
    assert not (study.runs / "evaluation").exists()
