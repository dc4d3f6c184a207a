"""The student: its size, its maps, and that a seed is all its first weights depend on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lrfr.config import Student, Study
from lrfr.errors import UserError
from lrfr.models import student
from lrfr.models.se import SEBlock
from lrfr.models.student import build_student, kind_of, map_sides, normalise
from lrfr.train.checkpoint import save_tensors

SPEC = Student(channels=(8, 12, 16, 20), se_channels=(8, 11, 15, 19), se_reduction=4, embedding=24)


def parameters(study: Study, kind: str) -> int:
    return sum(p.numel() for p in build_student(study.student, kind, study.views.size, 0).parameters())


def test_it_is_small_and_gates_cost_no_parameters(composed: Callable[[str], dict]):
    study = Study(**composed("orl"))
    plain, gated = (parameters(study, kind) for kind in ("plain", "se"))
    assert max(plain, gated) <= 1.3e6
    assert abs(gated / plain - 1) < 0.01


def test_only_the_se_student_has_gates_one_in_every_block():
    found = {
        kind: sum(isinstance(m, SEBlock) for m in build_student(SPEC, kind, 32, 0).modules())
        for kind in ("plain", "se")
    }
    assert found == {"plain": 0, "se": 4}


@pytest.mark.parametrize("kind", ["plain", "se"])
@pytest.mark.parametrize("size", [32, 48])
def test_maps_and_embedding_have_the_stated_shapes(kind: str, size: int):
    net = build_student(SPEC, kind, size, 0).eval()
    with torch.inference_mode():
        features = net(torch.zeros(3, 3, size, size))
    assert tuple((m.shape[1], m.shape[2]) for m in features.maps) == kind_of(SPEC, kind, size).maps
    assert all(m.shape[2] == m.shape[3] for m in features.maps) and features.embedding.shape == (3, 24)
    assert [side for _, side in kind_of(SPEC, kind, 32).maps] == list(map_sides(32)) == [16, 8, 4, 4]


def test_the_same_seed_gives_the_same_weights_whatever_happened_before():
    first = build_student(SPEC, "plain", 32, 5).state_dict()
    torch.rand(7)
    second, other = (build_student(SPEC, "plain", 32, seed).state_dict() for seed in (5, 6))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["embed.weight"], other["embed.weight"])


def test_the_global_generator_is_untouched():
    before = torch.random.get_rng_state()
    build_student(SPEC, "se", 32, 5)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_students_start_from_released_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A gate begins as the identity, so that the se student is the plain one before its training, to the last bit."""
    monkeypatch.setattr(student, "RELEASED", tmp_path)
    released = build_student(SPEC, "plain", 32, 7).eval()
    save_tensors(tmp_path / "sharp.safetensors", released.state_dict())
    spec = SPEC.model_copy(update={"start": "sharp", "se_channels": SPEC.channels})
    faces = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        expected = released(faces).embedding
        for kind in ("plain", "se"):
            assert torch.equal(build_student(spec, kind, 32, 0).eval()(faces).embedding, expected)
    with pytest.raises(UserError, match="sharp.safetensors: a checkpoint of another architecture"):
        build_student(SPEC.model_copy(update={"start": "sharp"}), "se", 32, 0)


def test_normalisation_at_known_points():
    pixels = torch.tensor([0, 127, 255], dtype=torch.uint8).reshape(1, 1, 1, 3)
    assert torch.allclose(normalise(pixels).flatten(), torch.tensor([-1.0, -0.5 / 127.5, 1.0]), atol=1e-7)
    image = torch.arange(24, dtype=torch.uint8).reshape(1, 2, 4, 3)
    assert normalise(image).shape == (1, 3, 2, 4)
    assert normalise(image)[0, 2, 1, 3] == (23 - 127.5) / 127.5  # last channel, row, column


def test_every_parameter_gets_a_gradient():
    net = build_student(SPEC, "se", 32, 0).train()
    features = net(torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0)))
    features.embedding.square().sum().backward()
    missing = [name for name, p in net.named_parameters() if p.grad is None]
    assert missing == []


def test_in_eval_mode_a_face_does_not_depend_on_its_batch():
    net = build_student(SPEC, "plain", 32, 0).eval()
    x = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.allclose(net(x).embedding[2:3], net(x[2:3]).embedding, atol=1e-5)
