"""The conventional scheme: the teacher sees the student's view, and stops when validation does."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from lrfr.config import Study
from lrfr.models.features import Features
from lrfr.models.teachers import build_teacher
from lrfr.train import tuned_teacher as tuned
from lrfr.train.fold import read_fold
from lrfr.train.teacher import load_trained
from lrfr.train.trainings import training
from lrfr.train.tuned_teacher import Tuner, tune, validation_error


def test_the_validation_error_is_of_validation_people_at_low_resolution(tiny: Study):
    fold, trained = read_fold(tiny, 0), load_trained(tiny, 0, "pretrained")
    error = validation_error(tiny.teacher.name, trained, fold)
    assert 0 <= error <= 1
    chips = np.array(fold.chips)
    chips[[*fold.images, *fold.test]] = 0
    assert validation_error(tiny.teacher.name, trained, fold._replace(chips=chips)) == error
    chips[fold.validation] = chips[fold.validation][0]  # all faces alike: nothing can be told apart
    assert validation_error(tiny.teacher.name, trained, fold._replace(chips=chips)) == pytest.approx(0.5)


def test_an_epoch_trains_every_layer(tiny: Study):
    tuner = Tuner(training(tiny, "kd_tuned_teacher"), read_fold(tiny, 0))
    before = tuner.state()
    assert tuner.epoch(1) > 0
    after = tuner.state()
    trained = {name for name, _ in tuner.trained.net.named_parameters()}
    assert {name for name in before["net"] if not torch.equal(before["net"][name], after["net"][name])} == trained
    assert not torch.equal(before["head"]["weight"], after["head"]["weight"])


@pytest.mark.parametrize(("most", "steps"), [(None, 2), (1, 1), (0, 0), (9, 2)])
def test_an_epoch_may_be_cut_short(tiny: Study, monkeypatch: pytest.MonkeyPatch, most: int | None, steps: int):
    """18 photographs in batches of 9; nothing is trained, so that only steps are counted."""
    tuner, seen = Tuner(training(tiny, "kd_tuned_teacher"), read_fold(tiny, 0)), []
    weight = torch.ones((), requires_grad=True)
    monkeypatch.setattr(tuner.head, "loss", lambda *rest: seen.append(rest[1].tolist()) or weight * 2)
    monkeypatch.setattr(tuner.trained.net, "forward", lambda x: Features((), torch.zeros(len(x), 128)))
    if steps:
        assert tuner.epoch(1, most) == pytest.approx(2)
        assert len(seen) == steps and all(set(labels) <= {0, 1, 2} for labels in seen)


def test_people_with_a_single_photograph_are_no_class_of_the_tuned_teacher(singles: Study):
    tuner = Tuner(training(singles, "kd_tuned_teacher"), fold := read_fold(singles, 0))
    assert tuner.head.weight.shape[0] == 2 and tuner.class_of[fold.images].tolist() == fold.labels.tolist()
    assert np.isfinite(tuner.epoch(1)) and all(p.isfinite().all() for p in tuner.trained.net.parameters())


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
    one = training(tiny, "kd_tuned_teacher")
    spec = one.model.tuned.model_copy(update={"patience": 2, "max_epochs": 4})
    one = one.model_copy(update={"model": one.model.model_copy(update={"tuned": spec})})

    def epoch(self: Tuner, number: int, most: int | None = None) -> float:
        with torch.no_grad():
            self.trained.net.fc.weight.fill_(number)
        return 1.0 * number

    script = iter(errors)
    monkeypatch.setattr(Tuner, "epoch", epoch)
    monkeypatch.setattr(tuned, "validation_error", lambda *_: next(script))
    monkeypatch.setattr(tuned, "embed", lambda function, inputs: torch.randn(len(inputs), 128))
    trained, log = tune(one, read_fold(tiny, 0))
    assert [value for _, term, value in log if term == "teacher_validation_eer"] == errors[: epochs + 1]
    assert [(e, value) for e, term, value in log if term == "teacher_face"] == [(e, e) for e in range(1, epochs + 1)]
    expected = torch.full((128, 256), float(best)) if best else build_teacher("dlib_resnet", "embedded").fc.weight
    assert torch.equal(trained.net.fc.weight, expected)
    assert not trained.net.training and not any(p.requires_grad for p in trained.net.parameters())


def test_the_same_study_tunes_the_same_teacher(tiny: Study, changed: Callable[..., Study]):
    fold = read_fold(tiny, 0)
    (first, log), (second, other) = (tune(training(tiny, "kd_tuned_teacher"), fold) for _ in range(2))
    assert (
        log == other and torch.equal(first.class_weight, second.class_weight) and torch.equal(first.mean, second.mean)
    )
    states = first.net.state_dict(), second.net.state_dict()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
