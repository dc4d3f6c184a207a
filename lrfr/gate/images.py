"""The pixels of an image that nobody has checked: the readers of photographs and benchmark sets decode only through here."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np

from lrfr import files
from lrfr.errors import UserError

LARGEST_BYTES = (
    1 << 26
)  # our choice: more than an uncompressed image of the largest size that is decoded (4096 x 4096 x 3)


def read_regular(path: Path, limit: int, name: str | None = None) -> bytes:
    """The bytes of a regular file (a pipe would be waited for) that has at most `limit`; UserError if it has not or is none."""
    name = name or str(path)
    try:
        regular, size = path.is_file(), path.stat().st_size
        data = path.read_bytes() if regular and size <= limit else b""
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise UserError(f"{name}: cannot be read ({reason}); give the path of a file.") from None
    if not regular or size > limit:
        reason = f"larger than {limit} bytes" if regular else "not a regular file"
        raise UserError(f"{name}: {reason}; fetch it again or remove it.")
    return data


def read_image(source: str | Path | bytes, name: str | None = None) -> np.ndarray:
    """Decode an image, upright and as RGB: uint8 (H, W, 3), H and W at most 4096.

    source: a path, or the encoded bytes. name: for messages (the path, by default). What is accepted is said in
    `files.read_image`: its header is checked before a pixel is decoded, the EXIF orientation is applied, CMYK, grey and palette
    become RGB, the first frame of a moving image counts. Colour with 16 bits keeps its high byte, grey with 16 bits is refused.

    Raises
    ------
    UserError
        if the file is missing, no regular file (a pipe would be waited for), empty, no image, damaged, incomplete or too large.
    """
    name = name or ("image" if isinstance(source, bytes) else str(source))
    data = source if isinstance(source, bytes) else read_regular(Path(source), LARGEST_BYTES, name)
    if not 0 < len(data) <= LARGEST_BYTES:
        state = f"larger than {LARGEST_BYTES} bytes" if data else "empty"
        raise UserError(f"{name}: the image is {state}; fetch it again or remove it.")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # decoders warn of what is odd in a header; what matters raises
        image = files.read_image(data, name)
    return np.array(image)  # a copy that may be written to, as torch wants it
