"""Identity folds: nobody who is tested was trained on or used for validation."""

import numpy as np
import pandas as pd

from lrfr.errors import UserError
from lrfr.streams import philox

OFFICIAL = ["list", "fold", "official_fold", "image_a", "image_b", "same"]
TOGETHER = 2  # folds of View 2 that are the test of one study fold: 1,200 pairs
LEAST = 4  # photographs of a validation person where others are tested


def identity_folds(people: int, folds: int, validation_people: int, seed: int) -> pd.DataFrame:
    """Divide people 0 ... people-1 into train, validation and test for each fold; everybody is tested in one fold.

    The people are shuffled once (Philox keyed by the seed) and cut into `folds` blocks whose sizes differ by one at
    most. Block k is the test set of fold k, the next `validation_people` in the shuffled circle validate, all others
    train. Returns a table with fold (int), person (int) and role (train, validation, test), by fold and person. Raises
    UserError if a fold is left without people to train on, to validate with or to test.
    """
    largest = -(-people // folds) if folds > 0 else 0
    if folds < 2 or people < folds or validation_people < 1 or people - largest - validation_people < 1:
        asked = f"{people} people in {folds} folds with {validation_people} for validation"
        change = "change faces.people, faces.folds or faces.validation_people"
        raise UserError(f"faces: {asked} leave a fold without identities; {change}.")
    order = np.argsort(philox("identity_folds", seed).random_raw(people), kind="stable")
    rows, start = [], 0
    for fold, test in enumerate(np.array_split(order, folds)):
        circle = np.roll(order, -start)
        roles = ["test"] * len(test) + ["validation"] * validation_people
        roles += ["train"] * (people - len(roles))
        rows += sorted((fold, int(person), role) for person, role in zip(circle, roles, strict=True))
        start += len(test)
    return pd.DataFrame(rows, columns=["fold", "person", "role"])


def official(pairs: pd.DataFrame, numbers: pd.Series, together: int) -> pd.DataFrame:
    """Official pairs by image number: list, fold (of the study), official_fold (from 0), image_a, image_b, same.

    pairs: as `Source.lists` returns them. numbers: of the source's photographs, by name. together: how many official
    folds are one of the study. Raises UserError if a pair has a photograph that is not among them.
    """
    absent = [name for side in ("name_a", "name_b") for name in pairs[side] if name not in numbers.index]
    if absent:
        needed = "an official pair needs this photograph, which the study leaves out"
        raise UserError(f"{absent[0]}: {needed}; raise faces.people.")
    columns = {"list": pairs["list"], "fold": pairs["fold"] // together, "official_fold": pairs["fold"]}
    columns |= {f"image_{side}": numbers[pairs[f"name_{side}"]].to_numpy() for side in "ab"}
    return pd.DataFrame(columns | {"same": pairs["same"]})[OFFICIAL]


def lfw_folds(
    people: np.ndarray, pairs: pd.DataFrame, validation_people: int, seed: int, usable: np.ndarray | None = None
) -> pd.DataFrame:
    """Divide people for each study fold: test are all who occur in its official pairs, the rest validate or train.

    people: int (N,), person 0 ... P-1 of each photograph. pairs: what `official` returns. usable: bool (N,),
    photographs that may be used for training and validation; all, if None. Validation is drawn (Philox keyed by seed
    and fold) among the others with two photographs or more; who is left trains. Returns a table as `identity_folds`
    does. Raises UserError if a fold has too few people left to validate with and to train on.
    """
    everybody = np.unique(people)
    photographs = np.bincount(people if usable is None else people[usable], minlength=len(everybody))
    rows = []
    for fold, its in pairs.groupby("fold"):
        test = np.unique(people[its[["image_a", "image_b"]].to_numpy().ravel()])
        candidates = np.setdiff1d(everybody[photographs >= 2], test)
        if not 1 <= validation_people <= len(candidates) or len(test) + validation_people >= len(everybody):
            had = f"fold {fold} has {len(candidates)} with two photographs or more outside of its test"
            advice = "take 1 to that many, and leave somebody to train on"
            raise UserError(f"faces.validation_people: {validation_people} people are asked for; {had}; {advice}.")
        bits = philox("lfw_validation", seed, fold).random_raw(len(candidates))
        validation = candidates[np.argsort(bits, kind="stable")[:validation_people]]
        roles = np.where(np.isin(everybody, validation), "validation", "train")
        roles = np.where(np.isin(everybody, test), "test", roles)
        rows += [(fold, int(person), role) for person, role in zip(everybody, roles.tolist(), strict=True)]
    return pd.DataFrame(rows, columns=["fold", "person", "role"])


def fold_of_tests(
    people: np.ndarray, tested: np.ndarray, left_out: np.ndarray, validation_people: int, seed: int, usable: np.ndarray
) -> pd.DataFrame:
    """The one fold of a study that tests people of other sources, as `identity_folds` gives it.

    people: int (N,), person of each photograph. tested: bool (N,), photographs of the test sources. left_out: int,
    people of the training source who have no role. usable: bool (N,), photographs that may be used for training and
    validation. Validation is drawn (Philox keyed by seed) among the training source's people with four photographs or
    more; who is left trains. Raises UserError if too few are left.
    """
    test, others = np.unique(people[tested]), np.setdiff1d(people[~tested], left_out)
    candidates = others[np.bincount(people[usable], minlength=people.max() + 1)[others] >= LEAST]
    if validation_people > len(candidates) or validation_people > len(others) - 2:
        had = f"{len(candidates)} of {len(others)} have {LEAST} photographs or more"
        reason = f"{validation_people} people are asked for; {had}"
        raise UserError(f"faces.validation_people: {reason}; take fewer, and leave two to train on.")
    bits = philox("validation", seed).random_raw(len(candidates))
    roles = dict.fromkeys(others.tolist(), "train") | dict.fromkeys(test.tolist(), "test")
    roles |= dict.fromkeys(candidates[np.argsort(bits, kind="stable")[:validation_people]].tolist(), "validation")
    return pd.DataFrame([(0, person, roles[person]) for person in sorted(roles)], columns=["fold", "person", "role"])


def count_fold(folds: pd.DataFrame, people: np.ndarray, pairs: pd.DataFrame, fold: int = 0) -> dict[str, int]:
    """What a fold of official pairs holds, to compare with numbers that are known of the published lists."""
    test = folds[(folds["fold"] == fold) & (folds["role"] == "test")]["person"]
    photographs = np.bincount(people)
    others = np.delete(photographs, test)
    return {
        "test people": len(test),
        "pairs": int((pairs["fold"] == fold).sum()),
        "other people": len(others),
        "their photographs": int(others.sum()),
        "with two or more": int((others >= 2).sum()),
    }
