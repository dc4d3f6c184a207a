from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck

from lrfr.methods import METHODS
from lrfr.methods.baselines import (
    angle_cosines,
    attention_transfer,
    cosine_distance,
    relational_angle,
    relational_distance,
    relative_distances,
    soft_targets,
)
from lrfr.methods.common import attention_map
from lrfr.models.features import Features, Shapes, Targets
from tests.methods.inputs import (
    LOGIT_LABELS,
    STUDENT,
    STUDENT_LOGITS,
    STUDENT_MAPS,
    TEACHER,
    TEACHER_LOGITS,
    TEACHER_MAPS,
    exactly,
)


@pytest.mark.parametrize(("temperature", "value"), [(1.0, 0.498544293624), (4.0, 0.518899775851)])
def test_soft_targets_reference(temperature: float, value: float) -> None:
    assert soft_targets(STUDENT_LOGITS, TEACHER_LOGITS, temperature).item() == exactly(value)


def test_soft_targets_against_a_loop() -> None:
    total = 0.0
    for student, teacher in zip(STUDENT_LOGITS.numpy(), TEACHER_LOGITS.numpy(), strict=True):
        p, q = np.exp(teacher / 3) / np.exp(teacher / 3).sum(), np.exp(student / 3) / np.exp(student / 3).sum()
        total += sum(p[c] * math.log(p[c] / q[c]) for c in range(len(p)))
    assert soft_targets(STUDENT_LOGITS, TEACHER_LOGITS, 3.0).item() == exactly(9 * total / 2)


def test_soft_targets_differ_from_soft_cross_entropy_by_the_teachers_entropy() -> None:
    p = (TEACHER_LOGITS / 4).softmax(1)
    soft = -16 * (p * (STUDENT_LOGITS / 4).log_softmax(1)).sum(1).mean()
    assert soft.item() == exactly(25.412143534678)
    entropy = -16 * (p * p.log()).sum(1).mean()
    assert (soft - entropy).item() == exactly(soft_targets(STUDENT_LOGITS, TEACHER_LOGITS, 4.0).item())
    assert F.cross_entropy(STUDENT_LOGITS, LOGIT_LABELS).item() == exactly(1.428386984667)


def test_cosine_distance_reference() -> None:
    cosines = [0.787817178287, -0.197799855009, -0.326705135031, 0.674045924083]
    for row, value in enumerate(cosines):
        assert 1 - cosine_distance(STUDENT[row : row + 1], TEACHER[row : row + 1]).item() == exactly(value)
    assert cosine_distance(STUDENT, TEACHER).item() == exactly(0.765660471917)


@pytest.mark.parametrize(("level", "value"), [(0, 0.005462485141), (1, 0.091662627480)])
def test_attention_transfer_reference(level: int, value: float) -> None:
    student, teacher = attention_map(STUDENT_MAPS[level]), attention_map(TEACHER_MAPS[level])
    assert attention_transfer(student, teacher).item() == exactly(value)
    # the identity 2 (1 - cos) / (H W)
    assert value == exactly(2 * cosine_distance(student.flatten(1), teacher.flatten(1)).item() / student[0].numel())


@pytest.mark.parametrize(("level", "value"), [(0, 0.990819256451), (1, 0.994309913706)])
def test_fitnet_with_an_identity_regressor_is_the_mean_squared_error(level: int, value: float) -> None:
    channels = tuple((maps.shape[1], maps.shape[2]) for maps in STUDENT_MAPS)
    fitnet = METHODS["fitnet"](Shapes(channels, channels, 6, 6, 3, 10), weight=2.0, stage=level).double()
    with torch.no_grad():
        fitnet.regressor.weight.copy_(torch.eye(channels[level][0]).reshape(fitnet.regressor.weight.shape))
        fitnet.regressor.bias.zero_()
    targets = Targets(torch.arange(2), maps=TEACHER_MAPS)
    terms = fitnet(Features(STUDENT_MAPS, STUDENT), STUDENT_LOGITS, targets, LOGIT_LABELS, 0.5)
    assert terms["fitnet"].item() == exactly(2 * value)


def huber(difference: float) -> float:
    return 0.5 * difference**2 if abs(difference) < 1 else abs(difference) - 0.5


def loop_distances(points: np.ndarray) -> np.ndarray:
    n = len(points)
    table = np.array([[math.dist(points[i], points[j]) for j in range(n)] for i in range(n)])
    return table / table[table > 0].mean()


def loop_angle(points: np.ndarray, i: int, j: int, k: int) -> float:
    a, b = points[j] - points[i], points[k] - points[i]
    length = np.linalg.norm(a) * np.linalg.norm(b)
    return float(a @ b / length) if length > 0 else 0.0


def test_relational_losses_reference_and_loops() -> None:
    student, teacher = STUDENT.numpy(), TEACHER.numpy()
    difference = (loop_distances(student) - loop_distances(teacher)).ravel()
    distance = relational_distance(STUDENT, TEACHER).item()
    assert distance == exactly(0.033713346910)
    assert distance == exactly(np.mean([huber(d) for d in difference]))
    triplets = [(i, j, k) for i in range(4) for j in range(4) for k in range(4)]
    angle = relational_angle(STUDENT, TEACHER).item()
    assert angle == exactly(0.027976334307)
    assert angle == exactly(np.mean([huber(loop_angle(student, *t) - loop_angle(teacher, *t)) for t in triplets]))
    assert 25 * distance + 50 * angle == exactly(2.241650388078)
    assert distance + 2 * angle == exactly(0.089666015523)


def test_relations_do_not_change_under_rotation_and_translation() -> None:
    rotation = torch.linalg.qr(torch.cos(torch.arange(36, dtype=torch.float64) ** 2).reshape(6, 6)).Q
    moved = STUDENT @ rotation + 3
    assert torch.allclose(relative_distances(moved), relative_distances(STUDENT), atol=1e-12)
    assert torch.allclose(angle_cosines(moved), angle_cosines(STUDENT), atol=1e-12)


def test_coinciding_rows_give_relations_a_bounded_gradient() -> None:
    student = torch.stack([torch.ones(6), torch.ones(6), torch.arange(6.0), -torch.arange(6.0)]).requires_grad_()
    (relational_distance(student, TEACHER.float()) + relational_angle(student, TEACHER.float())).backward()
    assert student.grad.abs().max() < 10


@pytest.mark.parametrize("loss", [cosine_distance, relational_distance, relational_angle])
def test_gradients_of_embedding_losses(loss) -> None:
    assert gradcheck(lambda student: loss(student, TEACHER), (STUDENT.clone().requires_grad_(),))


def test_gradients_of_soft_targets_and_attention() -> None:
    assert gradcheck(
        lambda student: soft_targets(student, TEACHER_LOGITS, 3.0), (STUDENT_LOGITS.clone().requires_grad_(),)
    )
    target = attention_map(TEACHER_MAPS[0])
    assert gradcheck(
        lambda maps: attention_transfer(attention_map(maps), target), (STUDENT_MAPS[0].clone().requires_grad_(),)
    )


def test_rkd_normalises_embeddings_first() -> None:
    shapes = Shapes(((3, 4),), ((3, 4),), 6, 6, 3, 10)
    stretched = STUDENT * torch.tensor([[1.0], [2.0], [0.5], [4.0]], dtype=torch.float64)
    targets = Targets(torch.arange(4), embedding=TEACHER)
    rkd = METHODS["rkd"](shapes, distance=1.0, angle=2.0)
    for embedding in (STUDENT, stretched):
        terms = rkd(Features((), embedding), None, targets, None, 0.5)
        directions = STUDENT / STUDENT.norm(dim=1, keepdim=True), TEACHER / TEACHER.norm(dim=1, keepdim=True)
        assert terms["distance"].item() == exactly(relational_distance(*directions).item())
        assert terms["angle"].item() == exactly(2 * relational_angle(*directions).item())
