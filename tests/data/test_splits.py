import numpy as np
import pandas as pd
import pytest

from lrfr.data.photographs import COMMITTED, LISTS, read_manifest
from lrfr.data.splits import count_fold, fold_of_tests, identity_folds, lfw_folds, official
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
    rows = [("x", 0, "a", "c", 1), ("x", 1, "b", "a", 0), ("x", 2, "c", "a", 0)]
    pairs, numbers = pd.DataFrame(rows, columns=LISTS), pd.Series([4, 5, 6], index=["a", "b", "c"])
    table = official(pairs, numbers, 2)
    assert table.values.tolist() == [["x", 0, 0, 4, 6, 1], ["x", 0, 1, 5, 4, 0], ["x", 1, 2, 6, 4, 0]]
    assert list(table.columns) == ["list", "fold", "official_fold", "image_a", "image_b", "same"]
    assert not official(pairs, numbers, 3)["fold"].any()
    with pytest.raises(UserError, match=r"^c: an official pair needs this photograph.*raise faces\.people\.$"):
        official(pairs, numbers[:2], 2)


def test_view_2_in_five_folds(real_lfw):
    manifest = read_manifest(COMMITTED / "lfw.csv")
    labels, pairs = (
        pd.factorize(manifest["person"])[0],
        official(lfw.read_pairs(real_lfw / lfw.PAIRS), manifest.set_index("name")["image"], 2),
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


def test_people_of_other_sources_are_tested():
    people = np.repeat(np.arange(12), [5] * 8 + [1] * 4)  # 10 and 11 are of a test source
    tested, usable = people >= 10, np.ones(len(people), dtype=bool)
    usable[:2] = False  # of person 0, who has three left
    folds = fold_of_tests(people, tested, np.array([3, 9]), 2, 0, usable)
    role = folds.set_index("person")["role"]
    assert not folds["fold"].any() and role.index.tolist() == [0, 1, 2, 4, 5, 6, 7, 8, 10, 11]
    assert role[[10, 11]].eq("test").all() and role[[0, 8]].eq("train").all() and (role == "validation").sum() == 2
    assert folds.equals(fold_of_tests(people, tested, np.array([3, 9]), 2, 0, usable))
    drawn = {tuple(folds.person[folds.role == "validation"])} | {
        tuple(again.person[again.role == "validation"])
        for again in (fold_of_tests(people, tested, np.array([3, 9]), 2, seed, usable) for seed in range(1, 9))
    }
    assert len(drawn) > 1
    with pytest.raises(UserError, match=r"faces\.validation_people: 7 people are asked for; 6 of 8 have 4 photographs"):
        fold_of_tests(people, tested, np.array([3, 9]), 7, 0, usable)
