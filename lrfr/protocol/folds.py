"""What is scored in a fold: its rows, its pairs in every protocol, and how many there are."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lrfr.config import Study
from lrfr.errors import UserError
from lrfr.evaluate.bootstrap import DensePairs
from lrfr.evaluate.pair_list import SampledPairs
from lrfr.evaluate.statistics import identity_counts
from lrfr.protocol.official import OfficialPairs, official_pairs
from lrfr.protocol.rows import DENSE, MISPLACED, OFFICIAL, Rows, held_out_rows, place_in_person, read_official


class TestFold(NamedTuple):
    """One fold: whose rows of the embedding files are whose, and the pairs to be scored.

    test, validation: rows of the photographs that the pairs of protocol `dense` number 0, 1, ...
    """

    rows: Rows
    test: NDArray[np.int64]
    validation: NDArray[np.int64]
    test_pairs: DensePairs | SampledPairs
    validation_pairs: DensePairs
    official: OfficialPairs | None


def read_faces(study: Study) -> tuple[pd.DataFrame, pd.DataFrame]:
    """index.csv by image, and folds.csv."""
    return pd.read_csv(study.runs / "index.csv").sort_values("image"), pd.read_csv(study.runs / "folds.csv")


def build_fold(study: Study, number: int, draws: int | None = None) -> TestFold:
    """Rows and pairs of a fold. The draws of a fold depend on (seed, fold, number of people): not on which folds are run.

    draws: None for those of the study; with 0 only the data themselves are scored.
    """
    draws = study.evaluate.draws if draws is None else draws
    rows = held_out_rows(*read_faces(study), number, study.faces.validation_images)
    chosen = {
        "test": rows.test[place_in_person(rows.people[rows.test]) < study.evaluate.dense_images],
        "validation": rows.validation,
    }
    labels, counts = {}, {}
    for name, of_draws in (("test", draws), ("validation", 0)):
        people, labels[name] = np.unique(rows.people[chosen[name]], return_inverse=True)
        if len(people) < 2 or len(labels[name]) == len(people):
            raise UserError(
                f"folds.csv: fold {number} has too few {name} people or photographs to compare; change faces in params.yaml."
            )
        counts[name] = identity_counts(len(people), of_draws, study.seed, number)
    sample = study.evaluate.impostors
    official = None
    if study.evaluate.official:
        table = read_official(study)
        own = table[table.fold == number]
        official = official_pairs(own, rows.images[rows.test], rows.people[rows.test], draws, study.seed, number)
    return TestFold(
        rows,
        chosen["test"],
        chosen["validation"],
        DensePairs(labels["test"], counts["test"])
        if sample is None
        else SampledPairs(labels["test"], counts["test"], sample, study.seed, number),
        DensePairs(labels["validation"], counts["validation"]),
        official,
    )


def count(study: Study) -> pd.DataFrame:
    """counts.csv: comparisons per protocol and fold. fta: photographs without a detected face (a fallback crop is used)."""
    fallback = read_faces(study)[0].set_index("image").fallback
    rows = []
    for number in sorted(study.faces.run_folds):
        fold = build_fold(study, number, draws=0)
        pairs, rows_of_test = fold.test_pairs, fold.rows.test
        people = pairs.counts.shape[1]
        fta = int(fallback.loc[fold.rows.images[fold.test]].sum())
        photographs = np.bincount(pairs.labels)
        searches = int(photographs.min() * (len(pairs.labels) - people))
        kinds = (int(pairs.same.sum()), int((~pairs.same).sum()))
        rows.append((DENSE, number, 0, *kinds, people, fta))
        rows.append((DENSE, number, 1, searches, searches * (people - 1), people, fta))
        if fold.official is not None:
            used = np.unique(
                fold.rows.images[rows_of_test][np.concatenate([fold.official.first, fold.official.second])]
            )
            same = fold.official.same
            fta_here = int(fallback.loc[used].sum())
            rows.append((OFFICIAL, number, 0, int(same.sum()), int((~same).sum()), fold.official.people, fta_here))
        if study.evaluate.misaligned is not None:
            rows.append((MISPLACED, number, 0, *kinds, people, fta))
    return pd.DataFrame(rows, columns=["protocol", "fold", "searches", "n_genuine", "n_impostor", "identities", "fta"])
