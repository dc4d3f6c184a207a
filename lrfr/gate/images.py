"""Images that nobody has checked: one decoder for collections and for a user's photographs.

Headers are read before a pixel is decoded, an incomplete file is refused and never filled up, the EXIF orientation is
applied, and the first frame of a moving image counts.
"""

from __future__ import annotations

import io
import re
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from lrfr.errors import UserError

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")  # no EPS: Pillow would start another program
SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
# Our choices: a 50 kB PNG may claim 20000 x 20000 pixels, which take gigabytes to decode.
LARGEST_PIXELS = 1 << 26  # of an image, 8192 x 8192: 200 MB once decoded, and more than nearly all cameras have
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
    """An image, upright and as RGB, as a viewer would show it (see `shown`), at most 2^26 pixels.

    source: a path, or the encoded bytes. name: for messages (the path, by default). CMYK, grey and palette become RGB.
    Colour with 16 bits keeps its high byte. Raises UserError if the file cannot be read, is no regular file, is no such
    image, is damaged, incomplete or too large, or has values without a known range.
    """
    name = name or ("image" if isinstance(source, bytes) else str(source))
    data = source if isinstance(source, bytes) else read_regular(Path(source), LARGEST_BYTES)
    image = None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # decoders warn of what is odd in a header; what matters raises
            image = Image.open(io.BytesIO(data), formats=FORMATS)
            if image.width * image.height <= LARGEST_PIXELS:
                return shown(ImageOps.exif_transpose(image), name)
    except UserError:
        raise
    except Image.DecompressionBombError:
        pass  # larger than everything that is allowed here
    except Exception:  # decoders raise almost anything on hostile bytes; what is inside a file they look at last
        reason = "not an image that can be read" if image is None else "the image is damaged or incomplete"
        raise UserError(f"{name}: {reason} ({', '.join(FORMATS)}); fetch the file again.") from None
    raise UserError(f"{name}: more than {LARGEST_PIXELS // 10**6} million pixels; make it smaller first.")


def read_pixels(source: str | Path | bytes, name: str | None = None) -> np.ndarray:
    """The pixels of `read_image`: uint8 (H, W, 3), a copy that may be written to, as torch wants it."""
    return np.array(read_image(source, name))


def list_photographs(folder: str | Path) -> list[Path]:
    """Images, by their endings, in a folder and below, sorted, without hidden ones; UserError if there are none."""
    below = [path for path in Path(folder).rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file()]
    found = sorted(path for path in below if not re.search(r"(^|/)\.", path.relative_to(folder).as_posix()))
    if not found:
        endings = ", ".join(sorted(SUFFIXES))
        raise UserError(f"{folder}: no folder with an image ({endings}); give a folder with photographs.")
    try:
        "".join(map(str, found)).encode()
    except UnicodeEncodeError:  # such a name could not be written to a table
        raise UserError(f"{folder}: the name of a file is not UTF-8; rename it.") from None
    return found
