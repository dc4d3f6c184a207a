"""MobileFaceNet has the published shape: its costs agree with the published ones, and with a count by hand of Table
1."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lrfr.deploy.latency import counts
from lrfr.deploy.mobilefacenet import build_mobilefacenet

IMAGE = torch.zeros(1, 3, 112, 112)
# Table 1 written out: (expansion, inputs, outputs, stride, side of the output) of each of the 15 blocks
BLOCKS = [
    (2, 64, 64, 2, 28), *[(2, 64, 64, 1, 28)] * 4,
    (4, 64, 128, 2, 14), *[(2, 128, 128, 1, 14)] * 6,
    (4, 128, 128, 2, 7), *[(2, 128, 128, 1, 7)] * 2,
]  # fmt: skip


def by_hand(embedding: int) -> tuple[int, int]:
    """Parameters and multiply-accumulates, layer by layer; a batch norm has two parameters a channel, a PReLU one."""
    params = 27 * 64 + 3 * 64 + 9 * 64 + 3 * 64
    macs = (27 * 64 + 9 * 64) * 56**2
    for expansion, inputs, outputs, stride, side in BLOCKS:
        middle = expansion * inputs
        params += inputs * middle + 9 * middle + middle * outputs + 3 * middle + 3 * middle + 2 * outputs
        macs += inputs * middle * (stride * side) ** 2 + (9 * middle + middle * outputs) * side**2
    params += 128 * 512 + 3 * 512 + 49 * 512 + 2 * 512 + 512 * embedding + 2 * embedding
    return params, macs + 128 * 512 * 49 + 49 * 512 + 512 * embedding


# published: 0.99 M and 221 M for the paper's 128 dimensions; 1.2 M for the 512 of released weights
@pytest.mark.parametrize(
    ("embedding", "params", "macs", "published"),
    [(128, 1_003_136, 220_965_376, (0.99e6, 221e6)), (512, 1_200_512, 221_161_984, (1.2e6, 221e6))],
)
def test_costs_are_those_of_the_paper(embedding: int, params: int, macs: int, published: tuple[float, float]):
    cost = counts(build_mobilefacenet(embedding), IMAGE)
    assert (cost["params"], cost["macs"]) == (params, macs) == by_hand(embedding)
    assert (params, macs) == pytest.approx(published, rel=0.015)


def test_with_two_operations_an_element_for_batch_norm_there_are_228_million():
    net, elements = build_mobilefacenet(512), []
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_hook(lambda module, inputs, output: elements.append(output.numel()))
    macs = counts(net, IMAGE)["macs"]
    assert round((macs + 2 * sum(elements)) / 1e6) == 228


def test_the_embedding_comes_from_linear_layers_over_a_map_of_seven():
    net = build_mobilefacenet(128)
    before, pool, last = net[-4], net[-3], net[-2]
    with torch.inference_mode():
        x = net[:-3](IMAGE)
        assert x.shape == (1, 512, 7, 7) and pool(x).shape == (1, 512, 1, 1) and net(IMAGE).shape == (1, 128)
    prelu = [sum(isinstance(m, nn.PReLU) for m in part.modules()) for part in (before, pool, last, net)]
    assert prelu == [1, 0, 0, 2 + 2 * 15 + 1]
    assert sum(block.skip for block in net if hasattr(block, "skip")) == 4 + 6 + 2


def test_two_are_the_same_and_leave_the_global_generator_alone():
    state = torch.get_rng_state()
    first, second = build_mobilefacenet(128).state_dict(), build_mobilefacenet(128).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first) and torch.equal(state, torch.get_rng_state())
    assert not any(p.requires_grad for p in build_mobilefacenet(128).parameters())
