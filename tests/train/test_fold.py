"""One fold as the training stages read it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch

from lrfr.config import Study
from lrfr.data.degrade import degrade
from lrfr.data.draws import Draw, view_index
from lrfr.models.student import student_view
from lrfr.models.teachers import see_chip
from lrfr.train.fold import drawn_views, read_fold, teacher_input, teacher_view


def test_roles_divide_all_images_and_share_nobody(tiny: Study):
    fold = read_fold(tiny, 0)
    parts = [fold.images, fold.validation, fold.test]
    assert sorted(np.concatenate(parts)) == list(range(36)) and [len(part) for part in parts] == [18, 12, 6]
    people = [set(fold.people[part].tolist()) for part in parts]
    assert not people[0] & people[1] and not people[0] & people[2] and not people[1] & people[2]


def test_labels_count_the_training_people_from_zero(tiny: Study):
    fold = read_fold(tiny, 0)
    assert np.array_equal(fold.images, np.sort(fold.images)) and set(fold.labels) == {0, 1, 2}
    pairs = set(zip(fold.labels.tolist(), fold.people[fold.images].tolist(), strict=True))
    assert len(pairs) == 3 and [person for _, person in sorted(pairs)] == sorted(person for _, person in pairs)


def test_the_rows_of_the_embedding_files_are_the_held_out_images_in_order(tiny: Study):
    fold = read_fold(tiny, 0)
    assert fold.held_out.tolist() == sorted([*fold.validation.tolist(), *fold.test.tolist()])


def test_every_person_is_tested_in_one_fold(tiny: Study):
    tested = np.concatenate(
        [np.unique((fold := read_fold(tiny, k)).people[fold.test]) for k in range(tiny.faces.folds)]
    )
    assert sorted(tested) == list(range(6))


def test_removed_photographs_are_only_tested(tiny: Study):
    before, index = read_fold(tiny, 0), pd.read_csv(tiny.runs / "index.csv")
    gone = [before.images[0], before.images[7], before.validation[1], before.test[2]]
    index.assign(removed=np.isin(index["image"], gone).astype(int)).to_csv(tiny.runs / "index.csv", index=False)
    after = read_fold(tiny, 0)
    assert after.images.tolist() == [i for i in before.images if i not in gone] and len(after.labels) == 16
    assert after.validation.tolist() == [i for i in before.validation if i not in gone]
    assert np.array_equal(after.test, before.test) and np.array_equal(after.people, before.people)


def test_a_person_without_a_photograph_left_is_no_class(tiny: Study):
    before, index = read_fold(tiny, 0), pd.read_csv(tiny.runs / "index.csv")
    index.assign(removed=(index["person"] == before.people[before.images[0]]).astype(int)).to_csv(
        tiny.runs / "index.csv", index=False
    )
    assert set(read_fold(tiny, 0).labels) == {0, 1}


def test_a_person_with_a_single_photograph_is_a_person_and_no_class(tiny: Study):
    before, index = read_fold(tiny, 0), pd.read_csv(tiny.runs / "index.csv")
    first, second, third = np.unique(before.people[before.images])
    gone = index["person"].isin([first, third]) & (index["image"] % 6 > 0)  # one photograph left of each
    index.assign(removed=gone.astype(int)).to_csv(tiny.runs / "index.csv", index=False)
    fold = read_fold(tiny, 0)
    people = fold.people[fold.images]
    assert len(fold.images) == 8 and fold.labels.dtype == fold.persons.dtype == np.int64
    assert np.array_equal(fold.labels, np.where(people == second, 0, -1))
    assert np.array_equal(fold.persons, np.searchsorted([first, second, third], people))


def test_of_a_validation_person_the_first_photographs_count(tiny: Study, changed: Callable[..., Study]):
    before = read_fold(tiny, 0)
    fold = read_fold(changed(tiny, {"faces.validation_images": 4}), 0)
    assert fold.validation.tolist() == [i for i in before.validation if i % 6 < 4] and len(fold.validation) == 8
    assert np.array_equal(fold.images, before.images) and np.array_equal(fold.test, before.test)


def test_faces_stay_on_disk(tiny: Study):
    fold = read_fold(tiny, 0)
    views = fold.views["area"]
    assert isinstance(fold.chips, np.memmap) and isinstance(views, np.memmap) and not fold.chips.flags.writeable
    assert fold.chips.shape == (36, 150, 150, 3) and views.shape == (36, 10, 32, 32, 3) and len(fold.views) == 1


def test_dlib_sees_the_chip_without_its_margin(tiny: Study):
    fold, ids = read_fold(tiny, 0), np.arange(3)
    wide = fold._replace(chips=np.pad(fold.chips, ((0, 0), (9, 9), (9, 9), (0, 0))))
    for sizes in (np.zeros(3, int), np.array([8, 0, 16])):
        seen = [teacher_view(see_chip, one.chips[ids], sizes, ids > 1) for one in (fold, wide)]
        assert torch.equal(*seen)


def test_views_made_on_demand_are_those_of_the_bank(tiny: Study):
    """Resolutions, mirror images and the sharp view, in one batch."""
    fold, ids, sizes = read_fold(tiny, 0), np.array([5, 0, 7, 5]), np.array([8, 0, 11, 16])
    none, mirrored = np.zeros(4, np.float32), np.array([False, True, True, False])
    draw = Draw(sizes, mirrored, none, none, none, none, np.zeros(4, int))
    found = drawn_views(partial(student_view, size=32), fold, ids, draw, ("area",), 0).numpy()
    for row, view in enumerate(view_index(sizes, 8, 16)):
        expected = fold.views["area"][ids[row], view]
        assert np.array_equal(found[row], expected[:, ::-1] if mirrored[row] else expected)


def test_teacher_input_keeps_values_and_moves_the_channels():
    chips = torch.arange(2 * 4 * 5 * 3).reshape(2, 4, 5, 3).to(torch.uint8)
    x = teacher_input(chips)
    assert x.dtype == torch.float32 and x.shape == (2, 3, 4, 5) and x.is_contiguous(memory_format=torch.channels_last)
    assert x[1, 2, 3, 4] == chips[1, 3, 4, 2] and x.max() == chips.max()


def test_a_view_is_the_mirrored_face_degraded_at_its_own_size():
    chips = np.random.Generator(np.random.Philox(key=1)).integers(0, 256, (5, 150, 150, 3), dtype=np.uint8)
    kept = chips.copy()
    sizes, mirrored = np.array([0, 0, 8, 12, 8]), np.array([False, True, False, True, True])
    found = teacher_view(see_chip, chips, sizes, mirrored).numpy()
    assert found.dtype == np.uint8 and np.array_equal(chips, kept)
    for row, (size, flip) in enumerate(zip(sizes, mirrored, strict=True)):
        face = chips[row : row + 1, :, ::-1] if flip else chips[row : row + 1]
        expected = degrade(np.ascontiguousarray(face), int(size), 150) if size else face
        assert np.array_equal(found[row : row + 1], expected)


@pytest.mark.parametrize("flags", [[False, False], [True, True]])
def test_high_resolution_faces_stay_as_they_are(flags: list[bool]):
    chips = np.random.default_rng(0).integers(0, 256, (2, 150, 150, 3), dtype=np.uint8)
    found = teacher_view(see_chip, chips, np.zeros(2, dtype=np.int64), np.array(flags)).numpy()
    assert np.array_equal(found, chips[:, :, ::-1] if flags[0] else chips)
