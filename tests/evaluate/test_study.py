from __future__ import annotations

import hashlib

import numpy as np
import pandas as pd
import pytest

from lrfr.errors import UserError
from lrfr.evaluate import study as stage
from lrfr.evaluate.agreement import spearman
from lrfr.evaluate.statistics import identity_bootstrap
from lrfr.evaluate.verification import area_under_roc, balanced_accuracy, balanced_threshold, equal_error_rate, tar_at_far
from tests.evaluate import faces


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
    out = [(-np.linalg.norm(first[i] - second[j]), people[i], people[j]) for n, i in enumerate(rows) for j in rows[n + 1 :]]
    scores, a, b = map(np.array, zip(*out, strict=True))
    return scores, a, b


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@pytest.mark.parametrize("model", ["scratch", "feature", "teacher"])
@pytest.mark.parametrize("pairing", ["lr_lr", "hr_lr", "teacher_lr"])
def test_numbers_are_those_of_the_public_functions(evaluated, model, pairing):
    folder, study = evaluated
    fold, seed, resolution = 1, 0, "8"
    points = read(folder, study, "points").query("kind == 'model' and model == @model and fold == @fold and seed == @seed")
    points = points[(points.pairing == pairing) & (points.resolution == resolution)].set_index("metric").value
    if pairing == "teacher_lr" and model != "feature":
        assert points.empty
        return
    load = lambda name: np.load(folder / study.runs / "embeddings" / f"{name}.npz")  # noqa: E731
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
        expected["agreement"] = spearman(scores, slow_scores(teacher, teacher, rows["test"], people)[0])
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

    slow = identity_bootstrap(mean_of_parts, scores, a == b, a, b, strata, study.evaluate.draws, study.evaluate.level, study.seed)
    rows = read(folder, study, "draws").query("model == 'scratch' and folds == '0 1' and metric == 'eer' and pairing == 'lr_lr'")
    row = rows[rows.resolution == "8"].iloc[0]
    np.testing.assert_allclose(row[["value", "low", "high"]].astype(float), slow, atol=1e-9)
    assert row.interval == "identity bootstrap"


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


def fingerprints(folder):
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())}


def test_processes_and_order_of_folds_change_nothing(evaluated, tmp_path, monkeypatch):
    folder, study = evaluated
    monkeypatch.chdir(tmp_path)
    other = faces.tiny_study(jobs=2, run_folds=(1, 0)).model_copy(
        update={"models": {k: v for k, v in study.models.items() if v.folds == "all"}}
    )
    reference = faces.tiny_study().model_copy(update={"models": other.models})
    faces.write_faces(reference)
    stage.run(reference)
    before = fingerprints(reference.runs / "evaluation")
    stage.run(other)
    assert fingerprints(reference.runs / "evaluation") == before


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda arrays: arrays.pop("fold0/seed0/8"), "holds no 'fold0/seed0/8'"),
        (lambda arrays: arrays.update({"fold0/seed0/8": arrays["fold0/seed0/8"][:-1]}), "held-out faces"),
        (lambda arrays: arrays["fold0/seed0/8"].fill(np.nan), "not finite"),
    ],
)
def test_a_damaged_embedding_file_is_one_clear_sentence(tmp_path, monkeypatch, damage, words):
    monkeypatch.chdir(tmp_path)
    study = faces.tiny_study()
    faces.write_faces(study)
    file = study.runs / "embeddings" / "scratch.npz"
    with np.load(file) as archive:
        arrays = {key: archive[key].copy() for key in archive.files}
    damage(arrays)
    np.savez(file, **arrays)
    with pytest.raises(UserError, match=words):
        stage.run(study)
    assert not (study.runs / "evaluation").exists()


def test_a_fold_without_people_is_one_clear_sentence(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    study = faces.tiny_study()
    faces.write_faces(study)
    folds = pd.read_csv(study.runs / "folds.csv")
    folds[folds.role != "validation"].to_csv(study.runs / "folds.csv", index=False)
    with pytest.raises(UserError, match="too few validation people"):
        stage.run(study)
