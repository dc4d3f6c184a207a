from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

from lrfr.methods.mkmmd import MKMMD, mk_mmd
from lrfr.models.features import Features, Shapes, Targets
from tests.methods.inputs import STUDENT, STUDENT_LOGITS, TEACHER, TEACHER_LOGITS, UNIT_STUDENT, UNIT_TEACHER, exactly

REFERENCE = {"biased": 0.159483178726, "paired": -0.095968189357}


def loop(x: np.ndarray, y: np.ndarray, bandwidths: tuple[float, ...], estimator: str) -> float:
    points, n = np.concatenate([x, y]), len(x)
    apart = [(a, b) for a in range(2 * n) for b in range(2 * n) if a != b]
    variance = np.mean([((points[a] - points[b]) ** 2).sum() for a, b in apart])

    def kernel(a: np.ndarray, b: np.ndarray) -> float:
        return np.mean([math.exp(-((a - b) ** 2).sum() / (2 * 2**u * variance)) for u in bandwidths])

    cells = [(i, j) for i in range(n) for j in range(n) if estimator == "biased" or i != j]
    within = np.mean([kernel(x[i], x[j]) for i, j in cells]) + np.mean([kernel(y[i], y[j]) for i, j in cells])
    return within - 2 * np.mean([kernel(x[i], y[j]) for i, j in cells])


@pytest.mark.parametrize("estimator", ["biased", "paired"])
def test_reference_and_loop(estimator: str) -> None:
    value = mk_mmd(UNIT_TEACHER, UNIT_STUDENT, estimator=estimator).item()
    assert value == exactly(REFERENCE[estimator])
    assert value == exactly(loop(UNIT_TEACHER.numpy(), UNIT_STUDENT.numpy(), (-3, -2, -1, 0, 1), estimator))
    single = mk_mmd(UNIT_TEACHER, UNIT_STUDENT, (0,), estimator).item()
    assert single == exactly(loop(UNIT_TEACHER.numpy(), UNIT_STUDENT.numpy(), (0,), estimator))


def test_by_hand() -> None:
    # {0, 1} against {2, 3}: the mean squared distance of two different points is 20/6; the bandwidth makes sigma^2 = 1
    x, y = torch.tensor([[0.0], [1.0]]).double(), torch.tensor([[2.0], [3.0]]).double()
    one = [math.log2(6 / 20)]
    assert mk_mmd(x, y, one).item() == exactly(1.162375548351)
    assert mk_mmd(x, y, one, "paired").item() == exactly(0.595421663174)


@pytest.mark.parametrize(("estimator", "norm"), [("biased", 0.182620321624), ("paired", 0.129725318909)])
def test_gradient_norm_of_the_second_row_set(estimator: str, norm: float) -> None:
    student = UNIT_STUDENT.clone().requires_grad_()
    mk_mmd(UNIT_TEACHER, student, estimator=estimator).backward()
    assert student.grad.norm().item() == exactly(norm)


def test_blind_to_pairing_unless_paired() -> None:
    permuted = UNIT_STUDENT[[2, 0, 3, 1]]
    assert mk_mmd(UNIT_TEACHER, permuted).item() == exactly(REFERENCE["biased"])
    assert mk_mmd(UNIT_TEACHER, permuted, estimator="paired").item() == exactly(-0.228333642106)


@pytest.mark.parametrize("estimator", ["biased", "paired"])
def test_zero_for_equal_sets_and_one_point(estimator: str) -> None:
    assert mk_mmd(UNIT_TEACHER, UNIT_TEACHER, estimator=estimator).item() == exactly(0)
    assert mk_mmd(torch.ones(5, 3), torch.ones(5, 3), estimator=estimator).item() == pytest.approx(0, abs=1e-6)
    point = UNIT_TEACHER[:1]
    assert mk_mmd(point, point, estimator=estimator).item() == 0


def test_translation_and_common_scale_do_not_matter() -> None:
    value = mk_mmd(5 * UNIT_TEACHER + 100, 5 * UNIT_STUDENT + 100).item()
    assert value == exactly(REFERENCE["biased"])
    narrow = mk_mmd(UNIT_TEACHER.float() + 100, UNIT_STUDENT.float() + 100).item()
    assert narrow == pytest.approx(REFERENCE["biased"], rel=1e-4)


@pytest.mark.parametrize("estimator", ["biased", "paired"])
def test_gradient_with_the_bandwidth_held_fixed(estimator: str) -> None:
    # sigma^2 is detached, so the finite difference must hold it fixed as well: fold it into the bandwidths
    def variance(x: torch.Tensor, y: torch.Tensor) -> float:
        return (torch.cdist(torch.cat([x, y]), torch.cat([x, y])) ** 2).sum().item() / (2 * len(x) * (2 * len(x) - 1))

    fixed = variance(UNIT_TEACHER, UNIT_STUDENT)

    def loss(student: torch.Tensor) -> torch.Tensor:
        shift = math.log2(fixed / variance(UNIT_TEACHER, student.detach()))
        return mk_mmd(UNIT_TEACHER, student, [u + shift for u in (-3, -2, -1, 0, 1)], estimator)

    assert gradcheck(loss, (UNIT_STUDENT.clone().requires_grad_(),))


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="shape"):
        mk_mmd(UNIT_TEACHER, UNIT_STUDENT[:3])
    with pytest.raises(ValueError, match="neither"):
        mk_mmd(UNIT_TEACHER, UNIT_STUDENT, estimator="linear")


def test_class_normalises_and_weighs() -> None:
    method = MKMMD(Shapes((), (), 6, 6, 5, 10), soft=0.5, temperature=4.0, mmd=10.0, log2_bandwidths=[-3, -2, -1, 0, 1])
    targets = Targets(torch.arange(4), embedding=2 * TEACHER, logits=TEACHER_LOGITS)
    terms = method(Features((), 3 * STUDENT), STUDENT_LOGITS, targets, None, 0.5)
    assert terms["mmd"].item() == exactly(10 * REFERENCE["biased"])
    assert terms["soft"].item() == exactly(0.5 * 0.518899775851)
