"""The one loop: the same views and first weights for all, and a teacher left alone."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from lrfr.config import Study
from lrfr.data.draws import Draw, move, view_index
from lrfr.errors import UserError
from lrfr.models.student import normalise
from lrfr.train import distill as loop
from lrfr.train.distill import Trainer, gradient_ratios
from lrfr.train.fold import read_fold, teacher_input
from lrfr.train.teacher import load_trained
from lrfr.train.trainings import training

MOVED = np.float32([[0.5, -1, 1, -0.25], [-1, 0.5, -0.5, 1]])  # drawn moves of two rows
PLAIN = np.tile(np.eye(3, dtype=np.float32), (2, 1, 1))  # colours as they are
AREA = np.zeros(2, np.int64)  # the first kind of small image


@pytest.mark.parametrize("model", ["kd", "fitnet", "at", "se_dfd", "kd_tuned_teacher"])
def test_the_teacher_is_frozen_in_eval_mode_and_gets_no_gradient(tiny: Study, model: str):
    trainer = Trainer(training(tiny, model), read_fold(tiny, 0), 0)
    trainer.source.cached = None
    net = trainer.source.online.trained.net
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    trainer.epoch(tiny.train.epochs - 1)
    assert not any(module.training for module in net.modules()) and trainer.student.training
    assert all(p.grad is None and not p.requires_grad for p in net.parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())
    optimised = {id(p) for group in trainer.optimizer.param_groups for p in group["params"]}
    assert not optimised & {id(p) for p in net.parameters()}


def test_every_parameter_of_student_head_and_method_is_trained_once(tiny: Study):
    trainer = Trainer(training(tiny, "fitnet"), read_fold(tiny, 0), 0)
    modules = (trainer.student.module, trainer.head, trainer.method)
    own = [id(p) for module in modules for p in module.parameters()]
    groups = trainer.optimizer.param_groups
    assert sorted(own) == sorted(id(p) for group in groups for p in group["params"])
    assert all(p.ndim > 1 for p in groups[0]["params"]) and groups[0]["weight_decay"] == tiny.train.weight_decay
    assert all(p.ndim <= 1 for p in groups[1]["params"]) and groups[1]["weight_decay"] == 0


def test_all_models_of_a_seed_start_from_the_same_student_and_see_the_same_draws(tiny: Study):
    first, second, high = (
        Trainer(training(tiny, name), read_fold(tiny, 0), 0) for name in ("scratch", "fitnet", "hr_student")
    )
    states = [trainer.student.module.state_dict() for trainer in (first, second, high)]
    assert all(torch.equal(states[0][name], other[name]) for name in states[0] for other in states[1:])
    assert all(torch.equal(first.head.weight, trainer.head.weight) for trainer in (second, high))
    for (ids, draw), (other_ids, other), (high_ids, full) in zip(
        first.batches(1), second.batches(1), high.batches(1), strict=True
    ):
        assert np.array_equal(ids, other_ids) and all(np.array_equal(a, b) for a, b in zip(draw, other, strict=True))
        assert np.array_equal(ids, high_ids) and not full.resolution.any() and draw.resolution.any()
        assert np.array_equal(draw.mirrored, full.mirrored) and set(ids.tolist()) <= set(first.fold.images.tolist())


def test_the_head_may_start_from_the_class_centres_of_the_teacher(tiny: Study, changed: Callable[..., Study]):
    """Of a teacher that does not mislead: shuffled targets belong to other people than the class centres."""
    centres = {"models.scratch_centres": tiny.models["scratch"].model_dump() | {"teacher": "plain"}}
    random, study = (
        changed(tiny, centres | {"student.embedding": 128, "train.head": head}) for head in ("random", "teacher")
    )
    fold, own = read_fold(tiny, 0), tiny.teacher.setting
    named = {"feature": own, "se_dfd": "se", "scratch_centres": own, "scratch": None, "shuffled": None}
    for name, setting in named.items():
        first, second = (Trainer(training(each, name), fold, 0) for each in (random, study))
        expected = load_trained(tiny, 0, setting).class_weight if setting else first.head.weight
        assert torch.equal(second.head.weight, expected) and second.head.weight.requires_grad
        if setting:
            assert not torch.equal(first.head.weight, expected)
            second.epoch(0)  # trains the head and leaves the teacher alone, whose logits are made with the same centres
            if name == "scratch_centres":  # never asks the teacher anything
                assert second.source.online is None and second.method.needs == frozenset()
            else:
                assert torch.equal(second.source.online.trained.class_weight, expected)
            assert not torch.equal(second.head.weight, expected)


def test_the_student_sees_the_drawn_views(tiny: Study):
    trainer = Trainer(training(tiny, "scratch"), read_fold(tiny, 0), 0)
    ids, views = trainer.fold.images[[3, 1]], trainer.fold.views["area"]
    jitter = np.float32([1.5, 1]), np.float32([0, 0.25]), MOVED, PLAIN
    draw = Draw(np.array([9, 0]), np.array([True, False]), *jitter, AREA)
    found = trainer.inputs(ids, draw)
    last = view_index(np.array(0), tiny.views.smallest, tiny.views.largest)
    for row, pixels, gain, bias in ((0, views[ids[0], 1, :, ::-1], 1.5, 0), (1, views[ids[1], int(last)], 1, 0.25)):
        seen = normalise(torch.from_numpy(pixels.copy())[None])[0]
        assert torch.allclose(found[row], seen * gain + bias, atol=1e-6)
    assert np.array_equal(views, np.load(tiny.runs / "views" / "area.npy"))  # flipping is of a copy


def test_the_drawn_moves_are_those_of_the_mirrored_view(tiny: Study, changed: Callable[..., Study]):
    study = changed(tiny, {"train.rotate": 8, "train.zoom": 0.1, "train.shift": 0.05})
    fold = read_fold(study, 0)
    plain, moved = (Trainer(training(each, "scratch"), fold, 0) for each in (tiny, study))
    draw = Draw(
        np.array([9, 16]), np.array([True, False]), np.float32([1.5, 1]), np.float32([0, 0.25]), MOVED, PLAIN, AREA
    )
    gain, bias = (torch.from_numpy(x)[:, None, None, None] for x in (draw.gain, draw.bias))
    ids = fold.images[[3, 1]]
    seen = (plain.inputs(ids, draw) - bias) / gain
    found = moved.inputs(ids, draw)
    assert torch.allclose(found, move(seen, torch.from_numpy(MOVED), 8, 0.1, 0.05) * gain + bias, atol=1e-5)
    assert (found - plain.inputs(ids, draw)).abs().max() > 0.1 and found.is_contiguous(
        memory_format=torch.channels_last
    )
    for name in ("rotate", "zoom", "shift"):  # each of them alone is enough
        alone = Trainer(training(changed(tiny, {f"train.{name}": 0.3}), "scratch"), fold, 0)
        assert not torch.equal(alone.inputs(ids, draw), plain.inputs(ids, draw))


def test_the_drawn_colours_are_shown_if_the_study_asks_for_them(tiny: Study, changed: Callable[..., Study]):
    fold = read_fold(tiny, 0)
    plain = Trainer(training(tiny, "scratch"), fold, 0)
    ids, draw = plain.batches(0)[0]
    assert plain.inputs(ids, draw._replace(colour=5 * draw.colour)).equal(plain.inputs(ids, draw))  # not even read
    for recipe in ({"train.grey": 1.0}, {"train.cast": 0.3}):
        trainer = Trainer(training(changed(tiny, recipe), "scratch"), fold, 0)
        (_, drawn), views = trainer.batches(0)[0], plain.inputs(ids, draw)
        assert all(np.array_equal(a, b) for a, b in zip(drawn[:-2], draw[:-2], strict=True))
        gain, bias = (torch.from_numpy(x)[:, None, None, None] for x in (draw.gain, draw.bias))
        mixed = torch.einsum("bij,bjhw->bihw", torch.from_numpy(drawn.colour), (views - bias) / gain) * gain + bias
        found = trainer.inputs(ids, drawn)
        assert torch.allclose(found, mixed, atol=1e-5) and (found - views).abs().max() > 0.01
        assert found.is_contiguous(memory_format=torch.channels_last)
        grey = (found - found[:, :1]).abs().max() < 1e-6
        assert grey == ("train.grey" in recipe)
    identity = draw._replace(colour=np.broadcast_to(PLAIN[:1], draw.colour.shape).copy())
    assert trainer.inputs(ids, identity).equal(plain.inputs(ids, draw))  # colours as they are, to the bit


def test_a_grey_view_is_what_a_grey_photograph_shows(tiny: Study, changed: Callable[..., Study]):
    """Pillow's own conversion of the same 8-bit colours, to within a grey level."""
    trainer = Trainer(
        training(changed(tiny, {"train.grey": 1.0, "train.jitter": 0.0}), "scratch"), read_fold(tiny, 0), 0
    )
    ids, draw = trainer.batches(0)[0]
    found = trainer.inputs(ids[:1], Draw(*(field[:1] for field in draw)))[0]
    view = view_index(draw.resolution[:1], tiny.views.smallest, tiny.views.largest)
    pixels = trainer.fold.views["area"][ids[:1], view][0, :, :: -1 if draw.mirrored[0] else 1]
    grey = np.asarray(Image.fromarray(np.ascontiguousarray(pixels)).convert("L").convert("RGB"))
    level = float((normalise(torch.ones(1, 1, 1, 3)) - normalise(torch.zeros(1, 1, 1, 3))).max())  # of one grey level
    assert (found - normalise(torch.from_numpy(grey.copy())[None])[0]).abs().max() < level


def test_an_on_line_teacher_sees_the_high_resolution_face_and_its_mirror(tiny: Study):
    trainer = Trainer(training(tiny, "feature"), read_fold(tiny, 0), 0)
    ids = trainer.fold.images[:3]
    draw = Draw(
        np.array([8, 0, 12]),
        np.array([False, True, True]),
        np.ones(3),
        np.zeros(3),
        np.zeros((3, 4)),
        PLAIN,
        np.zeros(3, int),
    )
    cached = trainer.source(ids, draw)
    trainer.source.cached = None
    assert torch.allclose(trainer.source(ids, draw).embedding, cached.embedding, atol=1e-4)


def test_the_conventional_teacher_sees_the_students_view(tiny: Study):
    trainer = Trainer(training(tiny, "kd_tuned_teacher"), read_fold(tiny, 0), 0)
    terms = {term for _, term, _ in trainer.source.log}
    assert trainer.source.cached is None and terms == {"teacher_face", "teacher_validation_eer"}
    ids, flags = trainer.fold.images[:2], np.zeros(2, dtype=bool)
    low, high = (
        trainer.source(ids, Draw(np.full(2, size), flags, np.ones(2), np.zeros(2), MOVED, PLAIN, AREA)).logits
        for size in (8, 0)
    )
    teacher = trainer.source.online.trained
    with torch.inference_mode():
        embedding = (
            teacher.net(teacher_input(torch.from_numpy(trainer.fold.chips[ids]))).embedding - teacher.mean
        ) / teacher.rms
        cosines = nn.functional.normalize(embedding) @ nn.functional.normalize(teacher.class_weight).T
    assert torch.allclose(high, teacher.scale * cosines, atol=1e-3) and (low - high).abs().max() > 0.01


def test_shuffled_targets_are_shuffled(tiny: Study):
    fold = read_fold(tiny, 0)
    plain, shuffled = (Trainer(training(tiny, name), fold, 0) for name in ("feature", "shuffled"))
    ids, draw = plain.batches(0)[0]
    distances = torch.cdist(shuffled.source(ids, draw).embedding, plain.source(ids, draw).embedding).diagonal()
    assert distances.min() > 0


def test_targets_that_are_not_stored_are_never_passed_off_as_shuffled(tiny: Study, changed: Callable[..., Study]):
    """A control that quietly teaches the truth would be worse than none."""
    study = changed(tiny, {"models.at.teacher": "shuffled"})
    for path in (study.runs / "targets" / "fold0" / "plain").glob("attention*.npy"):
        path.unlink()
    with pytest.raises(UserError, match="shuffled"):
        Trainer(training(study, "at"), read_fold(study, 0), 0)


def test_the_learning_rate_warms_up_and_decays_to_zero(tiny: Study):
    trainer = Trainer(training(tiny, "scratch"), read_fold(tiny, 0), 0)
    rate, warmup = tiny.train.learning_rate, tiny.train.warmup
    assert trainer.learning_rate(warmup / 2) == pytest.approx(rate / 2)
    assert trainer.learning_rate(warmup) == pytest.approx(rate)
    assert trainer.learning_rate(warmup + (1 - warmup) / 2) == pytest.approx(rate / 2)
    assert trainer.learning_rate(warmup + (1 - warmup) / 3) == pytest.approx(rate * 0.75)
    assert trainer.learning_rate(1) == pytest.approx(0, abs=1e-12)


def test_the_margin_grows_from_zero(tiny: Study, monkeypatch: pytest.MonkeyPatch):
    trainer = Trainer(training(tiny, "scratch"), read_fold(tiny, 0), 0)
    ids, draw = trainer.batches(0)[0]
    seen = []
    monkeypatch.setattr(trainer.head, "loss", lambda embedding, labels, margin: seen.append(margin) or embedding.sum())
    for progress in (0, loop.MARGIN_RAMP / 2, loop.MARGIN_RAMP, 1):
        trainer.losses(ids, draw, progress)
    assert seen == pytest.approx([0, tiny.train.margin / 2, tiny.train.margin, tiny.train.margin])


def test_training_lowers_the_face_loss(tiny: Study, changed: Callable[..., Study]):
    study = changed(tiny, {"train.epochs": 8, "train.margin": 0.0})
    trainer = Trainer(training(study, "scratch"), read_fold(study, 0), 0)
    losses = [trainer.epoch(epoch)[0]["face"] for epoch in range(8)]
    assert losses[-1] < 0.7 * losses[0]


def scalar(weight: float) -> nn.Linear:
    layer = nn.Linear(1, 1, bias=False)
    nn.init.constant_(layer.weight, weight)
    return layer


def test_gradient_ratios_of_a_network_that_can_be_computed_by_hand():
    """y = b a x with a = 2, b = 5, x = 3: dy/db = a x = 6, dy/da = b x = 15, d(a x)/da = x = 3."""
    stages = nn.ModuleList([scalar(2.0), scalar(5.0)])
    middle = stages[0](torch.tensor([[3.0]]))
    y = stages[1](middle).sum()
    terms = {
        "face": 2 * y,
        "whole": 0.5 * y,  # reaches both stages
        "early": 4 * middle.sum(),  # reaches the first alone: 4 * 3 against 2 * 15
        "constant": torch.tensor(7.0),
        "still": 0.0 * y,
    }
    found = gradient_ratios(terms, stages)
    expected = {("whole", "stage1"): 0.25, ("whole", "stage2"): 0.25, ("early", "stage1"): 0.4}
    expected |= {(term, stage): 0.0 for term in ("constant", "still") for stage in ("stage1", "stage2")}
    assert found == pytest.approx(expected)
    assert all(p.grad is None for p in stages.parameters())
    assert math.isclose(gradient_ratios({"face": y, "same": y}, stages)["same", "stage2"], 1)


def test_measuring_changes_no_weight(tiny: Study):
    first, second = (Trainer(training(tiny, "hkdd"), read_fold(tiny, 0), 0) for _ in range(2))
    first.epoch(0, measure=True), second.epoch(0)
    pairs = zip(first.student.module.state_dict().values(), second.student.module.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_only_the_first_batches_are_measured(tiny: Study, monkeypatch: pytest.MonkeyPatch):
    trainer = Trainer(training(tiny, "hkdd"), read_fold(tiny, 0), 0)
    assert len(trainer.batches(0)) == 2
    seen = []
    monkeypatch.setattr(loop, "MEASURED", 1)
    monkeypatch.setattr(
        loop, "gradient_ratios", lambda terms, stages: seen.append(terms) or {("hfd", "stage4"): len(seen)}
    )
    assert trainer.epoch(0)[1] == {} and not seen
    assert trainer.epoch(0, measure=True)[1] == {("hfd", "stage4"): 1} and len(seen) == 1
    monkeypatch.setattr(loop, "MEASURED", 5)
    assert trainer.epoch(0, measure=True)[1] == {("hfd", "stage4"): 2.5}  # the mean over batches


@pytest.mark.parametrize(("term", "value"), [("hfd", "nan"), ("face", "inf")])
def test_a_loss_that_is_no_number_stops_the_training_at_once(
    tiny: Study, monkeypatch: pytest.MonkeyPatch, term: str, value: str
):
    trainer = Trainer(training(tiny, "hkdd"), read_fold(tiny, 0), 0)
    honest, steps = trainer.losses, []

    def broken(ids: np.ndarray, draw: Draw, progress: float) -> dict[str, torch.Tensor]:
        terms = honest(ids, draw, progress)
        steps.append(progress)
        return terms if len(steps) < 2 else terms | {term: terms[term] * float(value)}

    monkeypatch.setattr(trainer, "losses", broken)
    before = [parameter.clone() for parameter in trainer.student.parameters()]
    with pytest.raises(UserError) as error:
        trainer.epoch(1)
    said = f"hkdd, seed 0: the term '{term}' is {value} in epoch 2, step 2; lower learning_rate or its weight."
    assert str(error.value) == said and len(steps) == 2
    after = list(trainer.student.parameters())
    assert not all(torch.equal(a, b) for a, b in zip(before, after, strict=True)) and all(
        p.isfinite().all() for p in after
    )


def test_an_epoch_may_be_cut_short_and_begins_as_ever(tiny: Study):
    whole, part = (Trainer(training(tiny, "feature"), read_fold(tiny, 0), 0) for _ in range(2))
    part.epoch(1, most=1)
    rate = part.optimizer.param_groups[0]["lr"]
    assert rate == pytest.approx(whole.learning_rate((1 + 1 / 2) / 3))  # an epoch's progress is that of all its batches
    ids, draw = whole.batches(1)[0]
    for group in whole.optimizer.param_groups:
        group["lr"] = rate
    whole.student.train()
    terms = whole.losses(ids, draw, 0.5)
    sum(terms.values()).backward()
    whole.optimizer.step()
    states = whole.student.module.state_dict(), part.student.module.state_dict()
    assert all(torch.allclose(states[0][name], states[1][name], atol=1e-6) for name in states[0])


@pytest.mark.parametrize("resolution", [8, 12, 16])
def test_the_validation_error_changes_no_weight_and_knows_no_training_person(
    tiny: Study, monkeypatch: pytest.MonkeyPatch, resolution: int
):
    trainer = Trainer(training(tiny, "scratch"), read_fold(tiny, 0), 0)
    before = {name: tensor.clone() for name, tensor in trainer.student.module.state_dict().items()}
    error = trainer.validation_error(resolution, "area")
    assert 0 <= error <= 1
    after = trainer.student.module.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    monkeypatch.setattr(loop, "BATCH", 5)
    assert trainer.validation_error(resolution, "area") == pytest.approx(error, abs=1e-6)
    fold, view = trainer.fold, resolution - tiny.views.smallest
    blank = np.zeros_like(fold.views["area"])
    blank[fold.validation, view] = fold.views["area"][fold.validation, view]  # all that counts
    trainer.fold = fold._replace(views={"area": blank})
    assert trainer.validation_error(resolution, "area") == pytest.approx(error, abs=1e-6)
    blank[fold.validation, view] = 0  # all faces alike: nothing can be told apart
    assert trainer.validation_error(resolution, "area") == pytest.approx(0.5)


@pytest.mark.parametrize("model", ["scratch", "hkdd", "icd_face", "acs_review"])
def test_people_with_a_single_photograph_are_taught_but_are_no_class(singles: Study, model: str):
    fold = read_fold(singles, 0)
    assert sorted(fold.labels) == [-1] + [0] * 4 + [1] * 4 and set(fold.persons) == {0, 1, 2}
    trainer = Trainer(training(singles, model), fold, 0)
    assert trainer.head.weight.shape[0] == 2
    alone = int(fold.images[fold.labels == -1][0])
    assert trainer.class_of[fold.images].tolist() == fold.labels.tolist()
    drawn = [epoch for epoch in range(9) if alone in np.concatenate([ids for ids, _ in trainer.batches(epoch)])]
    means, _ = trainer.epoch(drawn[0])
    assert all(np.isfinite(value) for value in means.values())
    assert all(parameter.isfinite().all() for parameter in trainer.student.parameters())
    if model == "icd_face":
        assert alone not in trainer.method.bank.image and (trainer.method.bank.image >= 0).any()
    # a batch of nobody else still teaches
    draw = Draw(
        np.full(2, 8), np.array([True, False]), np.ones(2, np.float32), np.zeros(2, np.float32), MOVED, PLAIN, AREA
    )
    terms = trainer.losses(np.array([alone, alone]), draw, 1.0)
    assert terms["face"] == 0 and all(term.isfinite() for term in terms.values())
    taught = {"hfd", "fcd", "review"} & terms.keys()
    assert all(terms[name] > 0 for name in taught) and bool(taught) == (model != "scratch")
    sum(terms.values()).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in trainer.student.parameters())
