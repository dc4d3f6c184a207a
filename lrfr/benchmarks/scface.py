"""SCface (Grgic, Delac and Grgic, Multimedia Tools and Applications 2011): rank-1 by distance, one mugshot per person.

Distance 1 is the farthest (4.20 m), 2 is 2.60 m, 3 the nearest (1.00 m); five cameras each. Papers on low-resolution faces take
the frontal mugshots as the gallery and either all 130 people (650 probes a distance) or, after fine-tuning on 50 people, the
other 80 (400 probes). No official list of the 50 exists, so papers differ by their draw: `split_table` is ours, several draws,
the same on every machine. A model fine-tuned on the 50 of one split may be tested on the 80 of that split only.

The denominator is fixed: a probe in which no face was found is a NaN row, a miss, and counted (fta). Ties are pessimistic.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from lrfr.benchmarks.outcome import Outcome, mean_of
from lrfr.benchmarks.streaming import BLOCK, best_mates, checked_embeddings, hits, optimistic, search

SUBJECTS, TEST = 130, 80  # of the set; tested after fine-tuning on the other 50
SPLITS = 5  # our choice: enough to see how much a draw of 50 people matters
STREAM = 0x5CFACE  # of the counter-based generator; every use has its own


def tested_subjects(subjects: ArrayLike, split: int) -> NDArray:
    """The subjects, sorted, that a split tests: 80 of 130, and in proportion of any other number."""
    subjects = np.unique(subjects)
    lot = np.random.Philox(key=[split, STREAM]).random_raw(len(subjects))  # raw bits: stable across releases of NumPy
    order = np.argsort(lot, kind="stable")
    return np.sort(subjects[order[: round(len(subjects) * TEST / SUBJECTS)]])


def split_table(splits: int = SPLITS) -> pd.DataFrame:
    """The published splits: split, subject (1 ... 130), role (train or test)."""
    subjects = np.arange(1, SUBJECTS + 1)
    tested = [np.isin(subjects, tested_subjects(subjects, split)) for split in range(splits)]
    tables = [
        pd.DataFrame({"split": k, "subject": subjects, "role": np.where(t, "test", "train")})
        for k, t in enumerate(tested)
    ]
    return pd.concat(tables, ignore_index=True)


def check_structure(gallery_subjects: NDArray, probe_subjects: NDArray, distances: NDArray) -> None:
    """Raise ValueError unless everybody has one gallery image and as many probes at each distance as everybody else."""
    subjects, images = np.unique(gallery_subjects, return_counts=True)
    if (images > 1).any():
        raise ValueError(
            f"subject {subjects[images > 1][0]} has several gallery images; the protocol takes one mugshot each."
        )
    if not np.isin(probe_subjects, subjects).all():
        raise ValueError(
            f"subject {probe_subjects[~np.isin(probe_subjects, subjects)][0]} has probes but no gallery image."
        )
    for distance in np.unique(distances):
        number = np.bincount(np.searchsorted(subjects, probe_subjects[distances == distance]), minlength=len(subjects))
        if (number != number.max()).any():
            raise ValueError(
                f"subject {subjects[np.argmin(number)]} has {number.min()} probes at distance {distance}, others {number.max()}; "
                "an image without a face is a row of NaN, never left out."
            )


def evaluate(
    gallery: ArrayLike,
    gallery_subjects: ArrayLike,
    probes: ArrayLike,
    probe_subjects: ArrayLike,
    distances: ArrayLike,
    block: int = BLOCK,
) -> Outcome:
    """Rank-1 of all people given, at each distance; decisions and weights go by probe.

    gallery (s, D), probes (p, D): float, images and mirror images already fused, NaN row = failed acquisition; subjects: numbers,
    one per row; distances: int (p,), 1 ... 3. Metrics: rank1@d1 ..., rank1@d1_optimistic ...; decisions: rank1, of all probes.

    Raises
    ------
    ValueError
        like `check_structure` and `streaming.search`.
    """
    (gallery, gallery_failed), (probes, probe_failed) = (
        checked_embeddings(x, name) for x, name in ((gallery, "gallery"), (probes, "probes"))
    )
    gallery_subjects, probe_subjects, distances = (np.asarray(x) for x in (gallery_subjects, probe_subjects, distances))
    if distances.shape != probes.shape[:1]:
        raise ValueError(f"probes {probes.shape} need one distance per row, not distances of shape {distances.shape}.")
    found = search(probes, gallery, probe_subjects, gallery_subjects, block)
    check_structure(gallery_subjects, probe_subjects, distances)
    found = found._replace(failed=np.isneginf(best_mates(found)[0]))
    right = {"": hits(found, 1), "_optimistic": hits(optimistic(found), 1)}
    counts = {"subjects": len(gallery), "fta_gallery": int(gallery_failed.sum())}
    metrics, statistics = {}, {}
    for distance in np.unique(distances):
        chosen = distances == distance
        counts |= {f"probes@d{distance}": int(chosen.sum()), f"fta@d{distance}": int(probe_failed[chosen].sum())}
        for ending, hit in right.items():
            metric = f"rank1@d{distance}{ending}"
            metrics[metric] = float(np.mean(hit[chosen]))
            statistics[metric] = mean_of(hit[chosen], chosen)
    return Outcome(len(probes), metrics, counts, {"rank1": right[""]}, statistics)


def evaluate_splits(
    gallery: ArrayLike,
    gallery_subjects: ArrayLike,
    probes: ArrayLike,
    probe_subjects: ArrayLike,
    distances: ArrayLike,
    splits: Sequence[int] = tuple(range(SPLITS)),
    block: int = BLOCK,
) -> Outcome:
    """The same with gallery and probes of each split's test subjects only: means over splits, and standard deviations (_sd, n-1).

    Counts are those of the first split; a failed image is counted in each split that tests it (fta... is of the first). There
    are no decisions, since splits share probes. Raises ValueError like `evaluate`, or if there are no splits.
    """
    if not len(splits):
        raise ValueError("there must be at least one split.")
    gallery, probes = np.asarray(gallery), np.asarray(probes)
    gallery_subjects, probe_subjects, distances = (np.asarray(x) for x in (gallery_subjects, probe_subjects, distances))
    tested = [tested_subjects(gallery_subjects, split) for split in splits]
    chosen = [np.isin(probe_subjects, subjects) for subjects in tested]
    outcomes = []
    for subjects, rows in zip(tested, chosen, strict=True):
        mugshots = np.isin(gallery_subjects, subjects)
        parts = (gallery[mugshots], gallery_subjects[mugshots], probes[rows], probe_subjects[rows], distances[rows])
        outcomes.append(evaluate(*parts, block))
    metrics, statistics = {}, {}
    for metric in outcomes[0].metrics:
        values = [outcome.metrics[metric] for outcome in outcomes]
        metrics[metric] = float(np.mean(values))
        if len(splits) > 1:
            metrics[f"{metric}_sd"] = float(np.std(values, ddof=1))
        parts = [(outcome.statistics[metric], rows) for outcome, rows in zip(outcomes, chosen, strict=True)]
        statistics[metric] = lambda w, parts=parts: float(np.mean([statistic(w[rows]) for statistic, rows in parts]))
    return Outcome(len(probes), metrics, {"splits": len(splits)} | outcomes[0].counts, {}, statistics)
