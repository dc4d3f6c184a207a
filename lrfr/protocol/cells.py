"""One model in one fold: every resolution and pairing, in every protocol."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lrfr.config import Study
from lrfr.errors import UserError
from lrfr.evaluate.scores import similarity, unit
from lrfr.evaluate.verification import balanced_threshold
from lrfr.methods import METHODS
from lrfr.protocol.folds import DENSE, MISPLACED, TestFold, conditions, official_metrics, under

TEACHER, SETTINGS = "teacher", "teacher_settings"
REFERENCES = (TEACHER, "random_net", "raw_pixels")  # no training seed: stored under the first one
START = "start"  # so is the network that students start from, before any training of this study
Key = tuple[str, str, str, str]  # protocol, pairing, resolution, metric


def embedding_file(study: Study, name: str) -> Path:
    """Where the stage `embed` wrote a trained model's embeddings, and `references` everybody else's."""
    known = (*REFERENCES, START, SETTINGS, *study.references)
    return study.runs / ("references" if name in known else "embeddings") / f"{name}.npz"


def read_embedding(archive: np.lib.npyio.NpzFile, file: Path, key: str, rows: int) -> NDArray[np.float64]:
    """One array (rows, d) of an embedding file; UserError if it is missing, or not of that shape and finite."""
    if key not in archive.files:
        raise UserError(f"{file}: holds no '{key}'; run `dvc repro` again.")
    array = archive[key].astype(np.float64)
    if array.ndim != 2 or len(array) != rows:
        raise UserError(f"{file}: '{key}' has shape {array.shape} for {rows} held-out faces; run `dvc repro` again.")
    if not np.isfinite(array).all():
        raise UserError(f"{file}: '{key}' has values that are not finite; look at the log of that model's training.")
    return array


def verify(study: Study, fold: TestFold, protocol: str, gallery: NDArray, probes: NDArray) -> tuple[dict, NDArray]:
    """Metrics (1 + draws,) of a dense protocol at the validation pairs' threshold, and the pairs' similarities.

    gallery, probes: (rows, d). The threshold is part of the system under test: it stays in all draws.
    """
    chosen, validation = fold.dense[protocol], fold.validation
    scored, similarities = (similarity(gallery[c.rows], probes[c.rows]) for c in (validation, chosen))
    threshold = balanced_threshold(validation.pairs.scores(scored), validation.pairs.same)
    return chosen.pairs.verification(chosen.pairs.scores(similarities), threshold, study.evaluate.far), similarities


def evaluate_pairing(
    study: Study, fold: TestFold, pairing: str, resolution: str, gallery: NDArray, probes: NDArray
) -> dict[tuple[str, str], NDArray]:
    """All protocols of one pairing at one resolution, by protocol and metric, but for `agreement`."""
    found: dict[tuple[str, str], NDArray] = {}
    for protocol, (rows, pairs) in fold.dense.items():
        if pairing == "hr_lr" and resolution == "hr":  # for pairs this is lr_lr again
            metrics, similarities = {}, similarity(gallery[rows], probes[rows])
        else:
            metrics, similarities = verify(study, fold, protocol, gallery, probes)
        if pairing == "hr_lr":
            ranks = (1,) if study.evaluate.impostors is None else (1, 5)  # among ten people rank 5 says little
            metrics = {f"rank{k}": pairs.identification(similarities, k) for k in ranks} | metrics
        found |= {(protocol, metric): values for metric, values in metrics.items()}
    if not (pairing == "hr_lr" and resolution == "hr"):
        for protocol, listed in fold.lists.items():
            metrics = official_metrics(listed, gallery[fold.rows.test], probes[fold.rows.test])
            found |= {(protocol, metric): values for metric, values in metrics.items()}
    return found


def evaluate_cell(study: Study, model: str, number: int, seed: int, fold: TestFold) -> dict[Key, NDArray]:
    """All about one model, fold and seed: (1 + draws,) by key, first of the data themselves; lists: 1 + 2 draws."""
    file, teacher_file = embedding_file(study, model), embedding_file(study, TEACHER)
    prefix, teacher_prefix = f"fold{number}/seed{seed}/", f"fold{number}/seed{study.train.seeds[0]}/"
    fed = (TEACHER, *study.references)  # stored in the space in which their L2 distance decides
    space = (lambda x: x) if model in fed else unit
    pairs, size = fold.test_pairs, len(fold.rows.images)
    results: dict[Key, NDArray] = {}
    with np.load(file) as archive, np.load(teacher_file) as teacher:
        hr = space(read_embedding(archive, file, prefix + "hr", size))
        sharp = read_embedding(teacher, teacher_file, teacher_prefix + "hr", size)[fold.test]
        teacher_scores = pairs.scores(similarity(sharp, sharp))
        galleries = {"lr_lr": None, "hr_lr": hr}
        block = study.models.get(model)
        if block is not None and METHODS[block.method].matches_embeddings and block.teacher == "plain":
            galleries["teacher_lr"] = unit(read_embedding(teacher, teacher_file, teacher_prefix + "standardised", size))
        for condition, resolutions in conditions(study).items():
            for resolution in resolutions:
                key = f"{condition}-{resolution}" if condition else resolution
                probes = hr if key == "hr" else space(read_embedding(archive, file, prefix + key, size))
                if condition == MISPLACED:
                    x = probes[fold.test]
                    metrics = pairs.verification(pairs.scores(similarity(x, x)), None, study.evaluate.far)
                    results |= {(MISPLACED, "lr_lr", resolution, metric): values for metric, values in metrics.items()}
                    continue
                for pairing, gallery in galleries.items() if not condition else (("lr_lr", None), ("hr_lr", hr)):
                    first = probes if gallery is None else gallery
                    found = evaluate_pairing(study, fold, pairing, resolution, first, probes)
                    if pairing == "lr_lr" and not condition:
                        scores = pairs.scores(similarity(probes[fold.test], probes[fold.test]))
                        found[DENSE, "agreement"] = pairs.agreement(scores, teacher_scores)
                    for (protocol, metric), values in found.items():
                        results[under(protocol, condition), pairing, resolution, metric] = values
    return results


def evaluate_setting(study: Study, setting: str, number: int, fold: TestFold) -> dict[Key, NDArray]:
    """The same for one of the teacher's settings, on raw vectors, low against low resolution only."""
    file, results = embedding_file(study, SETTINGS), dict[Key, NDArray]()
    with np.load(file) as archive:
        for key in archive.files:
            if key.startswith(f"fold{number}/{setting}/"):
                embedding = read_embedding(archive, file, key, len(fold.rows.images))
                metrics, _ = verify(study, fold, DENSE, embedding, embedding)
                results |= {(DENSE, "lr_lr", key.split("/")[2], metric): values for metric, values in metrics.items()}
    return results
