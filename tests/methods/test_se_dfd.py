from __future__ import annotations

import numpy as np
import torch
from torch.autograd import gradcheck

from lrfr.methods.baselines import cosine_distance
from lrfr.methods.se_dfd import SEDFD, feature_distillation
from lrfr.models.features import Features, Shapes, Targets
from tests.methods.inputs import STUDENT, TEACHER, exactly


def test_reference_and_loop() -> None:
    value = feature_distillation(STUDENT, TEACHER).item()
    assert value == exactly(1.531320943835)
    rows = zip(STUDENT.numpy(), TEACHER.numpy(), strict=True)
    assert value == exactly(np.mean([((s / np.linalg.norm(s) - t / np.linalg.norm(t)) ** 2).sum() for s, t in rows]))
    assert value / STUDENT.shape[1] == exactly(0.255220157306)


def test_is_twice_the_cosine_distance_and_ignores_norms() -> None:
    value = feature_distillation(STUDENT, TEACHER).item()
    assert value == exactly(2 * cosine_distance(STUDENT, TEACHER).item())
    assert feature_distillation(3 * STUDENT, 0.1 * TEACHER).item() == exactly(value)
    assert feature_distillation(TEACHER, TEACHER).item() == 0


def test_gradient() -> None:
    assert gradcheck(lambda student: feature_distillation(student, TEACHER), (STUDENT.clone().requires_grad_(),))


def test_projects_the_student_where_dimensions_differ() -> None:
    method = SEDFD(Shapes((), (), 4, 6, 3, 10), dfd=2.0).double()
    term = method(Features((), STUDENT[:, :4]), None, Targets(torch.arange(4), embedding=TEACHER), None, 0.5)["dfd"]
    projected = STUDENT[:, :4] @ method.project.weight.T
    assert term.item() == exactly(2 * feature_distillation(projected, TEACHER).item())
    assert (
        SEDFD(Shapes((), (), 6, 6, 3, 10), dfd=0)(Features((), STUDENT), None, Targets(torch.arange(4)), None, 0.5)
        == {}
    )
