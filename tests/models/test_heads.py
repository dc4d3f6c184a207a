from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
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
    logits = arcface_logits(
        torch.tensor([[2.0, 0], [0, -1]], dtype=torch.float64), weight, torch.tensor([0, 1]), 1.0, 0.5
    )
    assert logits.diagonal().tolist() == exactly([math.cos(0.5), -math.cos(0.5)])


def test_without_margin_it_is_the_cosine() -> None:
    assert torch.allclose(
        arcface_logits(STUDENT, WEIGHT, LABELS, 16.0, 0.0), cosine_logits(STUDENT, WEIGHT, 16.0), atol=1e-12
    )


def test_gradcheck() -> None:
    inputs = (STUDENT.clone().requires_grad_(), WEIGHT.clone().requires_grad_())
    assert gradcheck(lambda embedding, weight: arcface_logits(embedding, weight, LABELS, 4.0, 0.5), inputs)


def test_norms_do_not_matter() -> None:
    assert torch.allclose(
        arcface_logits(3 * STUDENT, 0.2 * WEIGHT, LABELS), arcface_logits(STUDENT, WEIGHT, LABELS), atol=1e-10
    )


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


def cosines_one_by_one(references: Tensor, vectors: Tensor) -> list[float]:
    """In float64, whatever the inputs; 0 where either row is shorter than 1e-8."""
    found = []
    for a, b in zip(references.double().tolist(), vectors.double().tolist(), strict=True):
        lengths = math.sqrt(math.fsum(x * x for x in a)), math.sqrt(math.fsum(x * x for x in b))
        product = math.fsum(x * y for x, y in zip(a, b, strict=True))
        found.append(product / (lengths[0] * lengths[1]) if min(lengths) > 1e-8 else 0.0)
    return found


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.float16, 1e-5), (torch.bfloat16, 1e-5)],
)
def test_cosines_to_references_one_by_one(dtype: torch.dtype, tolerance: float) -> None:
    """Half precision is widened first: what is compared is what the numbers are, not a sum in half precision."""
    references, vectors = sine(0.7, 0.2, 5, 4000), sine(0.3, 0.9, 5, 4000) + 0.1
    vectors[1], references[2] = 0, 0
    vectors[3], references[3] = 1e-9 * vectors[3] / vectors[3].norm(), references[3]  # shorter than any direction
    vectors[4] *= 10
    if dtype == torch.float16:
        vectors[3] = 0  # float16 knows nothing so short
    vectors, references = (
        vectors.to(dtype),
        references.to(dtype).to(torch.float64 if dtype == torch.float64 else torch.float32),
    )
    found = cosine_to(references, vectors)
    assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert found.tolist() == pytest.approx(cosines_one_by_one(references, vectors), abs=tolerance)
    assert found[1] == found[2] == found[3] == 0


def test_gradients_of_cosines_to_references() -> None:
    references = sine(0.4, 0.5, 4, 6).requires_grad_()
    vectors = STUDENT.clone()
    vectors[1] = 0
    with torch.no_grad():
        references[2] = 0
    vectors.requires_grad_()
    (3 * cosine_to(references, vectors)).sum().backward()
    assert references.grad is None and vectors.grad.isfinite().all()
    assert not vectors.grad[1:3].any()  # nowhere to go
    for row in (0, 3):  # d cos / dv = (r / |r| - cos v / |v|) / |v|
        r, v = references[row].detach(), vectors[row].detach()
        cosine = r @ v / (r.norm() * v.norm())
        assert vectors.grad[row].tolist() == exactly((3 * (r / r.norm() - cosine * v / v.norm()) / v.norm()).tolist())
        assert (vectors.grad[row] @ v).item() == exactly(0)


def test_rows_without_a_class_do_not_count() -> None:
    head = FaceHead(3, 6, 16.0, WEIGHT)
    embedding, labels = STUDENT.clone().requires_grad_(), torch.tensor([0, -1, 2, -1])
    loss = head.loss(embedding, labels, 0.3)
    known = arcface_logits(STUDENT[[0, 2]], WEIGHT, labels[[0, 2]], 16.0, 0.3)
    assert loss.item() == exactly(F.cross_entropy(known, labels[[0, 2]]).item())
    loss.backward()
    assert not embedding.grad[[1, 3]].any() and embedding.grad[[0, 2]].abs().sum(1).min() > 0


@pytest.mark.parametrize("rows", [4, 0])
def test_without_any_row_of_a_class_there_is_nothing_to_lose(rows: int) -> None:
    head = FaceHead(3, 6, 16.0, WEIGHT)
    embedding = STUDENT[:rows].clone().requires_grad_()
    loss = head.loss(embedding, torch.full((rows,), -1), 0.3)
    assert loss.item() == 0 and loss.shape == ()
    loss.backward()
    assert not embedding.grad.any() and not head.weight.grad.any()  # zeros, and no NaN


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
