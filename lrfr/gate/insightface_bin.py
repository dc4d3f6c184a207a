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
from lrfr.gate.images import read_pixels, read_regular
from lrfr.gate.trees import Count

FILE_BYTES = 1 << 29  # our choice: four times the largest of the known files (cfp_fp has 14,000 images of about 8 kB)
STEPS = 1 << 20  # our choice; twenty for each of 14,000 images, in the longest of the known forms, are 280,000
SIDE = 112  # pixels of InsightFace's aligned faces
# Where their five points are: eye centres, nose tip, mouth corners (`arcface_dst` in insightface/utils/face_align.py)
ARCFACE = np.array([(38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041)])
PAIRS = {"lfw": 6000, "agedb_30": 6000, "calfw": 6000, "cplfw": 6000, "cfp_fp": 7000, "cfp_ff": 7000}
FOLDS = 10  # of the protocol: contiguous, equally large
# What Python 2 and 3 and NumPy 1 and 2 name in a pickle of bytes (protocol 2) and of arrays; nothing of it is called.
NAMES = {
    ("_codecs", "encode"): "encode",
    ("numpy", "dtype"): "dtype",
    ("numpy", "ndarray"): "ndarray",
    **{(f"numpy.{core}.multiarray", "_reconstruct"): "array" for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): "scalar" for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): "buffer" for core in ("core", "_core")},
}
DTYPES = {"b1": np.bool_, "u1": np.uint8, "i1": np.int8, "i4": np.int32, "i8": np.int64}
DTYPES |= {code.encode(): dtype for code, dtype in DTYPES.items()}  # as Python 2 wrote them


class Refused(Exception):
    """What is wrong with a file, in a few words."""


class Call:
    """A name that a pickle may mention, and what it would be called with and set to; nothing of that happens."""

    __slots__ = ("arguments", "name", "state")
    __match_args__ = ("name", "arguments", "state")

    def __init__(self, name: str, arguments: tuple | None = None) -> None:
        self.name, self.arguments, self.state = name, arguments, None

    def __call__(self, *arguments: object) -> Call:
        return Call(self.name, arguments)

    def __setstate__(self, state: object) -> None:
        if self.arguments is None:
            raise Refused("it sets the state of a function")
        self.state = state


class Symbolic(pickle.Unpickler):
    """The one unpickler of this package: it finds no class and no function, only symbols for the names in `NAMES`."""

    def find_class(self, module: str, name: str) -> Call:
        if (module, name) not in NAMES:
            raise Refused(f"it asks for {module}.{name}, which no list of images needs")
        return Call(NAMES[module, name])

    def persistent_load(self, pid: object) -> object:
        raise Refused("it refers to another file")


def check_claims(data: bytes) -> None:
    """`Refused` for too many steps, or a memory numbered higher than there are steps; ValueError for an early end."""
    for count, (operation, argument, _) in enumerate(pickletools.genops(io.BytesIO(data))):
        if count > STEPS or (operation.name in ("PUT", "BINPUT", "LONG_BINPUT") and argument > count):
            raise Refused("it claims more objects than a list of images has")
        if operation.name.startswith("EXT"):  # a table of this process
            raise Refused("it refers to a table outside of the file")


def as_bytes(value: object) -> bytes:
    """Bytes, or the symbols for them: `_codecs.encode(text, "latin1")` of Python 3's protocol 2."""
    match value:
        case bytes() | bytearray():
            return bytes(value)
        case Call("encode", (str(text), "latin1" | b"latin1")):
            return text.encode("latin1")
    raise Refused("it has something else where bytes belong")


def as_dtype(value: object) -> np.dtype:
    """The symbol for a dtype of booleans or small whole numbers."""
    match value:
        case Call("dtype", (str() | bytes() as code, *_)) if code in DTYPES:
            return np.dtype(DTYPES[code]).newbyteorder("<")
    raise Refused("it has an array of something else than booleans or small whole numbers")


def as_array(value: object) -> NDArray:
    """The flat values of an array, a scalar, or a list of booleans and scalars."""
    match value:
        case list() | tuple():
            found = [np.zeros(0, np.int64)]
            for item in value:  # a larger array that a list names many times would fill the memory
                if isinstance(item, (list, tuple)) or (one := as_array(item)).size != 1:
                    raise Refused("its list of booleans has lists or arrays inside")
                found.append(one)
            return np.concatenate(found)
        case bool() | int() if value in (0, 1):
            return np.array([value], np.int64)
        case (
            Call("array", _, (_, _, dtype, _, raw)) | Call("buffer", (raw, dtype, _, _)) | Call("scalar", (dtype, raw))
        ):
            dtype = as_dtype(dtype)  # first: an array of objects has a list where others have bytes
            return np.frombuffer(as_bytes(raw), dtype)
    raise Refused("it has something else where an array or a boolean belongs")


def as_image(value: object) -> bytes:
    """An encoded image: bytes, or an array of bytes (as OpenCV's encoder returns it)."""
    match value:
        case Call("array" | "buffer"):
            return as_array(value).astype(np.uint8).tobytes()
    return as_bytes(value)


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
        image = read_pixels(self.images[i], what)
        if image.shape != (SIDE, SIDE, 3):
            size = f"{image.shape[1]} x {image.shape[0]}"
            raise UserError(f"{what}: {size} pixels instead of {SIDE} x {SIDE}; fetch the set again.")
        return image


def parse(data: bytes) -> tuple[list[bytes], NDArray[np.bool_]]:
    """The images (2P) and bool (P,) of a file's bytes; `Refused`, or any other exception, for what is no such file."""
    check_claims(data)
    whole = Symbolic(io.BytesIO(data), encoding="bytes").load()
    if not isinstance(whole, (tuple, list)) or len(whole) != 2 or not isinstance(whole[0], (list, tuple)):
        raise Refused("it is no pair of a list of images and a list of booleans")
    images, size = [], 0
    for image in whole[0]:  # one that a short file names many times becomes as many copies here
        images.append(as_image(image))
        size += len(images[-1])
        if size > FILE_BYTES:
            raise Refused(f"its images have more than {FILE_BYTES >> 20} MB")
    same = as_array(whole[1])
    if not len(same) or len(images) != 2 * len(same):
        raise Refused(f"it has {len(images)} images for {len(same)} pairs")
    if not np.isin(same, (0, 1)).all():
        raise Refused("its list of booleans has other numbers")
    if len(same) % FOLDS:
        raise Refused(f"its {len(same)} pairs cannot be divided into {FOLDS} folds")
    return images, same.astype(bool)


def read_bin(path: Path) -> ImagePairs:
    """Read a `.bin` file into memory (60 to 120 MB), without running anything that it asks for.

    Raises UserError if the file is missing or too large, is not such a pickle, asks for any name that such pickles do
    not have, or has numbers of images and booleans that do not belong together.
    """
    data = read_regular(Path(path), FILE_BYTES)
    try:
        images, same = parse(data)
    except Refused as error:
        raise UserError(f"{path}: not a set of image pairs, {error}; fetch it from a source that you trust.") from None
    except Exception as error:  # unpickling raises almost anything on hostile bytes
        raise UserError(f"{path}: not a complete .bin file ({type(error).__name__}); fetch it again.") from None
    counts = Count("pairs", len(same), PAIRS.get(Path(path).stem)), Count("pairs of one person", int(same.sum()), None)
    return ImagePairs(Path(path), images, same, counts)
