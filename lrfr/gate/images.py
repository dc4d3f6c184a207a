"""Images that nobody has checked: one decoder for collections and for a user's photographs.

Headers are read before a pixel is decoded, an incomplete file is refused and never filled up, the EXIF orientation is
applied, and the first frame of a moving image counts.
"""

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from lrfr.errors import UserError

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")  # no EPS: Pillow would start another program
SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
# Our choices: a 50 kB PNG may claim 20000 x 20000 pixels, which take gigabytes to decode.
LARGEST_PIXELS = 1 << 26  # of an image, 8192 x 8192: 200 MB once decoded, and more than nearly all cameras have
LARGEST_BYTES = 1 << 27  # of a file: compressed images of these sizes are smaller


class Damaged(Exception):
    """What is wrong with the contents of a file, in a few words."""


@contextmanager
def refusing(
    path: str | Path, kind: str, advice: str = "fetch it again from a source that you trust"
) -> Iterator[None]:
    """Whatever goes wrong inside becomes one sentence about a file: decoders raise almost anything on hostile bytes."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        reason = error if isinstance(error, Damaged) else getattr(error, "strerror", None) or type(error).__name__
        raise UserError(f"{path}: cannot be read as {kind} ({reason}); {advice}.") from None


def read_regular(path: Path, limit: int) -> bytes:
    """The bytes of a regular file (a pipe would be waited for) of at most `limit` bytes; UserError for any other."""
    try:
        if path.stat().st_size <= limit and path.is_file():
            return path.read_bytes()
        reason = f"not a file, or larger than {limit} bytes"
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        reason = f"cannot be read ({getattr(error, 'strerror', None) or type(error).__name__})"
    raise UserError(f"{path}: {reason}; give the path of a file.")


def shown(image: Image.Image) -> Image.Image:
    """8-bit RGB as a viewer shows it: grey with 16 bits is scaled, what is transparent becomes white.

    `Damaged` if the values have no known range: floating point, or whole numbers beyond 16 bits.
    """
    if image.mode.startswith(("I", "F")):  # 16 bits, in one of five modes by format and version of Pillow
        values = np.asarray(image)
        if image.mode == "F" or values.min() < 0 or values.max() > 65535:
            raise Damaged("values beyond 16 bits, or without a known range")
        image = Image.fromarray(((values.astype(np.int64) + 128) // 257).astype(np.uint8))  # 65535 = 255 * 257
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def read_image(source: str | Path | bytes, name: str | None = None) -> Image.Image:
    """An image, upright and as RGB, as a viewer would show it (see `shown`), at most 2^26 pixels.

    source: a path, or the encoded bytes. name: for messages (the path, by default). CMYK, grey and palette become RGB.
    Colour with 16 bits keeps its high byte. Raises UserError if the file cannot be read, is no regular file, is no such
    image, is damaged, incomplete or too large, or has values without a known range.
    """
    name = name or ("image" if isinstance(source, bytes) else str(source))
    data = source if isinstance(source, bytes) else read_regular(Path(source), LARGEST_BYTES)
    kind = f"an image ({', '.join(FORMATS)}; at most {LARGEST_PIXELS // 10**6} million pixels)"
    with refusing(name, kind, "fetch or save it again"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # decoders warn of what is odd in a header; what matters raises
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        if image.width * image.height > LARGEST_PIXELS:
            raise Damaged("too large")
        return shown(ImageOps.exif_transpose(image))


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
    if re.search("[\ud800-\udfff]", "".join(map(str, found))):  # such a name could not be written to a table
        raise UserError(f"{folder}: the name of a file is not UTF-8; rename it.")
    return found
