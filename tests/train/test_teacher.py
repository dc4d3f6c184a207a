"""Fine-tuning changes what its setting says, to the last bit nothing else; `tune` stops when validation does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from lrfr.config import Study
from lrfr.errors import UserError
from lrfr.gate.state import read_state
from lrfr.models.features import Features
from lrfr.models.heads import unit
from lrfr.models.teachers import build_teacher, see_chip
from lrfr.streams import stream
from lrfr.train import teacher
from lrfr.train.fold import read_fold, teacher_input
from lrfr.train.targets import Source
from lrfr.train.teacher import Tuner, load_trained, tune, validation_error
from lrfr.train.trainings import training

BELONGS = {
    "pretrained": lambda name: False,
    "head": lambda name: name.startswith("fc."),
    "last_stage": lambda name: name.startswith(("last_stage.", "fc.")),
    "se": lambda name: name.startswith("fc.") or ".gate." in name,
}


@pytest.mark.parametrize("setting", BELONGS)
def test_weights_differ_exactly_where_the_setting_says(tiny: Study, setting: str):
    reduction = teacher.SE_REDUCTION if setting == "se" else None
    before = build_teacher("dlib_resnet", "embedded", reduction).state_dict()
    trained = teacher.load_trained(tiny, 0, setting)
    after = trained.net.state_dict()
    different = {name for name in before if not torch.equal(before[name], after[name])}
    assert different == {name for name in before if BELONGS[setting](name)}
    stored = read_state(tiny.runs / "teacher" / "fold0" / f"{setting}.safetensors")
    assert {n.removeprefix("net.") for n in stored if n.startswith("net.")} == different
    assert not trained.net.training and not any(p.requires_grad for p in trained.net.parameters())


@pytest.mark.parametrize("setting", BELONGS)
def test_the_statistics_are_those_of_the_finished_network(tiny: Study, setting: str):
    trained, fold = teacher.load_trained(tiny, 0, setting), read_fold(tiny, 0)
    chips = torch.from_numpy(fold.chips[fold.images])
    with torch.inference_mode():
        raw = torch.cat([trained.net(teacher_input(x)).embedding for x in (chips, chips.flip(2))]).double()
    assert torch.allclose(raw.mean(0), trained.mean.double(), atol=1e-5)
    standardised = (raw - trained.mean) / trained.rms
    assert standardised.square().sum(1).mean() == pytest.approx(1, abs=1e-3)
    if setting == "pretrained":  # class weights are the mean directions; both kinds of image count
        labels = np.tile(fold.labels, 2)
        expected = torch.stack([unit(standardised)[labels == c].mean(0) for c in range(3)])
        assert torch.allclose(trained.class_weight.double(), expected, atol=1e-4)
    logits = unit(standardised.float()) @ unit(trained.class_weight).T
    assert (logits.argmax(1).numpy() == np.tile(fold.labels, 2)).all()  # invented people are easy to tell apart


def test_the_log_has_a_line_for_every_epoch(tiny: Study):
    log = pd.read_csv(tiny.runs / "teacher" / "log.csv")
    assert list(log.columns) == ["fold", "setting", "epoch", "loss", "accuracy"]
    assert log.groupby("setting").size().to_dict() == {"head": 2, "last_stage": 1, "se": 1}
    assert log.accuracy.between(0, 1).all() and (log.loss > 0).all()


def test_the_same_bytes_twice_and_with_two_processes(tiny: Study, changed: Callable[..., Study]):
    folder = tiny.runs / "teacher"
    before = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    teacher.run(changed(tiny, {"jobs": 2}))
    assert {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert len(before) == 5


def test_standardisation_at_known_points():
    mean, rms = teacher.standardisation(torch.tensor([[1.0, 0.0], [3.0, 0.0], [2.0, 1.0], [2.0, -1.0]]))
    assert mean.tolist() == [2, 0] and rms == 1


def test_class_means_are_means_of_unit_vectors():
    embeddings = torch.tensor([[3.0, 0.0], [0.0, 5.0], [0.0, -2.0]])
    assert teacher.class_means(embeddings, torch.tensor([0, 0, 1])).tolist() == [[0.5, 0.5], [0, -1]]


def test_people_with_a_single_photograph_are_no_class_of_the_teacher(singles: Study):
    fold = read_fold(singles, 0)
    chips = torch.from_numpy(fold.chips[fold.images])
    for setting in ("pretrained", "head", "last_stage"):
        trained = teacher.load_trained(singles, 0, setting)
        assert trained.class_weight.shape == (2, 128) and trained.class_weight.isfinite().all()
        with torch.inference_mode():  # but they count in the statistics: students learn from them too
            raw = torch.cat([trained.net(teacher_input(x)).embedding for x in (chips, chips.flip(2))])
        assert torch.allclose(raw.mean(0), trained.mean, atol=1e-5)
    log = pd.read_csv(singles.runs / "teacher" / "log.csv")
    assert log.accuracy.between(0, 1).all() and np.isfinite(log.loss).all()
    labels = np.tile(fold.labels, 2)
    for row in log.itertuples():  # accuracy is of those who are a class
        seen = labels[stream("teacher_order", singles.seed, row.epoch).permutation(18)[:9]]
        hits = row.accuracy * (seen >= 0).sum()
        assert hits == pytest.approx(round(hits), abs=1e-3)
    assert log.accuracy.max() > 0


def test_mirror_images_come_second(tiny: Study):
    fold = read_fold(tiny, 0)
    seen = teacher.both_views(see_chip, fold)(torch.arange(36))
    assert np.array_equal(seen[:18].numpy(), fold.chips[fold.images])
    assert np.array_equal(seen[18:].numpy(), fold.chips[fold.images][:, :, ::-1])


def test_batches_and_a_file_do_not_change_an_embedding(tmp_path: Path):
    inputs = torch.arange(2.0 * teacher.BATCH + 3).reshape(-1, 1)
    found = teacher.embed(lambda x: 2 * x, inputs.__getitem__, len(inputs))
    assert torch.equal(found, 2 * inputs) and not found.is_inference()
    read = teacher.stored(lambda x: 2 * x, inputs.__getitem__, len(inputs), tmp_path / "stored.npy")
    assert torch.equal(read(torch.tensor([3, 0])), torch.tensor([[6.0], [0.0]]))


def test_an_adapted_student_begins_with_its_own_teachers_answer(tiny: Study, changed: Callable[..., Study]):
    """EdgeFace is not with the project: dlib's network stands for it, under another name of the same kind."""
    values = tiny.models["feature"].model_dump() | {"student": "adapted", "teacher": "own"}
    pretrained = {"name": "dlib_resnet", "weights": "embedded"}
    study = changed(tiny, {"student.pretrained": pretrained, "models": {**tiny.models, "feature": values}})
    fold = read_fold(study, 0)
    trained, answers = teacher.own(training(study, "feature"), fold)
    assert answers.shape == (18, 2, 128) and not trained.mean.any()
    with torch.inference_mode():
        raw = trained.net(teacher_input(torch.from_numpy(fold.chips[fold.images]).flip(2))).embedding
    assert np.allclose(answers[:, 1], raw / trained.rms, atol=1e-5)
    source = Source(training(study, "feature"), fold)
    no = np.zeros(18, bool)
    assert np.array_equal(source.cached(fold.images, no).embedding.numpy(), answers[:, 0])


def test_a_teacher_file_of_another_network_is_refused(tiny: Study):
    folder = tiny.runs / "teacher" / "fold0"
    (folder / "head.safetensors").write_bytes((folder / "se.safetensors").read_bytes())
    with pytest.raises(UserError, match="head.safetensors: a checkpoint of another architecture"):
        teacher.load_trained(tiny, 0, "head")


def test_a_network_without_gates_trains_no_se_teacher(
    tiny: Study, changed: Callable[..., Study], monkeypatch: pytest.MonkeyPatch
):
    seen = []
    monkeypatch.setattr(
        teacher, "parallel_map", lambda function, tasks, *rest: seen.extend(t[2] for t in tasks) or [[] for _ in tasks]
    )
    teacher.run(changed(tiny, {"teacher.se": None}))
    assert seen == [("pretrained", "head", "last_stage")]


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
    monkeypatch.setattr(teacher, "validation_error", lambda *_: next(script))
    monkeypatch.setattr(teacher, "embed", lambda function, inputs, count: torch.randn(count, 128))
    trained, log = tune(one, read_fold(tiny, 0))
    assert [value for _, term, value in log if term == "teacher_validation_eer"] == errors[: epochs + 1]
    assert [(e, value) for e, term, value in log if term == "teacher_face"] == [(e, e) for e in range(1, epochs + 1)]
    expected = torch.full((128, 256), float(best)) if best else build_teacher("dlib_resnet", "embedded").fc.weight
    assert torch.equal(trained.net.fc.weight, expected)
    assert not trained.net.training and not any(p.requires_grad for p in trained.net.parameters())


def test_the_same_study_tunes_the_same_teacher(tiny: Study, changed: Callable[..., Study]):
    fold = read_fold(tiny, 0)
    few = fold._replace(images=fold.images[::2], labels=fold.labels[::2], validation=fold.validation[::3])
    (first, log), (second, other) = (tune(training(tiny, "kd_tuned_teacher"), few) for _ in range(2))
    assert (
        log == other and torch.equal(first.class_weight, second.class_weight) and torch.equal(first.mean, second.mean)
    )
    states = first.net.state_dict(), second.net.state_dict()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
