import pytest

from lrfr.data.splits import identity_folds
from lrfr.errors import UserError


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


@pytest.mark.parametrize(("n", "folds", "validation"), [(4, 1, 1), (4, 0, 1), (3, 4, 1), (8, 2, 4), (8, 2, 0), (0, 2, 1)])
def test_a_fold_without_identities(n, folds, validation):
    with pytest.raises(UserError, match="fold without identities"):
        identity_folds(n, folds, validation, seed=0)
