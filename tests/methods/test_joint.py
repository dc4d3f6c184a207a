from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lrfr.methods.baselines import cosine_distance, soft_targets
from lrfr.methods.hkdd import decoupled_terms
from lrfr.methods.joint import Joint
from lrfr.models.features import Features, Shapes, Targets
from lrfr.models.heads import cosine_logits
from tests.methods.inputs import LOGIT_LABELS, STUDENT, STUDENT_LOGITS, TEACHER, TEACHER_LOGITS, exactly

SHAPES = Shapes((), (), 6, 6, 5, 20)
OPTIONS = {"soft": 2.0, "nckd": 3.0, "temperature": 4.0, "feature": 5.0}


def call(
    student: Tensor, student_logits: Tensor, teacher: Tensor, teacher_logits: Tensor, labels: Tensor, **change: float
) -> dict[str, Tensor]:
    targets = Targets(torch.arange(len(student)), embedding=teacher, logits=teacher_logits)
    return Joint(SHAPES, **OPTIONS | change)(Features((), student), student_logits, targets, labels, 0.5)


def test_known_values() -> None:
    """The dossier's values at T = 4: T^2 KL, the mean of NCKD, and the mean of 1 - cos over the first two rows."""
    terms = call(STUDENT[:2], STUDENT_LOGITS, TEACHER[:2], TEACHER_LOGITS, LOGIT_LABELS)
    assert terms["soft"].item() == exactly(2 * 0.518899775851)
    assert terms["nckd"].item() == exactly(3 * 16 * (0.0103122411116 + 0.0219752274075) / 2)
    assert terms["feature"].item() == exactly(5 * (1 - (0.787817178287 - 0.197799855009) / 2))
    assert list(terms) == ["soft", "nckd", "feature"]


def test_soft_and_nckd_are_soft_targets_whose_other_part_has_a_floor() -> None:
    """soft KL + nckd NCKD = soft TCKD + [soft (1 - p_y) + nckd] NCKD, face by face."""
    terms = call(STUDENT[:2], STUDENT_LOGITS, TEACHER[:2], TEACHER_LOGITS, LOGIT_LABELS)
    tckd, nckd = decoupled_terms(STUDENT_LOGITS, TEACHER_LOGITS, LOGIT_LABELS, 4.0)
    p_y = (TEACHER_LOGITS / 4).softmax(1).gather(1, LOGIT_LABELS[:, None])[:, 0]
    expected = 16 * (2 * tckd + (2 * (1 - p_y) + 3) * nckd).mean()
    assert (terms["soft"] + terms["nckd"]).item() == exactly(expected.item())


def test_each_term_acts_where_the_page_says() -> None:
    """Gradients of the docstring: T (p^s - p^t), T (q^s - q^t) beside y and 0 at y, and the embedding in all directions
    for `feature`, in the span of the class weights for the other two.
    """
    logits = STUDENT_LOGITS.clone().requires_grad_()
    terms = call(STUDENT[:2], logits, TEACHER[:2], TEACHER_LOGITS, LOGIT_LABELS, soft=1.0, nckd=1.0)
    (soft,) = torch.autograd.grad(terms["soft"], logits, retain_graph=True)
    (nckd,) = torch.autograd.grad(terms["nckd"], logits)
    p_s, p_t = ((z / 4).softmax(1) for z in (STUDENT_LOGITS, TEACHER_LOGITS))
    assert torch.allclose(soft, 4 * (p_s - p_t) / 2, atol=1e-12)  # a mean over two rows
    right = torch.nn.functional.one_hot(LOGIT_LABELS, 5).bool()
    q_s, q_t = (p.masked_fill(right, 0) / p.masked_fill(right, 0).sum(1, keepdim=True) for p in (p_s, p_t))
    assert torch.allclose(nckd, 4 * (q_s - q_t) / 2, atol=1e-12) and not nckd[right].any()

    weight, f = (
        torch.eye(6, dtype=torch.float64)[:3],
        STUDENT[:2].clone().requires_grad_(),
    )  # three people in six dimensions
    teacher_logits = cosine_logits(TEACHER[:2], weight, 8.0)
    terms = call(f, cosine_logits(f, weight, 8.0), TEACHER[:2], teacher_logits, torch.tensor([0, 2]))
    for name, term in terms.items():
        (gradient,) = torch.autograd.grad(term, f, retain_graph=True)
        for row, own in zip(gradient, f.detach(), strict=True):
            basis = torch.linalg.qr(torch.stack([*weight, own]).T)[0]  # W, and f: the cosine has divided by its length
            outside = (row - basis @ (basis.T @ row)).norm() / row.norm()
            assert (outside > 0.1) == (name == "feature"), name


def test_a_student_that_agrees_has_nothing_to_learn_and_the_teacher_gets_no_gradient() -> None:
    terms = call(TEACHER[:2], TEACHER_LOGITS, TEACHER[:2], TEACHER_LOGITS, LOGIT_LABELS)
    assert [term.item() for term in terms.values()] == exactly([0, 0, 0])
    leaves = [each.clone().requires_grad_() for each in (STUDENT[:2], STUDENT_LOGITS, TEACHER[:2], TEACHER_LOGITS)]
    sum(call(*leaves, LOGIT_LABELS).values()).backward()
    assert all(leaf.grad.abs().sum() > 0 for leaf in leaves[:2]) and all(leaf.grad is None for leaf in leaves[2:])


@pytest.mark.parametrize("left_out", ["soft", "nckd", "feature"])
def test_a_term_of_weight_zero_is_left_out_and_the_others_stay(left_out: str) -> None:
    whole = call(STUDENT[:2], STUDENT_LOGITS, TEACHER[:2], TEACHER_LOGITS, LOGIT_LABELS)
    terms = call(STUDENT[:2], STUDENT_LOGITS, TEACHER[:2], TEACHER_LOGITS, LOGIT_LABELS, **{left_out: 0.0})
    assert terms == {name: whole[name] for name in OPTIONS.keys() - {"temperature", left_out}}


def test_a_face_that_is_no_class_is_taught_all_but_the_non_target_part() -> None:
    labels = torch.tensor([0, -1])
    terms = call(STUDENT[:2], STUDENT_LOGITS, TEACHER[:2], TEACHER_LOGITS, labels)
    assert terms["soft"].item() == exactly(2 * soft_targets(STUDENT_LOGITS, TEACHER_LOGITS, 4.0).item())
    assert terms["feature"].item() == exactly(5 * cosine_distance(STUDENT[:2], TEACHER[:2]).item())
    assert terms["nckd"].item() == exactly(3 * 16 * 0.0103122411116)
    assert call(STUDENT[:2], STUDENT_LOGITS, TEACHER[:2], TEACHER_LOGITS, torch.tensor([-1, -1]))["nckd"] == 0
