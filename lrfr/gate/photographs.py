"""A user's photographs: any file may come, and only what is an image of a sensible size is decoded.

`lrfr.files.read_image` is for collections whose files are known by hash. A product meets whatever people have: large
camera files, scans with 16 bits, drawings with transparency.
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from lrfr.errors import UserError
from lrfr.files import FORMATS

LARGEST_BYTES = 1 << 27  # of a file; our choice: compressed photographs of the largest size below are smaller
LARGEST_PIXELS = 1 << 26  # 8192 x 8192; our choice: 200 MB once decoded, and more than nearly all cameras have
WHITE = (255, 255, 255)  # behind transparent pixels, as viewers and browsers show them
SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}


def read_bytes(path: Path) -> bytes:
    """The bytes of a user's file; UserError for what is missing, no regular file, empty, or too large."""
    try:
        if path.exists() and not path.is_file():  # a folder, or a pipe or device, whose end may never come
            raise UserError(f"{path}: not a file; give the path of an image.")
        with path.open("rb") as file:
            data = file.read(LARGEST_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path}: cannot be read ({reason}); give the path of an image.") from None
    if not data:
        raise UserError(f"{path}: the file is empty; fetch it again.")
    if len(data) > LARGEST_BYTES:
        raise UserError(f"{path}: more than {LARGEST_BYTES >> 20} MB; give a smaller file.")
    return data


def to_rgb(image: Image.Image) -> Image.Image:
    """8-bit RGB of any mode of Pillow's: grey with 16 bits is scaled, what is transparent becomes white.

    Raises
    ------
    ValueError
        if the values have no known range: floating point, or whole numbers beyond 16 bits.
    """
    if image.mode == "F":
        raise ValueError("values without a known range")
    if image.mode.startswith("I"):  # 16 bits, in one of five modes by format and version of Pillow
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError("values beyond 16 bits")
        image = Image.fromarray(((values + 128) // 257).astype(np.uint8))  # 65535 = 255 * 257
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, WHITE), image).convert("RGB")
    return image.convert("RGB")


def read_photograph(path: str | Path) -> Image.Image:
    """Decode one image as upright 8-bit RGB, the first frame of a moving one.

    The size is read from the header before a pixel is decoded; an incomplete file is refused, never filled up.

    Raises
    ------
    UserError
        if the file is missing, empty, no image, damaged, incomplete, larger than 2^26 pixels, or its values have no known range.
    """
    path = Path(path)
    data = read_bytes(path)
    too_large = UserError(f"{path}: more than {LARGEST_PIXELS // 10**6} million pixels; make it smaller first.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit below is stricter
            image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError:
        raise too_large from None
    except Exception:  # decoders raise almost anything on hostile bytes
        raise UserError(f"{path}: not an image that can be read ({', '.join(FORMATS)}); give another file.") from None
    if image.width * image.height > LARGEST_PIXELS:
        raise too_large
    try:
        upright = ImageOps.exif_transpose(image)
    except Exception:  # decoding is lazy: damage inside the file shows only here
        raise UserError(f"{path}: the image is damaged or incomplete; fetch the file again.") from None
    try:
        return to_rgb(upright)
    except ValueError as error:
        raise UserError(f"{path}: {error}; convert it to 8 bits first.") from None


def list_photographs(folder: str | Path) -> list[Path]:
    """The image files in a folder and below, by their endings, sorted; hidden ones are left out.

    Raises
    ------
    UserError
        if there is no such folder, or no image in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give one with photographs.")
    found = [path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file()]
    found = sorted(path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts))
    if not found:
        raise UserError(f"{folder}: holds no image ({', '.join(sorted(SUFFIXES))}); give a folder with photographs.")
    try:
        "".join(map(str, found)).encode()
    except UnicodeEncodeError:  # such a name could not be written to a table
        raise UserError(f"{folder}: the name of a file is not UTF-8; rename it.") from None
    return found
