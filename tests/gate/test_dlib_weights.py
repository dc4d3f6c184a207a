"""The reader of dlib's format: on the real file, on files written here, and on damaged ones."""

from __future__ import annotations

import importlib.util
import struct
from pathlib import Path

import numpy as np
import pytest

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


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "no dlib network"),
        (INPUT + MATRIX, "no dlib network"),
        (INPUT + CONV + AFFINE, "no dlib network"),
        (INPUT + AFFINE + MATRIX, "out of place"),  # an affine layer without a convolution
        (INPUT + CONV + MATRIX, "out of place"),  # a convolution without its affine layer
        (SMALL[: len(SMALL) - 1], "ends within a record"),
        (
            INPUT + name("con_4") + integer(2) + integer(2**62) * 4,
            "ends within a record",
        ),  # must not ask for 2^250 bytes
        (INPUT + name("con_4") + integer(2) + integer(-1) * 4, "negative size"),
        (INPUT + name("con_4") + integer(3), "version"),
        (INPUT + name("con_4") + b"\x00", "no integer"),
        (name("input_rgb_image_sized") + integer(1) + integer(2000), "finite"),  # dlib's code for a non-number
        (INPUT + CONV.replace(alias(2, 3, 2, 2), alias(2, 3, 2, 3)) + AFFINE + MATRIX, "shapes"),
        (INPUT + CONV.replace(struct.pack("<f", 23.0), struct.pack("<f", np.nan)) + AFFINE + MATRIX, "finite"),
        (INPUT + CONV + AFFINE + name("fc_2") + integer(4) + integer(2) + tensor(FC.T, 2, 3, 1, 1), "announced"),
    ],
)
def test_wrong_bytes_are_refused(data: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse(data)


def test_the_real_file(real: bytes) -> None:
    weights = parse(real)
    assert len(weights.convs) == 29 and weights.fc.shape == (128, 256)
    assert weights.mean.tolist() == pytest.approx([122.782, 117.001, 104.298], abs=1e-4)
    # as published: filters, biases, gammas, betas and the matrix
    assert sum(array.size for conv in weights.convs for array in conv[:4]) + weights.fc.size == 5_614_592


@pytest.mark.parametrize("fraction", [0.001, 0.3, 0.999])
def test_a_truncated_file_is_a_user_error_that_names_it(real: bytes, tmp_path: Path, fraction: float) -> None:
    path = tmp_path / "cut.dat"
    path.write_bytes(real[: int(len(real) * fraction)])
    with pytest.raises(UserError, match="cut.dat"):
        read_dlib(path)


def test_garbled_headers_never_escape_as_another_error(real: bytes) -> None:
    # flip bytes where the structure is, not in the middle of weights, where every value is as good as another
    starts = [match.start() for match in dlib_weights.TAG.finditer(real)]
    random = np.random.Generator(np.random.Philox(key=0))
    refused = 0
    for _ in range(30):
        garbled = bytearray(real)
        garbled[starts[int(random.integers(len(starts)))] + int(random.integers(25))] ^= int(random.integers(1, 256))
        try:
            parse(bytes(garbled))
        except ValueError:
            refused += 1
    assert refused > 8


def test_missing_file_and_missing_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"none\.dat"):
        read_dlib(tmp_path / "none.dat")
    spec = importlib.util.find_spec(dlib_weights.PACKAGE)
    assert spec is not None
    spec.origin = str(tmp_path / "__init__.py")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    with pytest.raises(UserError, match="reinstall"):
        embedded_path()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="not installed"):
        embedded_path()
