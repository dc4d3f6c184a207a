from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from lrfr.protocol.folds import held_out_rows, place_in_person
from lrfr.train.fold import read_fold
from tests.protocol import faces


@pytest.mark.parametrize(
    ("make", "write"), [(faces.lfw_study, faces.write_lfw), (faces.tiny_study, faces.write_faces)], ids=["lfw", "all"]
)
def test_rows_are_those_of_the_training_stages(tmp_path, monkeypatch, make, write):
    """The training stages number the rows of what they write by `Fold.held_out`."""
    monkeypatch.chdir(tmp_path)
    study = make()
    write(study)
    index = pd.read_csv(study.runs / "index.csv").sort_values("image")
    index.to_csv(study.runs / "index.csv", index=False)
    for name in ("chips", "views"):
        np.save(study.runs / f"{name}.npy", np.zeros(1))
    for number in study.faces.run_folds:
        rows = held_out_rows(index, pd.read_csv(study.runs / "folds.csv"), number, study.faces.validation_images)
        fold = read_fold(study, number)
        np.testing.assert_array_equal(rows.images, fold.held_out)
        np.testing.assert_array_equal(rows.images[rows.test], fold.test)
        np.testing.assert_array_equal(rows.images[rows.validation], np.sort(fold.validation))
        np.testing.assert_array_equal(rows.people, fold.people[fold.held_out])


def test_removed_photographs_are_tested_and_do_not_validate():
    index = pd.DataFrame({"image": range(8), "person": [0] * 4 + [1] * 4, "removed": [0, 1, 0, 0] * 2})
    folds = pd.DataFrame({"fold": 0, "person": [0, 1], "role": ["validation", "test"]})
    rows = held_out_rows(index.iloc[::-1], folds, 0, 2)
    assert rows.images.tolist() == [0, 2, 4, 5, 6, 7] and rows.people.tolist() == [0, 0, 1, 1, 1, 1]
    assert rows.validation.tolist() == [0, 1] and rows.test.tolist() == [2, 3, 4, 5]


def test_place_in_person():
    assert place_in_person(np.array([5, 2, 5, 5, 2, 7])).tolist() == [0, 0, 1, 2, 1, 0]
