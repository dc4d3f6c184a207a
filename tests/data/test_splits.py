import numpy as np
import pandas as pd
import pytest

from lrfr.data.photographs import COMMITTED, read_manifest
from lrfr.data.splits import count_fold, identity_folds, lfw_folds, official
from lrfr.errors import UserError
from lrfr.sources import lfw


def people(table, fold, role):
    return set(table[(table["fold"] == fold) & (table["role"] == role)]["person"])


@pytest.mark.parametrize(("n", "folds", "validation"), [(40, 4, 6), (8, 2, 2), (11, 3, 2), (5, 4, 1), (4, 2, 1)])
def test_disjoint_and_complete(n, folds, validation):
    table = identity_folds(n, folds, validation, seed=0)
    tested = []
    for fold in range(folds):
        roles = [people(table, fold, role) for role in ("train", "validation", "test")]
        assert set.union(*roles) == set(range(n)) and sum(map(len, roles)) == n
        assert len(roles[1]) == validation and min(map(len, roles)) >= 1
        tested += roles[2]
    assert sorted(tested) == list(range(n))
    assert len(table) == n * folds and list(table.columns) == ["fold", "person", "role"]


def test_sizes_of_the_default_study():
    counts = identity_folds(40, 4, 6, seed=0).value_counts(["fold", "role"])
    for fold in range(4):
        assert (counts[fold, "train"], counts[fold, "validation"], counts[fold, "test"]) == (24, 6, 10)


def test_uneven_people_differ_by_one():
    table = identity_folds(11, 3, 2, seed=0)
    assert sorted(len(people(table, fold, "test")) for fold in range(3)) == [3, 4, 4]


def test_seed_decides():
    assert identity_folds(40, 4, 6, 0).equals(identity_folds(40, 4, 6, 0))
    assert not identity_folds(40, 4, 6, 0).equals(identity_folds(40, 4, 6, 1))


def test_people_are_shuffled():
    assert people(identity_folds(40, 4, 6, 0), 0, "test") != set(range(10))


def test_pinned():
    """Raw Philox bits are stable across numpy releases: published folds must never move."""
    assert sorted(people(identity_folds(40, 4, 6, 0), 0, "test")) == [5, 14, 15, 16, 17, 22, 31, 34, 38, 39]


@pytest.mark.parametrize(
    ("n", "folds", "validation"), [(4, 1, 1), (4, 0, 1), (3, 4, 1), (8, 2, 4), (8, 2, 0), (0, 2, 1)]
)
def test_a_fold_without_identities(n, folds, validation):
    with pytest.raises(UserError, match="fold without identities"):
        identity_folds(n, folds, validation, seed=0)


PHOTOGRAPHS = np.repeat(np.arange(30), [1, 2, 3] * 10)  # of 30 people, for two folds of four official ones
PINNED = [16, 17, 22, 26, 28]  # raw Philox bits: published folds must never move


@pytest.fixture
def pairs():
    """Four official folds, each with one pair of each kind: people 2, 0, 1, then 5, 3, 4, ..."""
    first = [int(np.searchsorted(PHOTOGRAPHS, person)) for person in range(30)]
    rows = []
    for k in range(4):
        rows += [(k // 2, k, first[3 * k + 2], first[3 * k + 2] + 1, 1), (k // 2, k, first[3 * k], first[3 * k + 1], 0)]
    return pd.DataFrame(rows, columns=["fold", "official_fold", "image_a", "image_b", "same"])


def test_lfw_tests_exactly_the_people_of_its_pairs(pairs):
    table = lfw_folds(PHOTOGRAPHS, pairs, 5, seed=0)
    assert list(table.columns) == ["fold", "person", "role"] and len(table) == 60
    assert people(table, 0, "test") == set(range(6)) and people(table, 1, "test") == set(range(6, 12))
    counts = np.bincount(PHOTOGRAPHS)
    for fold in (0, 1):
        roles = [people(table, fold, role) for role in ("train", "validation", "test")]
        assert set.union(*roles) == set(range(30)) and sum(map(len, roles)) == 30
        assert len(roles[1]) == 5 and all(counts[person] >= 2 for person in roles[1])
    assert people(table, 0, "validation") != people(table, 1, "validation")


def test_lfw_validation_is_drawn_by_the_seed_and_pinned(pairs):
    assert sorted(people(lfw_folds(PHOTOGRAPHS, pairs, 5, 0), 0, "validation")) == PINNED
    assert lfw_folds(PHOTOGRAPHS, pairs, 5, 0).equals(lfw_folds(PHOTOGRAPHS, pairs, 5, 0))
    assert people(lfw_folds(PHOTOGRAPHS, pairs, 5, 1), 0, "validation") != set(PINNED)


def test_lfw_validates_with_nobody_who_has_one_usable_photograph(pairs):
    usable = ~np.isin(PHOTOGRAPHS, np.arange(7, 30, 3)) | (
        np.diff(PHOTOGRAPHS, prepend=-1) > 0
    )  # of two photographs, one
    table = lfw_folds(PHOTOGRAPHS, pairs, 6, 0, usable)
    assert {person % 3 for person in people(table, 0, "validation")} == {2}


@pytest.mark.parametrize("validation", [0, 17])
def test_lfw_without_people_to_validate_with(pairs, validation):
    with pytest.raises(
        UserError, match=rf"faces\.validation_people: {validation} people are asked for; fold 0 has 16 with two"
    ):
        lfw_folds(PHOTOGRAPHS, pairs, validation, 0)


def test_official_pairs_by_image_number():
    pairs = pd.DataFrame({"fold": [0, 1, 2], "name_a": ["a", "b", "c"], "name_b": ["c", "a", "a"], "same": [1, 0, 0]})
    table = official(pairs, pd.Series(["a", "b", "c"]))
    assert table.values.tolist() == [[0, 0, 0, 2, 1], [0, 1, 1, 0, 0], [1, 2, 2, 0, 0]]
    assert list(table.columns) == ["fold", "official_fold", "image_a", "image_b", "same"]
    with pytest.raises(UserError, match=r"^c: an official pair needs this photograph.*raise faces\.people\.$"):
        official(pairs, pd.Series(["a", "b"]))


def test_view_2_in_five_folds(real_lfw):
    manifest = read_manifest(COMMITTED / "lfw.csv")
    labels, pairs = (
        pd.factorize(manifest["person"])[0],
        official(lfw.read_pairs(real_lfw / lfw.PAIRS), manifest["name"]),
    )
    folds = lfw_folds(labels, pairs, 136, seed=0)
    assert count_fold(folds, labels, pairs) == lfw.FIRST_FOLD
    assert (
        pairs.groupby("fold").size().tolist() == [1200] * 5
        and pairs.groupby("official_fold")["same"].sum().tolist() == [300] * 10
    )
    tested = folds[folds["role"] == "test"]
    assert (
        not tested["person"].duplicated().any()
        and folds.groupby(["fold", "role"]).size()[:, "validation"].tolist() == [136] * 5
    )
