"""InsightFace's verification sets (lfw, cfp_fp, agedb_30, calfw, cplfw): pairs of aligned faces in one `.bin` file.

Such a file is a pickle of (encoded images, is-same list); images 2i and 2i + 1 are pair i. A pickle from elsewhere may
call anything, so it is never loaded: `Symbolic` lets a few names through, as symbols that do nothing. What they stand
for is computed here, for exactly the forms in which bytes, booleans and arrays of them are pickled.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lrfr.errors import UserError
from lrfr.gate.images import Damaged, read_image, read_regular, refusing
from lrfr.gate.trees import Count

FILE_BYTES = 1 << 29  # our choice: four times the largest of the known files (cfp_fp has 14,000 images of about 8 kB)
STEPS = 1 << 20  # our choice; twenty for each of 14,000 images, in the longest of the known forms, are 280,000
SIDE = 112  # pixels of InsightFace's aligned faces
# Where their five points are: eye centres, nose tip, mouth corners (`arcface_dst` in insightface/utils/face_align.py)
ARCFACE = np.array([(38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041)])
PAIRS = {"lfw": 6000, "agedb_30": 6000, "calfw": 6000, "cplfw": 6000, "cfp_fp": 7000, "cfp_ff": 7000}
FOLDS = 10  # of the protocol: contiguous, equally large
# What Python 2 and 3 and NumPy 1 (2: _core) name in a pickle of bytes (protocol 2) and of arrays; nothing is called.
NAMES = {"_codecs.encode", "numpy.dtype", "numpy.ndarray", "numpy.core.numeric._frombuffer"}
NAMES |= {"numpy.core.multiarray._reconstruct", "numpy.core.multiarray.scalar"}
DTYPES = {"b1": np.bool_, "u1": np.uint8, "i1": np.int8, "i4": "<i4", "i8": "<i8"}
DTYPES |= {code.encode(): dtype for code, dtype in DTYPES.items()}  # as Python 2 wrote them


class Call:
    """A name that a pickle may mention, and what it would be called with and set to; nothing of that happens."""

    __slots__ = __match_args__ = ("name", "arguments", "state")

    def __init__(self, name: str, arguments: tuple | None = None) -> None:
        self.name, self.arguments, self.state = name, arguments, None

    def __call__(self, *arguments: object) -> Call:
        return Call(self.name, arguments)

    def __setstate__(self, state: object) -> None:
        self.state = state


class Symbolic(pickle.Unpickler):
    """The one unpickler of this package: it finds no class and no function, only symbols for the names in `NAMES`."""

    def find_class(self, module: str, name: str) -> Call:
        if f"{module}.{name}".replace("numpy._core.", "numpy.core.", 1) not in NAMES:
            raise Damaged(f"it asks for {module}.{name}, which no list of images needs")
        return Call(name)


def check_claims(data: bytes) -> None:
    """`Damaged` for more steps, places of memory or outside things than a list needs; ValueError for an early end."""
    for count, (operation, argument, _) in enumerate(pickletools.genops(io.BytesIO(data))):
        far = operation.name in ("PUT", "BINPUT", "LONG_BINPUT") and argument > count
        if count > STEPS or far or operation.name.startswith("EXT"):  # EXT: a table of this process
            raise Damaged("it claims more objects than a list of images has, or objects outside of the file")


def as_bytes(value: object) -> bytes:
    """Bytes, or the symbols for them (Python 3, protocol 2)."""
    match value:
        case bytes() | bytearray():
            return bytes(value)
        case Call("encode", (str(text), "latin1" | b"latin1")):
            return text.encode("latin1")
    raise Damaged("it has something else where bytes belong")


def as_array(value: object) -> NDArray:
    """The flat values of an array, or of a scalar, of booleans or small whole numbers."""
    match value:
        case int(0 | 1):
            return np.array([value])
        case (
            Call("_reconstruct", _, (_, _, Call("dtype", (code, *_)), _, raw))
            | Call("_frombuffer", (raw, Call("dtype", (code, *_)), _, _))
            | Call("scalar", (Call("dtype", (code, *_)), raw))
        ):
            return np.frombuffer(as_bytes(raw), DTYPES[code])
    raise Damaged("it has something else where an array or a boolean belongs")


class ImagePairs(NamedTuple):
    """Pairs of encoded images: pair i is (2i, 2i + 1), in the order of the protocol's ten folds.

    path: the file. images: 2P encoded images, decoded when they are read. same: bool (P,).
    """

    path: Path
    images: list[bytes]
    same: NDArray[np.bool_]
    counts: tuple[Count, ...]

    def read(self, i: int) -> NDArray[np.uint8]:
        """Image i, uint8 (112, 112, 3) RGB; UserError if it cannot be read or has another size."""
        what = f"{self.path}, image {i} (of pair {i // 2})"
        image = read_image(self.images[i], what)
        if image.size != (SIDE, SIDE):
            raise UserError(f"{what}: not {SIDE} x {SIDE} pixels; fetch the set again.")
        return np.array(image)


def read_bin(path: Path) -> ImagePairs:
    """Read a `.bin` file into memory (60 to 120 MB), without running anything that it asks for.

    Raises UserError if the file is missing or too large, or asks for or holds anything that such pickles do not have.
    """
    data = read_regular(path, FILE_BYTES)
    with refusing(path, "a set of image pairs"):
        check_claims(data)
        symbols, flags = Symbolic(io.BytesIO(data), encoding="bytes").load()
        images, left = [], FILE_BYTES
        for symbol in symbols:  # one that a short file names many times becomes as many copies here
            array = isinstance(symbol, Call) and symbol.name != "encode"  # of bytes, as OpenCV's encoder returns it
            images.append(as_array(symbol).astype(np.uint8).tobytes() if array else as_bytes(symbol))
            left -= len(images[-1])
            if left < 0:
                raise Damaged(f"its images have more than {FILE_BYTES >> 20} MB")
        one_by_one = isinstance(flags, (list, tuple))  # `item`: naming a large array many times would fill the memory
        same = np.array([as_array(flag).item() for flag in flags]) if one_by_one else as_array(flags)
        if not len(same) or len(images) != 2 * len(same) or len(same) % FOLDS or not np.isin(same, (0, 1)).all():
            raise Damaged(f"it has {len(images)} images and {len(same)} booleans, not two each in {FOLDS} folds")
    same = same.astype(bool)
    counts = Count("pairs", len(same), PAIRS.get(path.stem)), Count("pairs of one person", int(same.sum()), None)
    return ImagePairs(path, images, same, counts)
