"""Squeeze-and-excitation against methods' test T3 and a per-channel loop."""

from __future__ import annotations

import pytest
import torch

from lrfr.models.se import IdentityGate, SEBlock, gates, squeeze_excite


def sine(a: float, b: float, *shape: int) -> torch.Tensor:
    return torch.sin(a * torch.arange(torch.Size(shape).numel(), dtype=torch.float64) + b).reshape(shape)


X, W1, W2 = sine(0.7, 0.1, 1, 4, 2, 2), sine(0.4, 0.2, 2, 4), sine(0.9, -0.3, 4, 2)


def test_reference_value() -> None:
    expected = torch.tensor([[0.550897550390, 0.567626064452, 0.418733674488, 0.469254010148]], dtype=torch.float64)
    assert torch.allclose(gates(X, W1, W2), expected, rtol=0, atol=1e-9)
    assert squeeze_excite(X, W1, W2).sum().item() == pytest.approx(0.638520621859, abs=1e-9)


def test_agrees_with_a_loop_over_images_and_channels() -> None:
    x, y = sine(0.3, 0.0, 3, 4, 5, 2), torch.empty(3, 4, 5, 2, dtype=torch.float64)
    for image in range(3):
        hidden = [max(0.0, sum(W1[j, c] * x[image, c].sum() / 10 for c in range(4))) for j in range(2)]
        for c in range(4):
            y[image, c] = x[image, c] / (1 + torch.exp(-(W2[c, 0] * hidden[0] + W2[c, 1] * hidden[1])))
    assert torch.allclose(squeeze_excite(x, W1, W2), y, rtol=0, atol=1e-12)


def test_gradients() -> None:
    inputs = tuple(t.clone().requires_grad_() for t in (X, W1, W2))
    assert torch.autograd.gradcheck(squeeze_excite, inputs)


@pytest.mark.parametrize("block", [SEBlock, IdentityGate])
def test_number_of_weights(block: type[SEBlock] | type[IdentityGate]) -> None:
    assert sum(p.numel() for p in block(64, 16).parameters()) == 2 * 64 * 64 // 16
    assert sum(p.numel() for p in block(8, 16).parameters()) == 2 * 8  # one hidden unit at least


def test_the_plain_block_is_the_function_of_its_weights() -> None:
    block, x = SEBlock(32, 4), torch.randn(2, 32, 3, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(block(x), squeeze_excite(x, block.w1, block.w2))
    assert not torch.allclose(block(x), x)


def test_the_identity_gate_starts_as_the_identity_bit_for_bit_and_can_leave_it() -> None:
    gate, x = IdentityGate(32, 4), torch.randn(2, 32, 3, 3, generator=torch.Generator().manual_seed(0))
    y = gate(x)
    assert torch.equal(y, x)
    y.square().sum().backward()
    assert gate.w2.grad is not None and gate.w2.grad.abs().max() > 0
    with torch.no_grad():
        gate.w2 -= 0.01 * gate.w2.grad
    assert not torch.allclose(gate(x), x)


@pytest.mark.parametrize("channels", [16, 32, 48])
def test_some_hidden_unit_of_an_identity_gate_is_on_whatever_the_input(channels: int) -> None:
    gate = IdentityGate(channels, 8)
    means = torch.randn(500, channels, generator=torch.Generator().manual_seed(0))
    assert ((means @ gate.w1.detach().T).amax(1) > 0).all()
