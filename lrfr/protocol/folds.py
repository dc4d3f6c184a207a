"""What is scored in a fold: whose rows of the embedding files are whose, the pairs of every protocol, their counts.

Embedding files have a row for every held-out photograph of the fold, in ascending order of the image numbers. So the
way from a pair to its two photographs is `test_pairs.first` -> `test` -> `rows.images` -> index.csv.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lrfr.config import Study
from lrfr.errors import UserError
from lrfr.evaluate.bootstrap import Pairs
from lrfr.evaluate.statistics import identity_counts
from lrfr.protocol.official import OfficialPairs, official_pairs

DENSE, OFFICIAL, MISPLACED, VIEW2 = "dense", "official", "misaligned", "view2"  # protocols, see lrfr.protocol.study
MISALIGNED = ("8", "16", "32")  # resolutions of protocol `misaligned`
OFFICIAL_COLUMNS = ["fold", "official_fold", "image_a", "image_b", "same"]


class Rows(NamedTuple):
    """Held-out photographs of a fold: image and person of each row (n,); the rows of test and validation people."""

    images: NDArray[np.int64]
    people: NDArray[np.int64]
    test: NDArray[np.int64]
    validation: NDArray[np.int64]


class TestFold(NamedTuple):
    """One fold, and the pairs to be scored; those of `dense` number the rows `test` and `validation` 0, 1, ..."""

    rows: Rows
    test: NDArray[np.int64]
    validation: NDArray[np.int64]
    test_pairs: Pairs
    validation_pairs: Pairs
    official: OfficialPairs | None


def place_in_person(people: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each photograph (n,), how many earlier ones show the same person."""
    return pd.Series(people).groupby(people).cumcount().to_numpy()


def held_out_rows(index: pd.DataFrame, folds: pd.DataFrame, number: int, validation_images: int) -> Rows:
    """All photographs of a fold's test people, and the first `validation_images` of each validation person.

    index, folds: index.csv and folds.csv. Duplicates that `prepare` has marked as removed are no validation images.
    """
    index = index.sort_values("image")
    role = index.person.map(folds[folds.fold == number].set_index("person").role)
    tested = index.image[role == "test"]
    candidates = index[(role == "validation") & (index.removed == 0)]
    validated = candidates.image[place_in_person(candidates.person.to_numpy()) < validation_images]
    images = np.sort(np.concatenate([tested, validated])).astype(np.int64)
    people = index.set_index("image").person.loc[images].to_numpy()
    return Rows(images, people, np.flatnonzero(np.isin(images, tested)), np.flatnonzero(np.isin(images, validated)))


def read_faces(study: Study) -> tuple[pd.DataFrame, pd.DataFrame]:
    """index.csv by image, and folds.csv."""
    return pd.read_csv(study.runs / "index.csv").sort_values("image"), pd.read_csv(study.runs / "folds.csv")


def read_official(study: Study) -> pd.DataFrame:
    """official.csv in the order of the official folds; UserError unless it is that, with folds of one size."""
    path = study.runs / "official.csv"
    try:
        table = pd.read_csv(path)
    except (OSError, ValueError):
        table = pd.DataFrame()
    if not set(OFFICIAL_COLUMNS) <= set(table.columns) or table.groupby("official_fold").size().nunique() != 1:
        words = f"not the official pairs ({', '.join(OFFICIAL_COLUMNS)}, folds of one size)"
        raise UserError(f"{path}: {words}; run `dvc repro` again.")
    return table.sort_values("official_fold", kind="stable")


def build_fold(study: Study, number: int, draws: int | None = None) -> TestFold:
    """Rows and pairs of a fold. Its draws depend on (seed, fold, number of people): not on which folds are run.

    draws: None for those of the study; with 0 only the data themselves are scored. UserError for too few people.
    """
    draws = study.evaluate.draws if draws is None else draws
    rows = held_out_rows(*read_faces(study), number, study.faces.validation_images)
    test = rows.test[place_in_person(rows.people[rows.test]) < study.evaluate.dense_images]
    pairs, lists = [], {"test": (test, draws, study.evaluate.impostors), "validation": (rows.validation, 0, None)}
    for name, (chosen, own, sample) in lists.items():
        people, labels = np.unique(rows.people[chosen], return_inverse=True)
        if len(people) < 2 or len(labels) == len(people):
            few = f"fold {number} has too few {name} people or photographs to compare"
            raise UserError(f"folds.csv: {few}; change faces in params.yaml.")
        pairs.append(Pairs(labels, identity_counts(len(people), own, study.seed, number), sample, study.seed, number))
    official = None
    if study.evaluate.official:
        table, tested = read_official(study), (rows.images[rows.test], rows.people[rows.test])
        official = official_pairs(table[table.fold == number], *tested, draws, study.seed, number)
    return TestFold(rows, test, rows.validation, *pairs, official)


def count(study: Study) -> pd.DataFrame:
    """counts.csv: comparisons per protocol and fold. fta: photographs without a detected face, a fallback crop."""
    fallback = read_faces(study)[0].set_index("image").fallback
    rows = []
    for number in sorted(study.faces.run_folds):
        fold = build_fold(study, number, draws=0)
        pairs, people = fold.test_pairs, fold.test_pairs.counts.shape[1]
        searches = int(np.bincount(pairs.labels).min() * (len(pairs.labels) - people))
        kinds = (int(pairs.same.sum()), int((~pairs.same).sum()))
        fta = int(fallback.loc[fold.rows.images[fold.test]].sum())
        rows.append((DENSE, number, 0, *kinds, people, fta))
        rows.append((DENSE, number, 1, searches, searches * (people - 1), people, fta))
        if fold.official is not None:
            first, second, same = fold.official[:3]
            used = np.unique(fold.rows.images[fold.rows.test][np.concatenate([first, second])])
            official = (int(same.sum()), int((~same).sum()), fold.official.people)
            rows.append((OFFICIAL, number, 0, *official, int(fallback.loc[used].sum())))
        if study.evaluate.misaligned is not None:
            rows.append((MISPLACED, number, 0, *kinds, people, fta))
    return pd.DataFrame(rows, columns=["protocol", "fold", "searches", "n_genuine", "n_impostor", "identities", "fta"])
