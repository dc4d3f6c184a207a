"""The `evaluate` stage: every model, resolution and pairing of a study, in every bootstrap draw.

Protocols:
dense       pairs of the first `dense_images` photographs of a fold's test people (of impostor pairs perhaps a sample),
            and every search of a low-resolution photograph among one high-resolution photograph of each test person;
official    LFW's own list, View 2; further test sets and lists bear their own names (see lrfr.protocol.folds);
misaligned  the pairs of `dense`, low against low resolution, of faces whose landmarks were moved at random;
dense-camera and the like: the same pairs of faces that a camera has spoiled.
view2       all ten official folds, for the pretrained teacher at high resolution, which is the same for all folds.

Metrics are averaged over folds and seeds: scores of two networks are never pooled. All models meet the same draws of
people; where some models have several seeds, draws are of trainings too (`fold_means`).

Writes under runs/<study>/evaluation/:
points.csv  POINTS: every single measurement (but view2);
draws.csv   DRAWS: means over folds and seeds, `dense` first; `folds` names the folds of the mean, since a model trained
            on fewer folds is compared on these;
draws.npy   float32 (rows, draws): the same means in every draw, of the rows of draws.csv with the pairs of `dense`;
counts.csv  protocol, fold, searches (0 = pairs, 1 = identification), n_genuine, n_impostor, identities, fta.
`kind` is model, or setting for the teachers of tables/teacher.csv.
"""

from hashlib import sha256

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lrfr.config import Study
from lrfr.errors import UserError
from lrfr.evaluate.bootstrap import FIXED_RANKS, LINEARISED
from lrfr.evaluate.statistics import dyadic_ends, percentile
from lrfr.files import atomic_folder, write_table
from lrfr.parallel import parallel_map
from lrfr.protocol.cells import (
    REFERENCES,
    SETTINGS,
    START,
    Key,
    embedding_file,
    evaluate_cell,
    evaluate_setting,
    read_embedding,
)
from lrfr.protocol.folds import DENSE, VIEW2, all_official, build_fold, count, official_accuracy
from lrfr.streams import stream
from lrfr.train.trainings import folds_of, seeds_of, with_arms

CELL = ["protocol", "pairing", "resolution", "metric"]
POINTS = ["kind", "model", "protocol", "pairing", "fold", "seed", "resolution", "metric", "value"]
DRAWS = ["kind", "model", "folds", *CELL, "value", "low", "high", "interval"]


def evaluate_model(study: Study, kind: str, model: str) -> tuple[list[tuple], dict[tuple[Key, int], NDArray]]:
    """Rows of points.csv, and per key and fold the mean over seeds in every draw."""
    trained = model in study.models
    seeds = seeds_of(study, model) if trained else study.train.seeds[:1]
    points, draws = [], {}
    for number in sorted(folds_of(study, model) if trained else study.faces.run_folds):
        fold = build_fold(study, number)
        for seed in seeds:
            if kind == "setting":
                cell = evaluate_setting(study, model, number, fold)
            else:
                cell = evaluate_cell(study, model, number, seed, fold)
            for key, values in cell.items():
                points.append((kind, model, *key[:2], number, seed, *key[2:], values[0]))
                draws[key, number] = draws.get((key, number), 0) + values / len(seeds)
    return points, draws


def interval(study: Study, key: Key, values: NDArray, freedom: int) -> tuple[float, float, str]:
    """Ends and name of a mean's interval, from its values (1 + draws,), or (1 + 2 draws,) of a published list."""
    if len(values) == 1 + 2 * study.evaluate.draws:
        return *dyadic_ends(float(values[0]), *np.split(values[1:], 2), study.evaluate.level), "dyadic multiplier"
    name = "identity bootstrap"
    if key[-1] == "agreement":
        name = LINEARISED if study.evaluate.impostors is None else FIXED_RANKS
    if 2 * np.isfinite(values[1:]).sum() < len(values) - 1:  # too few people for an interval
        return np.nan, np.nan, name
    return *percentile(values[1:], study.evaluate.level, freedom), name


def training_variance(points: pd.DataFrame) -> dict[Key, float]:
    """How far apart two trainings are that differ in their seed alone: the variance over a model's seeds, of its means
    over folds, pooled over the models with several seeds; empty where there is none. points: as points.csv.
    """
    means = points[points.kind == "model"].groupby(["model", *CELL, "seed"]).value.mean()
    return means.groupby(["model", *CELL]).var().dropna().groupby(CELL).mean().to_dict()


def training_draws(study: Study, model: str) -> NDArray[np.float64]:
    """Standard normal numbers (draws,) of a model, which stand for the luck of its trainings in every draw."""
    number = int.from_bytes(sha256(model.encode()).digest()[:5], "big")
    return stream("trainings", study.seed, number).standard_normal(study.evaluate.draws)


def fold_means(
    study: Study,
    results: dict[tuple[str, str], dict],
    people: dict[tuple[str, int], int],
    variance: dict[Key, float],
) -> tuple[list, NDArray]:
    """Rows of draws.csv, and draws.npy: means over each set of folds that some model has, of each model with these.

    results: by kind and model, as of `evaluate_model`. people: test people by protocol and fold. variance: as of
    `training_variance`. A draw is of people, and of trainings: to the mean of n seeds it adds normal noise of variance
    / n, independent for each model, so that an interval covers both, and so does that of a difference (our choice).
    """
    models = (folds_of(study, name) for name in study.models)
    fold_sets = {tuple(sorted(folds)) for folds in (study.faces.run_folds, *models)}
    rows, arrays = [], []
    for (kind, model), draws in results.items():
        available = {number for _, number in draws}
        trained = kind == "arm" or (kind == "model" and model in study.models)
        luck = training_draws(study, model) if trained else np.zeros(study.evaluate.draws)
        seeds = len(seeds_of(study, model)) if trained else 1
        for folds in (some for some in sorted(fold_sets, key=len) if available.issuperset(some)):
            for key in dict.fromkeys(key for key, _ in draws):
                freedom = sum(people.get((key[0], number), 1) - 1 for number in folds)
                values = np.mean([draws[key, number] for number in folds], axis=0)
                if len(values) == 1 + len(luck):  # a published list is compared with nothing
                    values[1:] += np.sqrt(variance.get(key, 0.0) / seeds) * luck
                ends = interval(study, key, values, freedom)
                rows.append((kind, model, " ".join(map(str, folds)), *key, values[0], *ends))
                if key[0].split("-")[0] == DENSE:
                    arrays.append(values[1:].astype(np.float32))
    return sorted(rows, key=lambda row: row[3].split("-")[0] != DENSE), np.array(arrays)


def view2(study: Study) -> tuple:
    """The row of draws.csv for all official pairs, with the pretrained teacher at high resolution."""
    file = embedding_file(study, SETTINGS)
    with np.load(file) as archive:
        if "view2_images" not in archive.files:
            raise UserError(f"{file}: holds no 'view2_images'; run `dvc repro` again.")
        images = archive["view2_images"]
        x = read_embedding(archive, file, VIEW2, len(images))
    pairs = all_official(study, images)
    values = official_accuracy(pairs, ((x[pairs.first] - x[pairs.second]) ** 2).sum(1))
    key = (VIEW2, "lr_lr", "hr", "accuracy")
    return ("setting", "pretrained", "all", *key, values[0], *interval(study, key, values, 0))


def run(study: Study) -> None:
    """The `evaluate` stage."""
    start = [] if study.student.start is None else [START]
    tasks = [(study, "model", name) for name in (*REFERENCES, *start, *study.references, *study.models)]
    tasks += [(with_arms(study), "arm", name) for name in study.run_arms]
    with np.load(embedding_file(study, SETTINGS)) as archive:
        settings = dict.fromkeys(key.split("/")[1] for key in archive.files if "/" in key)
    tasks += [(study, "setting", name) for name in settings]
    counts = count(study)
    people = counts[counts.searches == 0].set_index(["protocol", "fold"]).identities.to_dict()
    outcomes = parallel_map(evaluate_model, tasks, study.jobs, study.threads, "evaluate")
    results = {(kind, name): draws for (_, kind, name), (_, draws) in zip(tasks, outcomes, strict=True)}
    points = pd.DataFrame([row for rows, _ in outcomes for row in rows], columns=POINTS)
    means, draws = fold_means(study, results, people, training_variance(points))
    if study.evaluate.official and not study.faces.tests:  # which test all of View 2 anyway
        means.append(view2(study))
    tables = {"points": points, "draws": pd.DataFrame(means, columns=DRAWS), "counts": counts}
    with atomic_folder(study.runs / "evaluation") as folder:
        for name, table in tables.items():
            write_table(folder / f"{name}.csv", table)
        np.save(folder / "draws.npy", draws)
