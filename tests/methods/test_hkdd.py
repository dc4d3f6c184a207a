from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from lrfr.methods.baselines import soft_targets
from lrfr.methods.hkdd import HKDD, decoupled_kd, decoupled_terms, hierarchical_cosine, log_split
from lrfr.methods.se_dfd import feature_distillation
from lrfr.models.features import Features, Shapes, Targets
from tests.methods.inputs import LOGIT_LABELS, STUDENT_LOGITS, STUDENT_MAPS, TEACHER_LOGITS, TEACHER_MAPS, exactly

OPTIONS = {"hfd": 1.0, "dkd": 1.0, "temperature": 4.0, "alpha": 1.0, "beta": 8.0, "warmup": 0.5, "logits": "dkd"}
SHAPES = Shapes(((3, 4), (4, 2)), ((3, 4), (4, 2)), 6, 6, 5, 10)


@pytest.mark.parametrize(
    ("temperature", "target", "others", "probability"),
    [
        (1.0, [0.187933236832, 0.669162671443], [0.114913989521, 0.364163150569], [0.563021231814, 0.753468451585]),
        (
            4.0,
            [0.00841842970945, 0.0344597927659],
            [0.0103122411116, 0.0219752274075],
            [0.282088459737, 0.336481378068],
        ),
    ],
)
def test_terms_per_sample(temperature: float, target: list, others: list, probability: list) -> None:
    tckd, nckd = decoupled_terms(STUDENT_LOGITS, TEACHER_LOGITS, LOGIT_LABELS, temperature)
    assert tckd.tolist() == exactly(target)
    assert nckd.tolist() == exactly(others)
    binary, _ = log_split(TEACHER_LOGITS / temperature, LOGIT_LABELS)
    assert binary[:, 0].exp().tolist() == exactly(probability)


@pytest.mark.parametrize(
    ("temperature", "alpha", "beta", "value"),
    [
        (1.0, 1.0, 0.0, 0.428547954137),
        (4.0, 1.0, 0.0, 0.343025779802),
        (1.0, 0.0, 1.0, 0.239538570045),
        (4.0, 0.0, 1.0, 0.258299748153),
        (1.0, 1.0, 8.0, 2.344856514499),
        (1.0, 1.0, 2.0, 0.907625094228),
        (4.0, 1.0, 2.0, 0.859625276109),
    ],
)
def test_decoupled_kd_reference(temperature: float, alpha: float, beta: float, value: float) -> None:
    assert decoupled_kd(STUDENT_LOGITS, TEACHER_LOGITS, LOGIT_LABELS, temperature, alpha, beta).item() == exactly(value)


def test_decoupled_kd_gradient_reference() -> None:
    student, teacher = STUDENT_LOGITS.clone().requires_grad_(), TEACHER_LOGITS.clone().requires_grad_()
    loss = decoupled_kd(student, teacher, LOGIT_LABELS)  # T = 4, alpha = 1, beta = 8
    assert loss.item() == exactly(2.409423765027)
    loss.backward()
    expected = [-0.111480244, 0.445169663, -0.573463032, 0.701372142, -0.461598528]
    expected += [0.050037846, -0.229387117, 1.017719191, 0.480736506, -1.319106426]
    assert student.grad.flatten().tolist() == exactly(expected)
    assert student.grad.sum(1).tolist() == exactly([0, 0])
    assert teacher.grad is None


def test_terms_against_a_loop() -> None:
    tckd, nckd = decoupled_terms(STUDENT_LOGITS, TEACHER_LOGITS, LOGIT_LABELS, 2.0)
    for row, label in enumerate(LOGIT_LABELS.tolist()):
        p, q = (np.exp(z[row].numpy() / 2) / np.exp(z[row].numpy() / 2).sum() for z in (TEACHER_LOGITS, STUDENT_LOGITS))
        binary = p[label] * math.log(p[label] / q[label]) + (1 - p[label]) * math.log((1 - p[label]) / (1 - q[label]))
        rest = [c for c in range(5) if c != label]
        pn, qn = p[rest] / p[rest].sum(), q[rest] / q[rest].sum()
        assert tckd[row].item() == exactly(binary)
        assert nckd[row].item() == exactly(sum(a * math.log(a / b) for a, b in zip(pn, qn, strict=True)))


@pytest.mark.parametrize("temperature", [1.0, 2.0, 4.0])
def test_hinton_is_target_plus_suppressed_others(temperature: float) -> None:
    tckd, nckd = decoupled_terms(STUDENT_LOGITS, TEACHER_LOGITS, LOGIT_LABELS, temperature)
    p = (TEACHER_LOGITS / temperature).softmax(1).gather(1, LOGIT_LABELS[:, None]).squeeze(1)
    total = temperature**2 * (tckd + (1 - p) * nckd).mean()
    assert total.item() == exactly(soft_targets(STUDENT_LOGITS, TEACHER_LOGITS, temperature).item())


def test_certain_teacher_stays_finite_and_correct_in_float32() -> None:
    teacher = torch.tensor([[64.0, -64.0, -60.0]])
    student = torch.tensor([[10.0, 0.0, 1.0]], requires_grad=True)
    loss = decoupled_kd(student, teacher, torch.tensor([0]), temperature=1.0, alpha=1.0, beta=1.0)
    loss.backward()
    wide = decoupled_kd(student.detach().double(), teacher.double(), torch.tensor([0]), 1.0, 1.0, 1.0)
    assert loss.item() == pytest.approx(wide.item(), rel=1e-5)
    assert student.grad.isfinite().all()


@pytest.mark.parametrize(
    ("level", "cosine", "squared"), [(0, 0.987922269708, 1.975844539416), (1, 0.989490776615, 1.978981553230)]
)
def test_hierarchical_cosine_reference(level: int, cosine: float, squared: float) -> None:
    assert hierarchical_cosine(STUDENT_MAPS[level : level + 1], TEACHER_MAPS[level : level + 1]).item() == exactly(
        cosine
    )
    flat = STUDENT_MAPS[level].flatten(1), TEACHER_MAPS[level].flatten(1)
    assert feature_distillation(*flat).item() == exactly(squared)


def test_hierarchical_cosine_averages_levels_and_refuses_other_shapes() -> None:
    value = hierarchical_cosine(STUDENT_MAPS, TEACHER_MAPS).item()
    assert value == exactly((0.987922269708 + 0.989490776615) / 2)
    loop = []
    for student, teacher in zip(STUDENT_MAPS, TEACHER_MAPS, strict=True):
        for a, b in zip(student.numpy(), teacher.numpy(), strict=True):
            loop.append(1 - (a * b).sum() / (np.linalg.norm(a) * np.linalg.norm(b)))
    assert value == exactly(np.mean(loop))
    with pytest.raises(ValueError, match="differ in shape"):
        hierarchical_cosine(STUDENT_MAPS[:1], TEACHER_MAPS[1:])


def test_the_order_in_memory_does_not_matter() -> None:
    def last(maps: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(each.to(memory_format=torch.channels_last) for each in maps)

    student, other = (tuple(each.clone().requires_grad_() for each in STUDENT_MAPS) for _ in range(2))
    first, second = hierarchical_cosine(student, TEACHER_MAPS), hierarchical_cosine(last(other), last(TEACHER_MAPS))
    assert second.item() == exactly(first.item())
    mixed = hierarchical_cosine(STUDENT_MAPS, last(TEACHER_MAPS)), hierarchical_cosine(last(STUDENT_MAPS), TEACHER_MAPS)
    assert [each.item() for each in mixed] == exactly([first.item()] * 2)
    first.backward(), second.backward()
    assert all(torch.allclose(a.grad, b.grad, atol=1e-12) for a, b in zip(student, other, strict=True))


def test_rows_without_a_class_teach_stages_but_no_split_logits() -> None:
    student, targets = Features(STUDENT_MAPS, None), Targets(torch.arange(2), logits=TEACHER_LOGITS, maps=TEACHER_MAPS)
    logits, labels = STUDENT_LOGITS.clone().requires_grad_(), torch.tensor([0, -1])
    terms = HKDD(SHAPES, **OPTIONS)(student, logits, targets, labels, 1.0)
    assert terms["hfd"].item() == exactly(hierarchical_cosine(STUDENT_MAPS, TEACHER_MAPS).item())
    assert terms["dkd"].item() == exactly(decoupled_kd(STUDENT_LOGITS[:1], TEACHER_LOGITS[:1], labels[:1]).item())
    terms["dkd"].backward()
    assert logits.grad[0].any() and not logits.grad[1].any()
    hinton = HKDD(SHAPES, **OPTIONS | {"logits": "kd"})(student, STUDENT_LOGITS, targets, labels, 1.0)
    assert hinton["kd"].item() == exactly(0.518899775851)  # which needs no class: all rows, as ever


def test_without_any_row_of_a_class_the_split_is_zero() -> None:
    student, targets = Features(STUDENT_MAPS, None), Targets(torch.arange(2), logits=TEACHER_LOGITS, maps=TEACHER_MAPS)
    logits = STUDENT_LOGITS.clone().requires_grad_()
    term = HKDD(SHAPES, **OPTIONS)(student, logits, targets, torch.tensor([-1, -1]), 1.0)["dkd"]
    term.backward()
    assert term.item() == 0 and not logits.grad.any()


def test_gradients() -> None:
    assert gradcheck(
        lambda z: decoupled_kd(z, TEACHER_LOGITS, LOGIT_LABELS), (STUDENT_LOGITS.clone().requires_grad_(),)
    )
    maps = tuple(each.clone().requires_grad_() for each in STUDENT_MAPS)
    assert gradcheck(lambda *student: hierarchical_cosine(student, TEACHER_MAPS), maps)


def test_logit_term_is_ramped_and_can_be_hintons() -> None:
    student, targets = Features(STUDENT_MAPS, None), Targets(torch.arange(2), logits=TEACHER_LOGITS, maps=TEACHER_MAPS)
    method, hinton = HKDD(SHAPES, **OPTIONS), HKDD(SHAPES, **OPTIONS | {"logits": "kd"})
    for progress, factor in ((0.0, 0.0), (0.25, 0.5), (0.5, 1.0), (1.0, 1.0)):
        terms = method(student, STUDENT_LOGITS, targets, LOGIT_LABELS, progress)
        assert terms["dkd"].item() == exactly(factor * 2.409423765027)
        assert terms["hfd"].item() == exactly(hierarchical_cosine(STUDENT_MAPS, TEACHER_MAPS).item())
        terms = hinton(student, STUDENT_LOGITS, targets, LOGIT_LABELS, progress)
        assert terms["kd"].item() == exactly(factor * 0.518899775851)


def test_projectors_exist_only_where_channels_differ() -> None:
    shapes = SHAPES._replace(teacher_maps=((3, 4), (7, 2)))
    method = HKDD(shapes, **OPTIONS)
    assert not list(method.projectors[0].parameters())
    assert method.projectors[1](STUDENT_MAPS[1].float()).shape == (2, 7, 2, 2)
    assert not list(HKDD(shapes, **OPTIONS | {"hfd": 0}).parameters())
