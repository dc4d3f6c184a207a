from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

from lrfr.methods.acs_review import ACSReview, Fusion, fuse, pyramid_cosine
from lrfr.methods.baselines import cosine_distance
from lrfr.models.features import Features, Shapes, Targets
from tests.methods.inputs import S1, S2, STUDENT_MAPS, T1, T2, exactly, sine

OPTIONS = {"weight": 1.0, "warmup": 0.0, "levels": [4, 2], "review": False, "distance": "cosine"}
SHAPES = Shapes(((3, 4), (4, 2)), ((3, 4), (4, 2)), 6, 6, 5, 10)
GATE = torch.tensor([[0.5, -0.25], [0.1, 0.3]], dtype=torch.float64)


def loop_pyramid(student: np.ndarray, teacher: np.ndarray, levels: tuple[int, ...]) -> float:
    """Pooling and cosines one by one; only for sizes that divide the side."""

    def distance(a: np.ndarray, b: np.ndarray) -> float:
        return np.mean([1 - (x * y).sum() / np.sqrt((x**2).sum() * (y**2).sum()) for x, y in zip(a, b, strict=True)])

    def pool(maps: np.ndarray, size: int) -> np.ndarray:
        k = maps.shape[-1] // size
        return np.array(
            [
                [[m[0, i * k : i * k + k, j * k : j * k + k].mean() for j in range(size)] for i in range(size)]
                for m in maps
            ]
        )

    kept = [size for size in levels if size < student.shape[-1]]
    weights = [1.0] + [2.0 ** -(n + 1) for n in range(len(kept))]
    values = [distance(student, teacher)] + [distance(pool(student, size), pool(teacher, size)) for size in kept]
    return float(np.dot(weights, values) / sum(weights))


def test_pyramid_reference_and_loop() -> None:
    for student, teacher, value in ((S1, T1, 0.830079645699), (S2, T2, 1.031782572369)):
        assert pyramid_cosine(student, teacher).item() == exactly(value)
        assert value == exactly(loop_pyramid(student.numpy(), teacher.numpy(), (4, 2)))
    assert pyramid_cosine(S1, T1, (2,)).item() == exactly(loop_pyramid(S1.numpy(), T1.numpy(), (2,)))


def test_single_levels_reference() -> None:
    assert pyramid_cosine(S1, T1, ()).item() == exactly(0.983361486138)
    assert pyramid_cosine(S2, T2, ()).item() == exactly(0.989490776615)
    assert cosine_distance(S1.sigmoid(), T1.sigmoid()).item() == exactly(0.097591819665)
    assert cosine_distance(S2.sigmoid(), T2.sigmoid()).item() == exactly(0.091851889691)

    def pooled(student: torch.Tensor, teacher: torch.Tensor, size: int) -> float:
        return cosine_distance(
            *(torch.nn.functional.adaptive_avg_pool2d(each, size) for each in (student, teacher))
        ).item()

    assert [pooled(S1, T1, size) for size in (4, 2, 1)] == exactly([0.757562377168, 0.361986821002, 0.0])
    assert [pooled(S2, T2, size) for size in (2, 1)] == exactly([1.116366163877, 1.0])
    assert [pooled(S1**2, T1**2, 1), pooled(S2**2, T2**2, 1)] == exactly([0, 0])


def test_fusion_reference() -> None:
    fused = fuse(S1, S2, GATE)
    assert fused.sum().item() == exactly(18.784467324893)
    assert fused.abs().sum().item() == exactly(54.570168322174)
    assert fused[0, 0, 0, 0].item() == exactly(0.152712262572)
    assert fused[1, 0, 7, 7].item() == exactly(0.564502986909)
    assert pyramid_cosine(fused, T1).item() == exactly(0.929167829906)


def test_fusion_at_one_position() -> None:
    shallow, deeper = S1[0, 0, 5, 2].item(), S2[0, 0, 2, 1].item()
    gates = [1 / (1 + np.exp(-(a * shallow + b * deeper))) for a, b in GATE.tolist()]
    assert fuse(S1, S2, GATE)[0, 0, 5, 2].item() == exactly(shallow * gates[0] + deeper * gates[1])


def test_fusion_keeps_odd_sizes_and_order() -> None:
    maps = [torch.rand(2, 1, side, side, generator=torch.Generator().manual_seed(0)) for side in (9, 5, 3)]
    fusion = Fusion(3)
    reviewed = fusion(maps)
    assert [each.shape for each in reviewed] == [each.shape for each in maps]
    # the deepest stage is reviewed alone; a change of the shallowest map reaches only its own output
    changed = fusion([maps[0] + torch.eye(9), *maps[1:]])
    assert not torch.equal(changed[0], reviewed[0])
    assert torch.equal(changed[1], reviewed[1])
    assert torch.equal(changed[2], reviewed[2])
    assert not torch.equal(fusion([*maps[:2], maps[2].square()])[0], reviewed[0])


def test_gradients() -> None:
    assert gradcheck(lambda student: pyramid_cosine(student, T1), (S1.clone().requires_grad_(),))
    inputs = (S1[:1].clone().requires_grad_(), S2[:1].clone().requires_grad_(), GATE.clone().requires_grad_())
    assert gradcheck(lambda *parts: fuse(*parts).sum(), inputs)


def term(
    options: dict, maps: tuple[torch.Tensor, ...], attention: tuple[torch.Tensor, ...], progress: float = 1.0
) -> float:
    method = ACSReview(SHAPES, **OPTIONS | options).double()
    return method(Features(maps, None), None, Targets(torch.arange(2), attention=attention), None, progress)[
        "review"
    ].item()


ATTENTION = (sine(0.4, 0.3, 2, 1, 4, 4) + 2, sine(0.9, 0.3, 2, 1, 2, 2) + 2)


def test_the_spatial_mean_is_removed() -> None:
    maps = tuple(each.square().mean(1, keepdim=True) for each in STUDENT_MAPS)
    expected = [
        loop_pyramid(*((each - each.mean((2, 3), keepdim=True)).numpy() for each in pair), (4, 2))
        for pair in zip(maps, ATTENTION, strict=True)
    ]
    assert term({}, STUDENT_MAPS, ATTENTION) == exactly(np.mean(expected))
    assert term({}, STUDENT_MAPS, tuple(each + 7 for each in ATTENTION)) == exactly(np.mean(expected))


def test_l2_compares_in_units_of_the_root_mean_square() -> None:
    maps = tuple(each.square().mean(1, keepdim=True) for each in STUDENT_MAPS)
    expected = []
    for pair in zip(maps, ATTENTION, strict=True):
        centred = [(each - each.mean((2, 3), keepdim=True)).numpy() for each in pair]
        own, other = (each / np.sqrt((each**2).mean()) for each in centred)
        expected.append(((own - other) ** 2).mean())
    assert term({"distance": "l2", "levels": []}, STUDENT_MAPS, ATTENTION) == exactly(np.mean(expected))


def test_ramp_and_shapes_that_differ() -> None:
    full = term({}, STUDENT_MAPS, ATTENTION)
    assert term({"warmup": 0.5}, STUDENT_MAPS, ATTENTION, progress=0.125) == exactly(full / 4)
    with pytest.raises(ValueError, match="differ in shape"):
        pyramid_cosine(S1, T2)
