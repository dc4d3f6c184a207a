"""Our own reader of dlib's face ResNet, out of the installed `face-recognition-models` package.

The file is public domain (CC0, Davis King, 2017) and the only one of its kind that we know: its sha256 is checked, then
its bytes are trusted. The package is located, never imported: importing it needs `pkg_resources`, which current
setuptools no longer has. Format of dlib's serialised networks, as measured on this file:

- integer: a control byte (low four bits: number of bytes that follow, bit 7: negative), then little-endian bytes;
- float: two integers, mantissa and exponent, mantissa * 2^exponent;  string: length, then bytes;
- tensor: version 2, four dimensions, little-endian float32 values;  alias (a view of it): version 1, four dimensions;
- a layer starts with its name as a string; layers stand in the order in which an image passes through them.

Only layers with weights and the input layer are read; what lies between them (empty gradients, flags) is skipped.
"""

import hashlib
import io
import math
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lrfr.errors import UserError
from lrfr.files import package_data
from lrfr.gate.images import read_regular

SHA256 = "55533b28a95800a551ba546ba62fe69625c7e95a7061c338adffead08719da30"
FILE_BYTES = 1 << 25  # more than the 22 MB that it has
TAGS = ("input_rgb_image_sized", "con_4", "affine_", "fc_2")  # names of the layers that are read
TAG = re.compile(b"|".join(re.escape(bytes([1, len(tag)]) + tag.encode()) for tag in TAGS))  # as serialised strings
SCALE = 256.0  # dlib's input layer divides the centred pixels by this; it is in dlib's code, not in the file


class Conv(NamedTuple):
    """y = gamma * (conv(x) + bias) + beta, since an affine layer follows every convolution.

    weight: float32 (filters, inputs, h, w). bias, gamma, beta: float32 (filters,).
    """

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


def parse(data: bytes) -> DlibWeights:
    """The weights in a serialised network of convolutions with affine layers, and one matrix. The bytes are trusted."""
    stream = io.BytesIO(data)

    def integer() -> int:
        control = stream.read(1)[0]
        value = int.from_bytes(stream.read(control & 15), "little")
        return -value if control & 128 else value

    def shape() -> list[int]:
        return [integer() for _ in range(5)][1:]  # without the version

    def tensor() -> np.ndarray:
        return np.frombuffer(stream.read(4 * math.prod(shape())), "<f4").astype(np.float32)

    def parts(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """A tensor cut into the two aliases that follow; the second has one value a filter."""
        first, _ = shape(), shape()
        return values[: math.prod(first)].reshape(first), values[math.prod(first) :]

    convs, mean, fc = [], np.empty(0, np.float32), np.empty((0, 0), np.float32)
    while match := TAG.search(data, stream.tell()):
        stream.seek(match.end())
        layer = match[0][2:].decode()
        if layer == "input_rgb_image_sized":
            mean = np.array([math.ldexp(integer(), integer()) for _ in range(3)], np.float32)
        elif layer == "con_4":
            values = tensor()
            _, _, _, stride, _, padding, _ = (integer() for _ in range(7))  # filters, then rows and columns of each
            weight, bias = parts(values)
        elif layer == "affine_":
            gamma, beta = parts(tensor())
            convs.append(Conv(weight, bias, gamma.reshape(-1), beta, stride, padding))
        else:
            outputs, inputs = integer(), integer()
            fc = tensor().reshape(inputs, outputs).T.copy()
    return DlibWeights(mean, tuple(convs), fc)


def embedded_path() -> Path:
    """Where the installed package keeps dlib's face ResNet; UserError if it is not installed, or lacks the file."""
    if path := package_data("face_recognition_models", "models/dlib_face_recognition_resnet_model_v1.dat"):
        return path
    raise UserError("face-recognition-models: not installed, or without its file; run `make setup` or reinstall it.")


def read_dlib(path: str | Path) -> DlibWeights:
    """Read dlib's face ResNet; UserError if the file cannot be read, or is not that one."""
    data = read_regular(Path(path), FILE_BYTES)
    if hashlib.sha256(data).hexdigest() != SHA256:
        raise UserError(f"{path}: not dlib's face ResNet (its sha256 differs); reinstall face-recognition-models.")
    return parse(data)
