"""The reader of dlib's format: on the real file, and on one written here; every other one is refused."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from lrfr import files
from lrfr.errors import UserError
from lrfr.gate import dlib_weights
from lrfr.gate.dlib_weights import embedded_path, parse, read_dlib


@pytest.fixture(scope="module")
def real() -> bytes:
    return embedded_path().read_bytes()


def integer(value: int) -> bytes:
    size = max(1, (abs(value).bit_length() + 7) // 8)
    return bytes([size | (128 if value < 0 else 0)]) + abs(value).to_bytes(size, "little")


def name(text: str) -> bytes:
    return integer(len(text)) + text.encode()


def tensor(values: np.ndarray, *shape: int) -> bytes:
    return b"".join(map(integer, (2, *shape))) + values.astype("<f4").tobytes()


def alias(*shape: int) -> bytes:
    return b"".join(map(integer, (1, *shape)))


WEIGHT, BIAS = np.arange(24.0).reshape(2, 3, 2, 2), np.array([1.0, -1.0])
GAMMA, BETA = np.array([2.0, 3.0]), np.array([0.5, 0.25])
FC = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])  # outputs x inputs
INPUT = name("input_rgb_image_sized") + b"".join(integer(i) for i in (245, -1, 3, 0, 1, -2)) + integer(150) * 2
CONV = (
    name("con_4")
    + tensor(np.concatenate([WEIGHT.ravel(), BIAS]), 26, 1, 1, 1)
    + b"".join(map(integer, (2, 2, 2, 2, 2, 0, 0)))
    + alias(2, 3, 2, 2)
    + alias(1, 2, 1, 1)
)
AFFINE = name("affine_") + tensor(np.concatenate([GAMMA, BETA]), 4, 1, 1, 1) + alias(1, 2, 1, 1) + alias(1, 2, 1, 1)
MATRIX = name("fc_2") + integer(3) + integer(2) + tensor(FC.T, 2, 3, 1, 1)
SMALL = b"header" + INPUT + b"000" + CONV + AFFINE + b"\x01\x00" + MATRIX


def test_a_network_written_here_is_read_back() -> None:
    weights = parse(SMALL)
    assert weights.mean.tolist() == [122.5, 3.0, 0.25]
    (conv,) = weights.convs
    for found, expected in zip(conv[:4], (WEIGHT, BIAS, GAMMA, BETA), strict=True):
        assert found.dtype == np.float32 and np.array_equal(found, expected)
    assert (conv.stride, conv.padding) == (2, 0)
    assert np.array_equal(weights.fc, FC)


def test_the_real_file(real: bytes) -> None:
    weights = parse(real)
    assert len(weights.convs) == 29 and weights.fc.shape == (128, 256)
    assert weights.mean.tolist() == pytest.approx([122.782, 117.001, 104.298], abs=1e-4)
    # as published: filters, biases, gammas, betas and the matrix
    assert sum(array.size for conv in weights.convs for array in conv[:4]) + weights.fc.size == 5_614_592


def test_every_other_file_is_a_user_error_that_names_it(real: bytes, tmp_path: Path) -> None:
    path = tmp_path / "other.dat"
    for other in (b"", SMALL, real[:-1], real + b"x", real[:1000] + bytes([real[1000] ^ 1]) + real[1001:]):
        path.write_bytes(other)
        with pytest.raises(UserError, match=r"other\.dat: not dlib's face ResNet \(its sha256 differs\)"):
            read_dlib(path)
    with path.open("r+b") as file:
        file.truncate(dlib_weights.FILE_BYTES + 1)
    with pytest.raises(UserError, match=r"other\.dat: not a file, or larger than"):
        read_dlib(path)


def test_missing_file_and_missing_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"none\.dat"):
        read_dlib(tmp_path / "none.dat")
    for spec in (SimpleNamespace(origin=str(tmp_path / "__init__.py")), None):
        monkeypatch.setattr(files, "find_spec", lambda name, spec=spec: spec)
        with pytest.raises(UserError, match="^face-recognition-models: not installed, or without its file"):
            embedded_path()
