"""The `evaluate` stage: every model, resolution and pairing of a study, in every bootstrap draw.

Protocol `dense`: all pairs of the test people's photographs of a fold, and every search of a low-resolution photograph among
one high-resolution photograph of each test person. Metrics are computed per fold and seed and averaged: scores of two trained
networks are never pooled or thresholded against each other. People are drawn within folds, the same draws for every model.

Writes under runs/<study>/evaluation/:
points.csv  kind, model, pairing, fold, seed, resolution, metric, value: every single measurement;
draws.csv   kind, model, folds, pairing, resolution, metric, value, low, high, interval: means over folds and seeds, one row
            per row of draws.npy; `folds` names the folds of the mean, since a model trained on fewer folds is compared on these;
draws.npy   float32 (rows, draws): the same means in every draw;
counts.csv  fold, searches (0 = pairs, 1 = rank-1), n_genuine, n_impostor, identities, fta.
`kind` is model, or setting for the teachers of tables/teacher.csv.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lrfr.config import Study
from lrfr.data.files import atomic_folder
from lrfr.errors import UserError
from lrfr.evaluate.resampling import DensePairs
from lrfr.evaluate.statistics import identity_counts, percentile
from lrfr.evaluate.verification import balanced_threshold
from lrfr.parallel import parallel_map

TEACHER, SETTINGS = "teacher", "teacher_settings"
REFERENCES = (TEACHER, "random_net", "raw_pixels")  # no training seed: stored under the first one
# Methods that pull each face's embedding towards the teacher's for the same face, so that teacher_lr means something. Attention,
# maps, logits, relations (rkd) and whole clouds of embeddings (mkmmd is blind to who is who) leave the two spaces apart. se_dfd
# matches the teacher with SE gates, whose embeddings are not those that stand in for the teacher here.
MATCHES_EMBEDDINGS = ("feature", "icd_face")
LINEARISED = "identity bootstrap, linearised"  # resampling.DensePairs.agreement
Key = tuple[str, str, str]  # pairing, resolution, metric


class TestFold(NamedTuple):
    """One fold: which rows of the embedding files belong to test and validation people, and the pairs to be scored."""

    rows: int
    test: NDArray[np.int64]
    validation: NDArray[np.int64]
    test_pairs: DensePairs
    validation_pairs: DensePairs


def read_faces(study: Study) -> tuple[pd.DataFrame, pd.DataFrame]:
    """index.csv by image, and folds.csv."""
    return pd.read_csv(study.runs / "index.csv").sort_values("image"), pd.read_csv(study.runs / "folds.csv")


def build_fold(study: Study, number: int) -> TestFold:
    """Rows and pairs of a fold. The draws of a fold depend on (seed, fold, number of people): not on which folds are run."""
    index, folds = read_faces(study)
    role = folds[folds.fold == number].set_index("person").role
    held_out = index[index.person.isin(role.index[role.isin(["validation", "test"])])]
    rows, pairs = {}, {}
    for name, draws in (("test", study.evaluate.draws), ("validation", 0)):
        rows[name] = np.flatnonzero(held_out.person.map(role) == name)
        people, labels = np.unique(held_out.person.to_numpy()[rows[name]], return_inverse=True)
        if len(people) < 2 or len(labels) == len(people):
            raise UserError(
                f"folds.csv: fold {number} has too few {name} people or photographs to compare; change faces in params.yaml."
            )
        pairs[name] = DensePairs(labels, identity_counts(len(people), draws, study.seed, number))
    return TestFold(len(held_out), rows["test"], rows["validation"], pairs["test"], pairs["validation"])


def unit(x: NDArray) -> NDArray[np.float64]:
    """Rows (n, d) at length 1; a zero row stays zero."""
    x = x.astype(np.float64)
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), np.finfo(float).tiny)


def similarity(a: NDArray, b: NDArray) -> NDArray[np.float64]:
    """Negative L2 distances (n, m) of rows (n, d) and (m, d). By einsum, not BLAS, whose sums depend on its threads."""
    squared = (a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * np.einsum("id,jd->ij", a, b, optimize=False)
    return -np.sqrt(np.maximum(squared, 0))


def read_embedding(archive: np.lib.npyio.NpzFile, file: Path, key: str, fold: TestFold) -> NDArray[np.float64]:
    """One array (rows, d) of an embedding file.

    Raises
    ------
    UserError
        if it is missing, has another number of rows than the fold has held-out faces, or is not finite.
    """
    if key not in archive.files:
        raise UserError(f"{file}: holds no '{key}'; run `dvc repro` again.")
    array = archive[key].astype(np.float64)
    if array.ndim != 2 or len(array) != fold.rows:
        raise UserError(f"{file}: '{key}' has shape {array.shape} for {fold.rows} held-out faces; run `dvc repro` again.")
    if not np.isfinite(array).all():
        raise UserError(f"{file}: '{key}' has values that are not finite; look at the log of that model's training.")
    return array


def verify(study: Study, fold: TestFold, similarities: NDArray) -> tuple[dict[str, NDArray], NDArray]:
    """Metrics (1 + draws,) of one fold's test pairs, at the threshold of its validation pairs, and the test scores.

    similarities: (rows, rows), first photograph of a pair in rows. The threshold is part of the system under test: it stays in
    all draws.
    """
    validation = fold.validation_pairs.scores(similarities[np.ix_(fold.validation, fold.validation)])
    threshold = balanced_threshold(validation, fold.validation_pairs.same)
    scores = fold.test_pairs.scores(similarities[np.ix_(fold.test, fold.test)])
    return fold.test_pairs.verification(scores, threshold, study.evaluate.far), scores


def evaluate_cell(study: Study, model: str, number: int, seed: int, fold: TestFold) -> dict[Key, NDArray]:
    """All about one model, fold and seed: (1 + draws,) per pairing, resolution and metric, the first without resampling."""
    file, teacher_file = (study.runs / "embeddings" / f"{name}.npz" for name in (model, TEACHER))
    prefix, teacher_prefix = f"fold{number}/seed{seed}/", f"fold{number}/seed{study.train.seeds[0]}/"
    space = (lambda x: x) if model == TEACHER else unit  # the teacher decides by the L2 distance of its raw vectors
    with np.load(file) as archive, np.load(teacher_file) as teacher:
        embeddings = {r: space(read_embedding(archive, file, prefix + r, fold)) for r in study.resolutions}
        teacher_hr = read_embedding(teacher, teacher_file, teacher_prefix + "hr", fold)
        galleries = {"lr_lr": None, "hr_lr": embeddings["hr"]}
        block = study.models.get(model)
        if block is not None and block.method in MATCHES_EMBEDDINGS and block.teacher == "plain":
            galleries["teacher_lr"] = unit(read_embedding(teacher, teacher_file, teacher_prefix + "standardised", fold))
    teacher_scores = fold.test_pairs.scores(similarity(teacher_hr[fold.test], teacher_hr[fold.test]))
    results: dict[Key, NDArray] = {}
    for resolution, probes in embeddings.items():
        for pairing, gallery in galleries.items():
            if pairing == "hr_lr":
                similarities = similarity(gallery, probes)
                rank1 = fold.test_pairs.identification(similarities[np.ix_(fold.test, fold.test)])
                results[pairing, resolution, "rank1"] = rank1
                if resolution == "hr":
                    continue  # for pairs this is lr_lr again
            else:
                similarities = similarity(probes if gallery is None else gallery, probes)
            metrics, scores = verify(study, fold, similarities)
            results |= {(pairing, resolution, metric): values for metric, values in metrics.items()}
            if pairing == "lr_lr":
                results[pairing, resolution, "agreement"] = fold.test_pairs.agreement(scores, teacher_scores)
    return results


def evaluate_setting(study: Study, setting: str, number: int, fold: TestFold) -> dict[Key, NDArray]:
    """The same for one of the teacher's settings, on raw vectors, low against low resolution only."""
    file = study.runs / "embeddings" / f"{SETTINGS}.npz"
    results: dict[Key, NDArray] = {}
    with np.load(file) as archive:
        for key in archive.files:
            if key.startswith(f"fold{number}/{setting}/"):
                embedding = read_embedding(archive, file, key, fold)
                metrics, _ = verify(study, fold, similarity(embedding, embedding))
                results |= {("lr_lr", key.split("/")[2], metric): values for metric, values in metrics.items()}
    return results


def evaluate_model(study: Study, kind: str, model: str) -> tuple[list[tuple], dict[tuple[Key, int], NDArray]]:
    """Rows of points.csv, and per key and fold the mean over seeds in every draw."""
    numbers = study.folds_of(model) if model in study.models else study.faces.run_folds
    seeds = study.train.seeds if model in study.models else study.train.seeds[:1]
    points, draws = [], {}
    for number in sorted(numbers):
        fold = build_fold(study, number)
        for seed in seeds:
            cell = (
                evaluate_setting(study, model, number, fold)
                if kind == "setting"
                else evaluate_cell(study, model, number, seed, fold)
            )
            for (pairing, resolution, metric), values in cell.items():
                points.append((kind, model, pairing, number, seed, resolution, metric, values[0]))
                key = ((pairing, resolution, metric), number)
                draws[key] = draws.get(key, 0) + values / len(seeds)
    return points, draws


def fold_means(study: Study, results: dict[tuple[str, str], dict]) -> tuple[pd.DataFrame, NDArray[np.float32]]:
    """draws.csv and draws.npy: the means over each set of folds that some model has, for every model that has these folds."""
    fold_sets = sorted({tuple(sorted(study.folds_of(m))) for m in study.models} | {tuple(sorted(study.faces.run_folds))}, key=len)
    people = {number: build_fold(study, number).test_pairs.counts.shape[1] for number in study.faces.run_folds}
    rows, arrays = [], []
    for (kind, model), draws in results.items():
        available = {number for _, number in draws}
        for folds in fold_sets:
            if not available.issuperset(folds):
                continue
            freedom = sum(people[number] - 1 for number in folds)
            for key in dict.fromkeys(key for key, _ in draws):
                values = np.mean([draws[key, number] for number in folds], axis=0)
                undefined = 2 * np.isfinite(values[1:]).sum() < len(values) - 1  # too few people for an interval
                low, high = (np.nan, np.nan) if undefined else percentile(values[1:], study.evaluate.level, freedom)
                method = LINEARISED if key[2] == "agreement" else "identity bootstrap"
                name = " ".join(map(str, folds))
                rows.append((kind, model, name, *key, values[0], low, high, method))
                arrays.append(values[1:].astype(np.float32))
    columns = ["kind", "model", "folds", "pairing", "resolution", "metric", "value", "low", "high", "interval"]
    return pd.DataFrame(rows, columns=columns), np.array(arrays)


def count(study: Study) -> pd.DataFrame:
    """counts.csv: comparisons per fold. fta: test photographs without a detected face (a fallback crop is used)."""
    index, _ = read_faces(study)
    rows = []
    for number in sorted(study.faces.run_folds):
        pairs, (_, folds) = build_fold(study, number).test_pairs, read_faces(study)
        people = pairs.counts.shape[1]
        tested = folds[(folds.fold == number) & (folds.role == "test")].person
        fta = int(index[index.person.isin(tested)].fallback.sum())
        photographs = np.bincount(pairs.labels)
        searches = int(photographs.min() * (len(pairs.labels) - people))
        rows.append((number, 0, int(pairs.same.sum()), int((~pairs.same).sum()), people, fta))
        rows.append((number, 1, searches, searches * (people - 1), people, fta))
    return pd.DataFrame(rows, columns=["fold", "searches", "n_genuine", "n_impostor", "identities", "fta"])


def run(study: Study) -> None:
    """The `evaluate` stage."""
    tasks = [(study, "model", name) for name in (*REFERENCES, *study.models)]
    with np.load(study.runs / "embeddings" / f"{SETTINGS}.npz") as archive:
        tasks += [(study, "setting", name) for name in dict.fromkeys(key.split("/")[1] for key in archive.files)]
    outcomes = parallel_map(evaluate_model, tasks, study.jobs, study.threads, "evaluate")
    points = [row for rows, _ in outcomes for row in rows]
    table, draws = fold_means(study, {(kind, name): d for (_, kind, name), (_, d) in zip(tasks, outcomes, strict=True)})
    with atomic_folder(study.runs / "evaluation") as folder:
        columns = ["kind", "model", "pairing", "fold", "seed", "resolution", "metric", "value"]
        pd.DataFrame(points, columns=columns).to_csv(folder / "points.csv", index=False, lineterminator="\n")
        table.to_csv(folder / "draws.csv", index=False, lineterminator="\n")
        count(study).to_csv(folder / "counts.csv", index=False, lineterminator="\n")
        np.save(folder / "draws.npy", draws)
