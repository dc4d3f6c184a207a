"""Identity folds: nobody who is tested was trained on or used for validation."""

from __future__ import annotations

import numpy as np
import pandas as pd

from lrfr.errors import UserError

STREAM = 1  # of the counter-based generator; every use of the seed has its own


def identity_folds(people: int, folds: int, validation_people: int, seed: int) -> pd.DataFrame:
    """Divide people 0 ... people-1 into train, validation and test for each fold; every person is tested in exactly one fold.

    The people are shuffled once (Philox keyed by the seed) and cut into `folds` blocks whose sizes differ by one at most.
    Block k is the test set of fold k, the next `validation_people` in the shuffled circle validate, all others train.
    Returns a table with fold (int), person (int) and role (train, validation, test), by fold and person.

    Raises
    ------
    UserError
        if a fold is left without people to train on, to validate with or to test.
    """
    largest = -(-people // folds) if folds > 0 else 0
    if folds < 2 or people < folds or validation_people < 1 or people - largest - validation_people < 1:
        raise UserError(
            f"faces: {people} people in {folds} folds with {validation_people} for validation leave a fold without identities; "
            "change faces.people, faces.folds or faces.validation_people."
        )
    # raw bits, because numpy promises their stability across releases, and not that of permutation()
    order = np.argsort(np.random.Philox(key=[seed, STREAM]).random_raw(people), kind="stable")
    rows, start = [], 0
    for fold, test in enumerate(np.array_split(order, folds)):
        circle = np.roll(order, -start)
        roles = ["test"] * len(test) + ["validation"] * validation_people
        roles += ["train"] * (people - len(roles))
        rows += sorted((fold, int(person), role) for person, role in zip(circle, roles, strict=True))
        start += len(test)
    return pd.DataFrame(rows, columns=["fold", "person", "role"])
