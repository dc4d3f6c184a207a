"""Our own reader of dlib's face ResNet, out of the installed `face-recognition-models` package.

The file is public domain (CC0, Davis King, 2017). The package is located, never imported: importing it needs `pkg_resources`,
which current setuptools no longer has. Format of dlib's serialised networks, as measured on this file:

- integer: a control byte (low four bits: number of bytes that follow, bit 7: negative), then little-endian bytes;
- float: two integers, mantissa and exponent, mantissa * 2^exponent;  bool: ASCII `0` or `1`;  string: length, then bytes;
- tensor: version 2, four dimensions, little-endian float32 values;  alias (a view of a tensor): version 1, four dimensions;
- a layer starts with its name as a string; layers stand in the order in which an image passes through them.

Only layers with weights and the input layer are read; what lies between them (empty gradients, flags) is skipped.
"""

from __future__ import annotations

import importlib.util
import math
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lrfr.errors import UserError
from lrfr.gate.images import read_regular

PACKAGE = "face_recognition_models"
FILE_BYTES = 1 << 28  # our choice: the file has 22 MB
FILE = "models/dlib_face_recognition_resnet_model_v1.dat"
TAGS = ("input_rgb_image_sized", "con_4", "affine_", "fc_2")
TAG = re.compile(b"|".join(re.escape(bytes([1, len(tag)]) + tag.encode()) for tag in TAGS))  # as serialised strings
SCALE = 256.0  # dlib's input layer divides the centred pixels by this; it is in dlib's code, not in the file


class Conv(NamedTuple):
    """weight: float32 (filters, inputs, h, w). bias, gamma, beta: float32 (filters,); y = gamma * (conv(x) + bias) + beta."""

    weight: np.ndarray
    bias: np.ndarray
    gamma: np.ndarray
    beta: np.ndarray
    stride: int
    padding: int


class DlibWeights(NamedTuple):
    """mean: float32 (3,), RGB, of pixels in 0 ... 255. convs: from input to output. fc: float32 (outputs, inputs)."""

    mean: np.ndarray
    convs: tuple[Conv, ...]
    fc: np.ndarray


class _Reader:
    """A cursor over bytes that never reads beyond their end; ValueError says what is wrong with them."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def layer(self) -> str | None:
        """The name of the next layer that is read, behind which the cursor then stands; None if there is none."""
        match = TAG.search(self.data, self.at)
        self.at = match.end() if match else len(self.data)
        return match[0][2:].decode() if match else None

    def take(self, count: int) -> bytes:
        if not 0 <= count <= len(self.data) - self.at:
            raise ValueError(f"it ends within a record at byte {self.at}")
        self.at += count
        return self.data[self.at - count : self.at]

    def integer(self) -> int:
        control = self.take(1)[0]
        if not 1 <= control & 15 <= 8:
            raise ValueError(f"no integer at byte {self.at - 1}")
        value = int.from_bytes(self.take(control & 15), "little")
        return -value if control & 128 else value

    def real(self) -> float:
        mantissa, exponent = self.integer(), self.integer()
        if abs(exponent) > 1023:  # also dlib's codes for infinity and NaN
            raise ValueError(f"no finite number at byte {self.at}")
        return math.ldexp(mantissa, exponent)

    def shape(self, version: int) -> tuple[int, ...]:
        """Four dimensions of a tensor (version 2) or an alias (version 1)."""
        if (found := self.integer()) != version:
            raise ValueError(f"record version {found} instead of {version} at byte {self.at}")
        dimensions = tuple(self.integer() for _ in range(4))
        if min(dimensions) < 0:
            raise ValueError(f"a negative size at byte {self.at}")
        return dimensions

    def tensor(self) -> np.ndarray:
        """The flat values of a tensor, float32."""
        values = np.frombuffer(self.take(4 * math.prod(self.shape(2))), "<f4")
        if not np.isfinite(values).all():
            raise ValueError(f"values that are not finite before byte {self.at}")
        return values.astype(np.float32)

    def parts(self, values: np.ndarray) -> list[np.ndarray]:
        """A tensor cut into the two aliases that follow."""
        shapes = self.shape(1), self.shape(1)
        if sum(map(math.prod, shapes)) != len(values):
            raise ValueError(f"a tensor of {len(values)} values where its parts have shapes {shapes}")
        cut = math.prod(shapes[0])
        return [values[:cut].reshape(shapes[0]), values[cut:].reshape(shapes[1])]


def _conv(reader: _Reader) -> Conv:
    """A convolution with the affine layer that must follow."""
    values = reader.tensor()
    filters, height, width, stride, stride_x, padding, padding_x = (reader.integer() for _ in range(7))
    weight, bias = reader.parts(values)
    if (len(weight), *weight.shape[2:], bias.size) != (filters, height, width, filters):
        raise ValueError(f"a convolution {weight.shape} where {filters} of {height} x {width} are announced")
    if stride != stride_x or padding != padding_x:
        raise ValueError("a convolution that treats rows and columns differently")
    if reader.layer() != "affine_":
        raise ValueError(f"a layer out of place at byte {reader.at}: a convolution without its affine layer")
    gamma, beta = reader.parts(reader.tensor())
    if not gamma.size == beta.size == bias.size:
        raise ValueError(f"an affine layer of another width before byte {reader.at}")
    return Conv(weight, bias.reshape(-1), gamma.reshape(-1), beta.reshape(-1), stride, padding)


def _fc(reader: _Reader) -> np.ndarray:
    outputs, inputs = reader.integer(), reader.integer()
    values = reader.tensor()
    if values.size != inputs * outputs:  # a bias would make it larger
        raise ValueError(f"a matrix of {values.size} values where {inputs} x {outputs} are announced")
    return values.reshape(inputs, outputs).T.copy()


def parse(data: bytes) -> DlibWeights:
    """The weights in a serialised dlib network whose every convolution is followed by an affine layer.

    Raises ValueError saying what is wrong with the bytes; nothing is read beyond their end.
    """
    reader, mean, convs, fc = _Reader(data), None, [], None
    while layer := reader.layer():
        if layer == "input_rgb_image_sized":
            mean = np.array([reader.real() for _ in range(3)], dtype=np.float32)
        elif layer == "con_4":
            convs.append(_conv(reader))
        elif layer == "fc_2":
            fc = _fc(reader)
        else:
            raise ValueError(f"a layer out of place at byte {reader.at}: {layer} without a convolution")
    if mean is None or not convs or fc is None:
        raise ValueError("no dlib network of convolutions and one matrix is in it")
    return DlibWeights(mean, tuple(convs), fc)


def embedded_path() -> Path:
    """Where the installed package keeps dlib's face ResNet; UserError if it is not installed, or lacks the file."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise UserError(
            "face-recognition-models: not installed; run `make setup` or `pip install face-recognition-models`."
        )
    path = Path(spec.origin).parent / FILE
    if not path.is_file():
        raise UserError(f"{path}: the file is missing from the package; reinstall face-recognition-models.")
    return path


def read_dlib(path: str | Path) -> DlibWeights:
    """Read a serialised dlib network; UserError naming the file, if it cannot be read or is not such a network."""
    try:
        return parse(read_regular(Path(path), FILE_BYTES))
    except ValueError as error:
        reason = f"not dlib's face ResNet, or damaged: {error}"
        raise UserError(f"{path}: {reason}; reinstall face-recognition-models.") from None
