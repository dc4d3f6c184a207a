"""One model in one fold: every resolution and pairing, in every protocol."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lrfr.config import Study
from lrfr.errors import UserError
from lrfr.evaluate.scores import similarity, unit
from lrfr.evaluate.verification import balanced_threshold
from lrfr.methods import METHODS
from lrfr.protocol.folds import DENSE, MISALIGNED, MISPLACED, OFFICIAL, TestFold, official_metrics

TEACHER, SETTINGS = "teacher", "teacher_settings"
REFERENCES = (TEACHER, "random_net", "raw_pixels")  # no training seed: stored under the first one
Key = tuple[str, str, str, str]  # protocol, pairing, resolution, metric


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


def verify(study: Study, fold: TestFold, gallery: NDArray, probes: NDArray) -> tuple[dict[str, NDArray], NDArray]:
    """Metrics (1 + draws,) of a fold's test pairs at the validation pairs' threshold, and the pairs' similarities.

    gallery, probes: (rows, d). The threshold is part of the system under test: it stays in all draws.
    """
    validation, similarities = (similarity(gallery[rows], probes[rows]) for rows in (fold.validation, fold.test))
    threshold = balanced_threshold(fold.validation_pairs.scores(validation), fold.validation_pairs.same)
    scores = fold.test_pairs.scores(similarities)
    return fold.test_pairs.verification(scores, threshold, study.evaluate.far), similarities


def evaluate_cell(study: Study, model: str, number: int, seed: int, fold: TestFold) -> dict[Key, NDArray]:
    """All about one model, fold and seed: (1 + draws,) by key, first of the data themselves; official: 1 + 2 draws."""
    file, teacher_file = (study.runs / "embeddings" / f"{name}.npz" for name in (model, TEACHER))
    prefix, teacher_prefix = f"fold{number}/seed{seed}/", f"fold{number}/seed{study.train.seeds[0]}/"
    space = (lambda x: x) if model == TEACHER else unit  # the teacher decides by the L2 distance of its raw vectors
    pairs, size = fold.test_pairs, len(fold.rows.images)
    results: dict[Key, NDArray] = {}
    with np.load(file) as archive, np.load(teacher_file) as teacher:
        hr = space(read_embedding(archive, file, prefix + "hr", size))
        teacher_hr = read_embedding(teacher, teacher_file, teacher_prefix + "hr", size)[fold.test]
        galleries = {"lr_lr": None, "hr_lr": hr}
        block = study.models.get(model)
        if block is not None and METHODS[block.method].matches_embeddings and block.teacher == "plain":
            galleries["teacher_lr"] = unit(read_embedding(teacher, teacher_file, teacher_prefix + "standardised", size))
        teacher_scores = pairs.scores(similarity(teacher_hr, teacher_hr))
        for resolution in study.resolutions:
            probes = hr if resolution == "hr" else space(read_embedding(archive, file, prefix + resolution, size))
            for pairing, gallery in galleries.items():
                first = probes if gallery is None else gallery
                found: dict[tuple[str, str], NDArray] = {}  # by protocol and metric
                if pairing == "hr_lr" and resolution == "hr":  # for pairs this is lr_lr again
                    similarities = similarity(first[fold.test], probes[fold.test])
                else:
                    metrics, similarities = verify(study, fold, first, probes)
                    found |= {(DENSE, metric): values for metric, values in metrics.items()}
                    if fold.official is not None:
                        metrics = official_metrics(fold.official, first[fold.rows.test], probes[fold.rows.test])
                        found |= {(OFFICIAL, metric): values for metric, values in metrics.items()}
                if pairing == "hr_lr":
                    ranks = (1,) if study.evaluate.impostors is None else (1, 5)  # among ten people rank 5 says little
                    found = {(DENSE, f"rank{k}"): pairs.identification(similarities, k) for k in ranks} | found
                if pairing == "lr_lr":
                    found[DENSE, "agreement"] = pairs.agreement(pairs.scores(similarities), teacher_scores)
                results |= {(protocol, pairing, resolution, metric): v for (protocol, metric), v in found.items()}
        for resolution in MISALIGNED if study.evaluate.misaligned is not None else ():
            x = space(read_embedding(archive, file, f"{prefix}misaligned-{resolution}", size))[fold.test]
            metrics = pairs.verification(pairs.scores(similarity(x, x)), None, study.evaluate.far)
            results |= {(MISPLACED, "lr_lr", resolution, metric): values for metric, values in metrics.items()}
    return results


def evaluate_setting(study: Study, setting: str, number: int, fold: TestFold) -> dict[Key, NDArray]:
    """The same for one of the teacher's settings, on raw vectors, low against low resolution only."""
    file, results = study.runs / "embeddings" / f"{SETTINGS}.npz", {}
    with np.load(file) as archive:
        for key in archive.files:
            if key.startswith(f"fold{number}/{setting}/"):
                embedding = read_embedding(archive, file, key, len(fold.rows.images))
                metrics, _ = verify(study, fold, embedding, embedding)
                results |= {(DENSE, "lr_lr", key.split("/")[2], metric): values for metric, values in metrics.items()}
    return results
