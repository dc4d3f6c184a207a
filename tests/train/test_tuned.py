"""The conventional scheme: the teacher sees the student's view, and stops when validation does."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from lrfr.config import Study
from lrfr.data.degrade import degrade
from lrfr.models.teachers import build_teacher
from lrfr.train import tuned
from lrfr.train.faces import read_fold
from lrfr.train.teacher import load_trained
from lrfr.train.tuned import Tuner, teacher_view, tune, validation_error


def test_a_view_is_the_mirrored_face_degraded_at_its_own_size():
    chips = np.random.Generator(np.random.Philox(key=1)).integers(0, 256, (5, 20, 20, 3), dtype=np.uint8)
    kept = chips.copy()
    sizes, mirrored = np.array([0, 0, 8, 12, 8]), np.array([False, True, False, True, True])
    found = teacher_view(chips, sizes, mirrored).numpy()
    assert found.dtype == np.uint8 and np.array_equal(chips, kept)
    for row, (size, flip) in enumerate(zip(sizes, mirrored, strict=True)):
        face = chips[row : row + 1, :, ::-1] if flip else chips[row : row + 1]
        expected = degrade(np.ascontiguousarray(face), int(size), 20) if size else face
        assert np.array_equal(found[row : row + 1], expected)


@pytest.mark.parametrize("flags", [[False, False], [True, True]])
def test_high_resolution_faces_stay_as_they_are(flags: list[bool]):
    chips = np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3)
    found = teacher_view(chips, np.zeros(2, dtype=np.int64), np.array(flags)).numpy()
    assert np.array_equal(found, chips[:, :, ::-1] if flags[0] else chips)


def test_the_validation_error_is_of_validation_people_at_low_resolution(tiny: Study):
    fold, trained = read_fold(tiny, 0), load_trained(tiny, 0, "pretrained")
    error = validation_error(tiny, trained, fold)
    assert 0 <= error <= 1
    chips = np.array(fold.chips)
    chips[[*fold.images, *fold.test]] = 0
    assert validation_error(tiny, trained, fold._replace(chips=chips)) == error
    chips[fold.validation] = chips[fold.validation][0]  # all faces alike: nothing can be told apart
    assert validation_error(tiny, trained, fold._replace(chips=chips)) == pytest.approx(0.5)


def test_an_epoch_trains_every_layer(tiny: Study):
    tuner = Tuner(tiny, tiny.models["kd_tuned_teacher"].tuned, read_fold(tiny, 0))
    before = tuner.state()
    assert tuner.epoch(1) > 0
    after = tuner.state()
    trained = {name for name, _ in tuner.trained.net.named_parameters()}
    assert {name for name in before["net"] if not torch.equal(before["net"][name], after["net"][name])} == trained
    assert not torch.equal(before["head"]["weight"], after["head"]["weight"])


@pytest.mark.parametrize(
    ("errors", "epochs", "best"),
    [
        ([0.5, 0.4, 0.3, 0.3, 0.35], 4, 2),  # an equal error is no improvement; patience 2
        ([0.2, 0.4, 0.3], 2, 0),  # never better than the start
        ([0.5, 0.4, 0.45, 0.3, 0.2], 4, 4),  # until max_epochs
    ],
)
def test_it_stops_when_validation_stops_improving_and_keeps_the_best(
    tiny: Study, monkeypatch: pytest.MonkeyPatch, errors: list[float], epochs: int, best: int
):
    spec = tiny.models["kd_tuned_teacher"].tuned.model_copy(update={"patience": 2, "max_epochs": 4})

    def epoch(self: Tuner, number: int) -> float:
        with torch.no_grad():
            self.trained.net.fc.weight.fill_(number)
        return 1.0 * number

    script = iter(errors)
    monkeypatch.setattr(Tuner, "epoch", epoch)
    monkeypatch.setattr(tuned, "validation_error", lambda *_: next(script))
    monkeypatch.setattr(tuned, "embed", lambda function, inputs: torch.randn(len(inputs), 128))
    trained, log = tune(tiny, spec, read_fold(tiny, 0))
    assert [value for _, term, value in log if term == "teacher_validation_eer"] == errors[: epochs + 1]
    assert [(e, value) for e, term, value in log if term == "teacher_face"] == [(e, e) for e in range(1, epochs + 1)]
    expected = torch.full((128, 256), float(best)) if best else build_teacher("dlib_resnet", "embedded").fc.weight
    assert torch.equal(trained.net.fc.weight, expected)
    assert not trained.net.training and not any(p.requires_grad for p in trained.net.parameters())


def test_the_same_study_tunes_the_same_teacher(tiny: Study, changed: Callable[..., Study]):
    fold, spec = read_fold(tiny, 0), tiny.models["kd_tuned_teacher"].tuned
    (first, log), (second, other) = (tune(tiny, spec, fold) for _ in range(2))
    assert log == other and torch.equal(first.class_weight, second.class_weight) and torch.equal(first.mean, second.mean)
    states = first.net.state_dict(), second.net.state_dict()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
