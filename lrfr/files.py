"""Files: atomic writing, and reading of images that nobody has checked."""

from __future__ import annotations

import io
import os
import shutil
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image, ImageOps

from lrfr.errors import UserError

LARGEST_SIDE = 4096  # pixels; our choice: a 50 kB PNG may claim 20000 x 20000 and take gigabytes to decode
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")  # no EPS: Pillow would start another program
DEEP_MODES = ("I", "F", "I;16", "I;16B", "I;16L")  # Pillow clips these to 255 instead of scaling them


def _beside(path: Path, what: str) -> Path:
    """An unused name in the same folder (so that renaming is atomic) with the same suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.with_name(f".{what}-{uuid.uuid4().hex[:8]}-{path.name}")


@contextmanager
def atomic_file(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder; it becomes `path` on success and disappears on failure.

    The temporary name keeps the suffix, because `numpy.save` and image writers look at it. Parent folders are made.
    """
    path = Path(path)
    temporary = _beside(path, "new")
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Yield a new empty folder beside `path`; it replaces `path` on success and disappears on failure.

    A folder cannot be renamed over another one that has contents: the old one steps aside first and returns if renaming fails.
    """
    path = Path(path)
    temporary, old = _beside(path, "new"), _beside(path, "old")
    temporary.mkdir()
    try:
        yield temporary
        if path.exists():
            os.replace(path, old)
        try:
            os.replace(temporary, path)
        except OSError:
            if old.exists():
                os.replace(old, path)
            raise
    finally:
        for left in (temporary, old):
            shutil.rmtree(left, ignore_errors=True)


def read_image(source: str | Path | bytes, what: str | None = None) -> Image.Image:
    """Decode an image that nobody has checked, as upright 8-bit RGB.

    The header is believed only up to 4096 x 4096 pixels, an incomplete file is refused (never filled with black), the
    EXIF orientation is applied, grey and palette images become RGB, transparency is dropped, only the first frame counts.

    source: a path, or the encoded bytes. what: the name for messages (the path, by default).

    Raises
    ------
    UserError
        if the file is missing, is no image, is damaged, is too large, or has more than 8 bits per channel.
    """
    what = what or ("image" if isinstance(source, bytes) else str(source))
    try:
        data = source if isinstance(source, bytes) else Path(source).read_bytes()
    except OSError as error:
        raise UserError(f"{what}: cannot be read ({error.strerror}); give the path of an image file.") from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit below is stricter
            image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError:
        raise UserError(f"{what}: larger than {LARGEST_SIDE} x {LARGEST_SIDE} pixels; make it smaller first.") from None
    except Exception:  # decoders raise almost anything on hostile bytes
        raise UserError(
            f"{what}: not an image that can be read ({', '.join(FORMATS)}); replace or remove it."
        ) from None
    if max(image.size) > LARGEST_SIDE:
        size = " x ".join(map(str, image.size))
        raise UserError(f"{what}: {size} pixels, more than {LARGEST_SIDE} x {LARGEST_SIDE}; make it smaller first.")
    if image.mode in DEEP_MODES:
        raise UserError(f"{what}: more than 8 bits per channel; convert it to 8 bits first.")
    try:
        return ImageOps.exif_transpose(image).convert("RGB")
    except Exception:  # decoding is lazy: damage inside the file shows only here
        raise UserError(f"{what}: the image is damaged or incomplete; fetch the file again.") from None
