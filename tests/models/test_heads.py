from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck

from lrfr.models.heads import FaceHead, arcface_logits, cosine_logits, cosine_to, unit
from tests.methods.inputs import STUDENT, exactly, sine

WEIGHT = sine(0.5, 0.3, 3, 6)
LABELS = torch.tensor([0, 1, 2, 0])


@pytest.mark.parametrize(("scale", "value"), [(64.0, 43.853808367907), (32.0, 21.927207570086)])
def test_arcface_reference(scale: float, value: float) -> None:
    logits = arcface_logits(STUDENT, WEIGHT, LABELS, scale=scale, margin=0.5)
    assert F.cross_entropy(logits, LABELS).item() == exactly(value)


def test_cosine_logits_reference() -> None:
    cosines = cosine_logits(STUDENT, WEIGHT, 1.0)
    expected = [0.840587094098, 0.014578943023, -0.778804558573, 0.826847238667]
    assert cosines.gather(1, LABELS[:, None]).squeeze(1).tolist() == exactly(expected)
    # CosFace subtracts its margin from the cosine: a check of the same logits through another loss
    for scale, value in ((64.0, 43.533714157224), (30.0, 20.407194229154)):
        logits = scale * (cosines - 0.35 * F.one_hot(LABELS, 3).double())
        assert F.cross_entropy(logits, LABELS).item() == exactly(value)


def test_arcface_against_arc_cosines_one_by_one() -> None:
    logits = arcface_logits(STUDENT, WEIGHT, LABELS, scale=10.0, margin=0.3).numpy()
    for row, (embedding, label) in enumerate(zip(STUDENT.numpy(), LABELS.tolist(), strict=True)):
        for column, weight in enumerate(WEIGHT.numpy()):
            theta = math.acos(embedding @ weight / (np.linalg.norm(embedding) * np.linalg.norm(weight)))
            assert logits[row, column] == exactly(10 * math.cos(theta + 0.3 * (column == label)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values_and_gradients_at_both_ends(dtype: torch.dtype) -> None:
    weight = sine(0.5, 0.3, 2, 6).to(dtype)
    embedding = torch.stack([3 * weight[0], -2 * weight[1]]).requires_grad_()
    logits = arcface_logits(embedding, weight, torch.tensor([0, 1]), margin=0.5)
    assert logits[0, 0].item() == pytest.approx(64 * math.cos(0.5), rel=1e-3)
    assert logits[1, 1].item() == pytest.approx(-64 * math.cos(0.5), rel=1e-3)  # cos(pi + m), the formula goes on
    logits.square().sum().backward()
    assert embedding.grad.isfinite().all()


def test_exact_ends_have_exact_values() -> None:
    weight = torch.eye(2, dtype=torch.float64)
    logits = arcface_logits(torch.tensor([[2.0, 0], [0, -1]], dtype=torch.float64), weight, torch.tensor([0, 1]), 1.0, 0.5)
    assert logits.diagonal().tolist() == exactly([math.cos(0.5), -math.cos(0.5)])


def test_without_margin_it_is_the_cosine() -> None:
    assert torch.allclose(arcface_logits(STUDENT, WEIGHT, LABELS, 16.0, 0.0), cosine_logits(STUDENT, WEIGHT, 16.0), atol=1e-12)


def test_gradcheck() -> None:
    inputs = (STUDENT.clone().requires_grad_(), WEIGHT.clone().requires_grad_())
    assert gradcheck(lambda embedding, weight: arcface_logits(embedding, weight, LABELS, 4.0, 0.5), inputs)


def test_norms_do_not_matter() -> None:
    assert torch.allclose(arcface_logits(3 * STUDENT, 0.2 * WEIGHT, LABELS), arcface_logits(STUDENT, WEIGHT, LABELS), atol=1e-10)


def test_unit_vectors() -> None:
    assert unit(torch.tensor([[3.0, 4.0]])).tolist() == [[pytest.approx(0.6), pytest.approx(0.8)]]
    assert torch.allclose(unit(STUDENT, 0).norm(dim=0), torch.ones(6, dtype=torch.float64))
    assert unit(STUDENT.half()).dtype == torch.float32
    zero = torch.zeros(2, 3, requires_grad=True)
    unit(zero).sum().backward()
    assert not zero.grad.any()


def test_cosine_to_references() -> None:
    references = STUDENT.cos().requires_grad_()
    vectors = STUDENT.clone().requires_grad_()
    assert torch.allclose(cosine_to(references, vectors), (unit(vectors) * unit(references)).sum(1), atol=1e-12)
    assert gradcheck(lambda each: cosine_to(references, each), (vectors,))
    cosine_to(references, vectors).sum().backward()
    assert references.grad is None
    zero = torch.zeros(2, 6, requires_grad=True)
    cosine_to(torch.ones(2, 6), zero).sum().backward()
    assert not zero.grad.any()


def test_head_starts_from_given_weights_and_ramps_the_margin() -> None:
    head = FaceHead(3, 6, 16.0, WEIGHT)
    assert torch.equal(head.weight, WEIGHT)
    assert head.weight is not WEIGHT
    assert torch.equal(head(STUDENT), cosine_logits(STUDENT, WEIGHT, 16.0))
    assert head.loss(STUDENT, LABELS, 0.0).item() == exactly(F.cross_entropy(head(STUDENT), LABELS).item())
    assert head.loss(STUDENT, LABELS, 0.5).item() == exactly(
        F.cross_entropy(arcface_logits(STUDENT, WEIGHT, LABELS, 16.0, 0.5), LABELS).item()
    )
    head.loss(STUDENT, LABELS, 0.5).backward()
    assert head.weight.grad.abs().sum() > 0
    with pytest.raises(ValueError, match="shape"):
        FaceHead(4, 6, 16.0, WEIGHT)


def test_head_draws_directions_from_torchs_generator() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        first = FaceHead(50, 64, 16.0).weight
        torch.manual_seed(1)
        assert torch.equal(first, FaceHead(50, 64, 16.0).weight)
    assert first.norm(dim=1).mean().item() == pytest.approx(1, abs=0.1)
