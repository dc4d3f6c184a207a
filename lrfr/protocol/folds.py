"""What is scored in a fold: whose rows of the embedding files are whose, the pairs of every protocol, their counts.

Embedding files have a row for every held-out photograph of the fold, in ascending order of the image numbers. So the
way from a pair to its two photographs is `test_pairs.first` -> `test` -> `rows.images` -> index.csv.

A study that has test sets of their own (`faces.tests`) scores all of them: the first one's pairs are protocol `dense`,
those of a further set without a list of its own bear its name. What is scored under other conditions than `area` (a key
of `DEGRADATIONS`, or moved landmarks) has the condition behind its protocol's name: `dense-camera`.

Protocol `official` is LFW's own pair list, View 2, ten folds of 300 genuine and 300 impostor pairs that share no
person; other sets' lists bear the names that their sources give them. A study fold holds some of the official folds.
Accuracy is the mean over them, each at the threshold that is best on the others (`ten_fold_accuracy`, rule "exact");
thresholds stay fixed in the draws. A person has 1.4 pairs on average: intervals are the dyadic multiplier's
(`statistics.dyadic_interval`), and nothing is compared.
"""

from itertools import product
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lrfr.config import Study
from lrfr.errors import UserError
from lrfr.evaluate.bootstrap import Pairs, weighted_verification
from lrfr.evaluate.statistics import SPREAD, dyadic_signs, identity_counts
from lrfr.evaluate.verification import ten_fold_accuracy

DENSE, OFFICIAL, MISPLACED, VIEW2 = "dense", "official", "misaligned", "view2"  # protocols, see lrfr.protocol.study
MISALIGNED = ("8", "16", "32")  # resolutions of protocol `misaligned`
OFFICIAL_COLUMNS = ["list", "fold", "official_fold", "image_a", "image_b", "same"]


class Rows(NamedTuple):
    """Held-out photographs of a fold: image and person of each row (n,); the rows of test and validation people."""

    images: NDArray[np.int64]
    people: NDArray[np.int64]
    test: NDArray[np.int64]
    validation: NDArray[np.int64]


class OfficialPairs(NamedTuple):
    """Pairs (p,) in the order of their official folds 0 ... k-1, all of one size."""

    first: NDArray[np.int64]  # rows of an array of photographs
    second: NDArray[np.int64]
    same: NDArray[np.bool_]
    fold: NDArray[np.int64]
    people: int  # how many the pairs show
    weights: NDArray[np.uint8]  # whole numbers (1 + 2 draws, p): everybody once, then by person, then by pair


class Chosen(NamedTuple):
    """Photographs that are compared with each other: rows (n,) of the embedding files, and their pairs, which number
    these photographs 0, 1, ...
    """

    rows: NDArray[np.int64]
    pairs: Pairs


class TestFold(NamedTuple):
    """One fold, and the pairs to be scored. dense: all pairs of some photographs, by protocol, `dense` first. lists:
    published ones, by protocol; they number the rows `rows.test`.
    """

    rows: Rows
    validation: Chosen
    dense: dict[str, Chosen]
    lists: dict[str, OfficialPairs]

    @property
    def test(self) -> NDArray[np.int64]:
        """Rows of protocol `dense`."""
        return self.dense[DENSE].rows

    @property
    def test_pairs(self) -> Pairs:
        """Pairs of protocol `dense`."""
        return self.dense[DENSE].pairs


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
    if (
        not set(OFFICIAL_COLUMNS) <= set(table.columns)
        or (table.groupby(["list", "official_fold"]).size().groupby("list").nunique() != 1).any()
    ):
        words = f"not the official pairs ({', '.join(OFFICIAL_COLUMNS)}, folds of one size)"
        raise UserError(f"{path}: {words}; run `dvc repro` again.")
    return table.sort_values("official_fold", kind="stable")


def official_images(study: Study) -> NDArray[np.int64]:
    """All photographs of the official pairs: image numbers, ascending."""
    return np.unique(read_official(study)[["image_a", "image_b"]].to_numpy())


def official_pairs(
    table: pd.DataFrame, images: NDArray[np.int64], people: NDArray[np.int64], draws: int, seed: int, stratum: int
) -> OfficialPairs:
    """Pairs of a part of official.csv.

    images: int (n,), ascending, the photographs of the rows; people: int (n,), their people. The draws depend on (seed,
    stratum, the pairs) alone. UserError if a photograph of a pair is not among the rows, or `same` contradicts people.
    """
    sides = table[["image_a", "image_b"]].to_numpy()
    rows = np.minimum(np.searchsorted(images, sides), len(images) - 1)
    same = table.same.to_numpy().astype(bool)
    if (missing := sides[images[rows] != sides]).size:
        raise UserError(f"official.csv: photograph {missing[0]} is not among the fold's test; run `dvc repro` again.")
    if not np.array_equal(people[rows[:, 0]] == people[rows[:, 1]], same):
        raise UserError("official.csv: `same` contradicts the people of index.csv; run `dvc repro` again.")
    a, b = np.unique(people[rows], return_inverse=True)[1].reshape(rows.shape).T
    count = int(max(a.max(), b.max())) + 1
    by_person, by_pair = dyadic_signs(count, len(same), draws, seed, stratum)
    scale = round(1 / SPREAD)  # whole numbers: rates do not depend on the unit of the weights
    weights = np.full((1 + 2 * draws, len(same)), scale, dtype=np.int8)
    weights[1 : 1 + draws] += by_person[:, a] + by_person[:, b] * ~same
    weights[1 + draws :] += by_pair * ~same
    fold = np.unique(table.official_fold, return_inverse=True)[1]
    return OfficialPairs(rows[:, 0], rows[:, 1], same, fold, count, weights.astype(np.uint8))


def all_official(study: Study, images: NDArray[np.int64]) -> OfficialPairs:
    """The pairs of all official folds; images: int (n,), ascending, their photographs."""
    people = read_faces(study)[0].set_index("image").person.loc[images].to_numpy()
    return official_pairs(read_official(study), images, people, study.evaluate.draws, study.seed, study.faces.folds)


def official_accuracy(pairs: OfficialPairs, distances: NDArray[np.float64]) -> NDArray[np.float64]:
    """Accuracy (1 + 2 draws,) of squared distances (p,).

    The list fixes how many pairs of each kind a fold has: draws weigh pairs within fold and kind, not these numbers.
    """
    folds, total = int(pairs.fold.max()) + 1, np.zeros(len(pairs.weights))
    thresholds = ten_fold_accuracy(distances, pairs.same, "exact", folds).thresholds
    right = (distances <= thresholds[pairs.fold]) == pairs.same
    for fold, kind in product(range(folds), (False, True)):
        members = np.flatnonzero((pairs.fold == fold) & (pairs.same == kind))
        weights = pairs.weights[:, members].astype(np.float64)
        if len(members):
            with np.errstate(invalid="ignore"):  # sum_i w_i right_i / sum_i w_i, as often as there are pairs
                total += len(members) * (weights @ right[members]) / weights.sum(1)
    return total / len(distances)


def official_metrics(pairs: OfficialPairs, gallery: NDArray, probes: NDArray) -> dict[str, NDArray[np.float64]]:
    """Accuracy, EER and AUC (1 + 2 draws,); gallery, probes: float (n, d), rows of the first and second photographs."""
    distances = ((gallery[pairs.first] - probes[pairs.second]) ** 2).sum(1)
    rates = weighted_verification(-distances, pairs.same, pairs.weights, None, ())
    return {"accuracy": official_accuracy(pairs, distances)} | rates


def conditions(study: Study) -> dict[str, tuple[str, ...]]:
    """Condition -> resolutions: "" is `area`, then the study's degradations, then moved landmarks."""
    found = {"": study.resolutions}
    found |= {kind: tuple(map(str, sizes)) for kind, sizes in study.evaluate.degradations.items()}
    return found | ({MISPLACED: MISALIGNED} if study.evaluate.misaligned is not None else {})


def under(protocol: str, condition: str) -> str:
    """The name of a protocol under a condition."""
    if condition == MISPLACED:
        return MISPLACED
    return f"{protocol}-{condition}" if condition else protocol


def choose(study: Study, rows: NDArray[np.int64], people: NDArray, what: str, stratum: int, draws: int) -> Chosen:
    """All pairs of some rows; people (n,) of these rows. UserError for too few. Only test lists (draws) are sampled."""
    names, labels = np.unique(people, return_inverse=True)
    if len(names) < 2 or len(labels) == len(names):
        few = f"{what} has too few people or photographs to compare"
        raise UserError(f"folds.csv: {few}; change faces in params.yaml.")
    sample = study.evaluate.impostors if what.startswith("test") else None
    counts = identity_counts(len(names), draws, study.seed, stratum)
    return Chosen(rows, Pairs(labels, counts, sample, study.seed, stratum))


def build_fold(study: Study, number: int, draws: int | None = None) -> TestFold:
    """Rows and pairs of a fold; draws: None for those of the study. UserError for too few people.

    The draws depend on (seed, fold, number of people), not on which folds are run. Each test set has its own: they
    count on from the fold's number, since a study with test sets has one fold.
    """
    draws = study.evaluate.draws if draws is None else draws
    index, folds = read_faces(study)
    rows = held_out_rows(index, folds, number, study.faces.validation_images)
    of = index.set_index("image")["set"].loc[rows.images].to_numpy()
    listed = read_official(study) if study.evaluate.official else pd.DataFrame(columns=OFFICIAL_COLUMNS)
    listed = listed[listed.fold == number]
    dense, lists = {}, {}
    for k, name in enumerate(study.faces.tests or (study.faces.source,)):
        its = rows.test[of[rows.test] == name]
        if k == 0 or not listed["list"].str.startswith(name).any():
            chosen = its[place_in_person(rows.people[its]) < study.evaluate.dense_images]
            what = f"test of fold {number}, {name},"
            dense[name if k else DENSE] = choose(study, chosen, rows.people[chosen], what, number + k, draws)
    tested = rows.images[rows.test], rows.people[rows.test]
    for k, (name, table) in enumerate(listed.groupby("list", sort=False)):
        lists[str(name)] = official_pairs(table, *tested, draws, study.seed, number + k)
    people = rows.people[rows.validation]
    validation = choose(study, rows.validation, people, f"validation of fold {number}", number, 0)
    return TestFold(rows, validation, dense, lists)


def count(study: Study) -> pd.DataFrame:
    """counts.csv: comparisons per protocol and fold. fta: photographs without a detected face, a fallback crop."""
    fallback, rows = read_faces(study)[0].set_index("image").fallback, []
    for number in sorted(study.faces.run_folds):
        fold = build_fold(study, number, draws=0)
        for condition in conditions(study):
            for protocol, (chosen, pairs) in fold.dense.items():
                people = pairs.counts.shape[1]
                searches = int(np.bincount(pairs.labels).min() * (len(pairs.labels) - people))
                kinds = (int(pairs.same.sum()), int((~pairs.same).sum()))
                fta = int(fallback.loc[fold.rows.images[chosen]].sum())
                rows.append((under(protocol, condition), number, 0, *kinds, people, fta))
                if condition != MISPLACED:
                    rows.append((under(protocol, condition), number, 1, searches, searches * (people - 1), people, fta))
            for protocol, pairs in fold.lists.items() if condition != MISPLACED else ():
                used = np.unique(fold.rows.images[fold.rows.test][np.concatenate([pairs.first, pairs.second])])
                kinds = int(pairs.same.sum()), int((~pairs.same).sum())
                rows.append(
                    (under(protocol, condition), number, 0, *kinds, pairs.people, int(fallback.loc[used].sum()))
                )
    return pd.DataFrame(rows, columns=["protocol", "fold", "searches", "n_genuine", "n_impostor", "identities", "fta"])
