"""Images that nobody has checked: one decoder, with two limits, for collections and for a user's photographs.

Headers are read before a pixel is decoded, an incomplete file is refused and never filled up, the EXIF orientation is
applied, and the first frame of a moving image counts.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from lrfr.errors import UserError

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")  # no EPS: Pillow would start another program
SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
# Our choices: a 50 kB PNG may claim 20000 x 20000 pixels, which take gigabytes to decode.
LARGEST_SIDE = 4096  # pixels, in collections: far more than any of theirs has
LARGEST_PIXELS = 1 << 26  # of a photograph, 8192 x 8192: 200 MB once decoded, and more than nearly all cameras have
LARGEST_BYTES = 1 << 27  # of a file: compressed images of these sizes are smaller
WHITE = (255, 255, 255)  # behind transparent pixels, as viewers and browsers show them


def read_regular(path: Path, limit: int) -> bytes:
    """The bytes of a regular file (a pipe would be waited for) of at most `limit` bytes; UserError for any other."""
    try:
        regular, size = path.is_file(), path.stat().st_size
        data = path.read_bytes() if regular and size <= limit else b""
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise UserError(f"{path}: cannot be read ({reason}); give the path of a file.") from None
    if not regular or size > limit:
        reason = f"larger than {limit} bytes" if regular else "not a file"
        raise UserError(f"{path}: {reason}; fetch it again or remove it.")
    return data


def decode(
    data: bytes,
    name: str,
    fits: Callable[[int, int], bool],
    limit: str,
    to_rgb: Callable[[Image.Image, str], Image.Image],
) -> Image.Image:
    """An encoded image, upright, as `to_rgb` makes it.

    name: for messages. fits: whether an image of this width and height may be decoded; limit: the same in words. Raises
    UserError for what is no image, damaged, incomplete or too large.
    """
    if not data:
        raise UserError(f"{name}: the file is empty; fetch it again.")
    image = None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # decoders warn of what is odd in a header; what matters raises
            image = Image.open(io.BytesIO(data), formats=FORMATS)
            if fits(*image.size):
                return to_rgb(ImageOps.exif_transpose(image), name)
    except UserError:
        raise
    except Image.DecompressionBombError:
        pass  # larger than everything that is allowed here
    except Exception:  # decoders raise almost anything on hostile bytes; what is inside a file they look at last
        reason = "not an image that can be read" if image is None else "the image is damaged or incomplete"
        raise UserError(f"{name}: {reason} ({', '.join(FORMATS)}); fetch the file again.") from None
    raise UserError(f"{name}: more than {limit} pixels; make it smaller first.")


def opaque(image: Image.Image, name: str) -> Image.Image:
    """8-bit RGB without transparency; UserError for grey with more than 8 bits, which Pillow would clip to white."""
    if image.mode.startswith(("I", "F")):
        raise UserError(f"{name}: more than 8 bits per channel; convert it to 8 bits first.")
    return image.convert("RGB")


def shown(image: Image.Image, name: str) -> Image.Image:
    """8-bit RGB as a viewer shows it: grey with 16 bits is scaled, what is transparent becomes white.

    Raises UserError if the values have no known range: floating point, or whole numbers beyond 16 bits.
    """
    if image.mode.startswith(("I", "F")):  # 16 bits, in one of five modes by format and version of Pillow
        values = np.asarray(image)
        if image.mode == "F" or values.min() < 0 or values.max() > 65535:
            raise UserError(f"{name}: values beyond 16 bits, or without a known range; convert it to 8 bits first.")
        image = Image.fromarray(((values.astype(np.int64) + 128) // 257).astype(np.uint8))  # 65535 = 255 * 257
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, WHITE), image)
    return image.convert("RGB")


def read_image(source: str | Path | bytes, name: str | None = None) -> Image.Image:
    """An image of a collection, upright and as RGB, at most 4096 x 4096 pixels.

    source: a path, or the encoded bytes. name: for messages (the path, by default). CMYK, grey and palette become RGB.
    Colour with 16 bits keeps its high byte. Raises UserError if the file cannot be read, is no regular file, is no such
    image, is damaged, incomplete or too large, or is grey with 16 bits.
    """
    name = name or ("image" if isinstance(source, bytes) else str(source))
    data = source if isinstance(source, bytes) else read_regular(Path(source), LARGEST_BYTES)
    limit = f"{LARGEST_SIDE} x {LARGEST_SIDE}"
    return decode(data, name, lambda width, height: max(width, height) <= LARGEST_SIDE, limit, opaque)


def read_pixels(source: str | Path | bytes, name: str | None = None) -> np.ndarray:
    """The pixels of `read_image`: uint8 (H, W, 3), a copy that may be written to, as torch wants it."""
    return np.array(read_image(source, name))


def read_photograph(path: str | Path) -> Image.Image:
    """A user's photograph, upright and as RGB, as a viewer would show it (see `shown`), at most 2^26 pixels.

    Raises UserError like `read_image`, and if the values have no known range.
    """
    data, limit = read_regular(Path(path), LARGEST_BYTES), f"{LARGEST_PIXELS // 10**6} million"
    return decode(data, str(path), lambda width, height: width * height <= LARGEST_PIXELS, limit, shown)


def list_photographs(folder: str | Path) -> list[Path]:
    """Images, by their endings, in a folder and below, sorted, without hidden ones; UserError if there are none."""
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
