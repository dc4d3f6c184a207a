"""One fold as the training stages read it."""

from __future__ import annotations

import numpy as np
import torch

from lrfr.config import Study
from lrfr.train.faces import read_fold, teacher_input


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
    tested = np.concatenate([np.unique((fold := read_fold(tiny, k)).people[fold.test]) for k in range(tiny.faces.folds)])
    assert sorted(tested) == list(range(6))


def test_faces_stay_on_disk(tiny: Study):
    fold = read_fold(tiny, 0)
    assert isinstance(fold.chips, np.memmap) and isinstance(fold.views, np.memmap) and not fold.chips.flags.writeable
    assert fold.chips.shape == (36, 150, 150, 3) and fold.views.shape == (36, 2, 10, 32, 32, 3)


def test_teacher_input_keeps_values_and_moves_the_channels():
    chips = torch.arange(2 * 4 * 5 * 3).reshape(2, 4, 5, 3).to(torch.uint8)
    x = teacher_input(chips)
    assert x.dtype == torch.float32 and x.shape == (2, 3, 4, 5) and x.is_contiguous(memory_format=torch.channels_last)
    assert x[1, 2, 3, 4] == chips[1, 3, 4, 2] and x.max() == chips.max()
