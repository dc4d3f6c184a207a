import io
import os
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lrfr.errors import UserError
from lrfr.gate import images
from lrfr.gate.images import read_image
from tests.gate.refusals import refusal


def encoded(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def png(width, height, depth, colour, rows):
    """A PNG from its parts, with any size in the header."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.fixture
def picture():
    """Smooth, so that JPEG changes it little: uint8 (40, 60, 3)."""
    y, x = np.mgrid[0:40, 0:60]
    return np.stack([4 * x, 5 * y, 120 + x - y], axis=-1).astype(np.uint8)


def test_lossless_formats_come_back_exactly_and_may_be_written_to(picture, tmp_path):
    for kind in ("PNG", "BMP", "PPM", "TIFF"):
        path = tmp_path / f"image.{kind}"
        path.write_bytes(encoded(Image.fromarray(picture), kind))
        for source in (path, str(path), path.read_bytes()):
            pixels = read_image(source)
            assert pixels.dtype == np.uint8 and np.array_equal(pixels, picture) and pixels.flags.writeable


def test_cmyk_jpeg_keeps_its_colours(picture):
    pixels = read_image(encoded(Image.fromarray(picture).convert("CMYK"), "JPEG", quality=95))
    assert pixels.shape == picture.shape and np.abs(pixels.astype(int) - picture).mean() < 5  # inverted: above 60


def test_palette_grey_and_transparent_images_become_rgb(picture):
    flat = np.full((8, 9, 3), (255, 0, 128), np.uint8)
    for image in (Image.fromarray(flat).quantize(4), Image.fromarray(flat).convert("RGBA")):
        assert np.array_equal(read_image(encoded(image, "PNG")), flat)
    grey = read_image(encoded(Image.fromarray(picture).convert("L"), "PNG"))
    assert grey.shape == picture.shape and (grey == grey[..., :1]).all()


def test_sixteen_bits(picture):
    """Colour keeps its high byte; grey, which the library would clip to white, is refused."""
    rows = b"".join(b"\0" + bytes(v for pixel in row for c in pixel for v in (c, 77)) for row in picture.tolist())
    assert np.array_equal(read_image(png(60, 40, 16, 2, rows)), picture)
    grey = b"".join(b"\0" + struct.pack(">60H", *range(0, 60000, 1000)) for _ in range(40))
    assert "more than 8 bits" in refusal(read_image, png(60, 40, 16, 0, grey), "deep.png")


@pytest.mark.parametrize(("orientation", "turns"), [(1, 0), (3, 2), (6, 3), (8, 1)])
def test_exif_rotation_is_applied(picture, orientation, turns):
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert np.array_equal(read_image(encoded(Image.fromarray(picture), "PNG", exif=exif)), np.rot90(picture, turns))


def test_a_giant_is_refused_by_its_header(tmp_path):
    """Decoded, its 1.2 GB would be allocated; the file has 60 bytes."""
    for width, height in ((20000, 20000), (4097, 1), (2**31 - 1, 2**31 - 1)):
        assert "4096 x 4096" in refusal(read_image, png(width, height, 8, 2, b""), "giant.png")
    path = tmp_path / "bomb.png"
    path.write_bytes(png(20000, 20000, 1, 0, bytes(2501 * 20000)))
    assert path.stat().st_size < 60_000 and "bomb.png: " in refusal(read_image, path)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "PPM", "BMP", "WEBP"])
def test_cut_images_are_refused_and_never_filled(kind):
    noise = np.random.Generator(np.random.Philox(0)).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), kind)
    for part in (0.1, 0.5, 0.9):
        assert refusal(read_image, data[: int(len(data) * part)], "cut").startswith("cut: ")


def test_what_is_no_file(tmp_path):
    (tmp_path / "empty.jpg").touch()
    os.mkfifo(tmp_path / "pipe.jpg")  # would be waited for
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "broken.jpg").symlink_to(tmp_path / "absent")
    for name, word in (
        ("empty.jpg", "empty"),
        ("pipe.jpg", "not a regular file"),
        ("folder.jpg", "not a regular file"),
        ("broken.jpg", "cannot be read"),
        ("absent.jpg", "cannot be read"),
    ):
        text = refusal(read_image, tmp_path / name)
        assert name in text and word in text
    refusal(read_image, "a\0b", "zero byte")


def test_a_large_file_is_refused_before_it_is_read(tmp_path):
    with open(tmp_path / "large.jpg", "wb") as file:
        file.truncate(images.LARGEST_BYTES + 1)  # a hole: takes no space
    assert "larger than" in refusal(read_image, tmp_path / "large.jpg")
    assert "larger than" in refusal(read_image, bytes(images.LARGEST_BYTES + 1))


VALID = {
    kind: encoded(Image.fromarray((np.arange(768) % 251).astype(np.uint8).reshape(16, 16, 3)), kind)
    for kind in ("JPEG", "PNG", "GIF", "TIFF", "BMP", "WEBP")
}


@settings(max_examples=300, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=200),
        st.builds(
            lambda kind, place, junk: (
                VALID[kind][: place % len(VALID[kind])] + junk + VALID[kind][place % len(VALID[kind]) + len(junk) :]
            ),
            st.sampled_from(sorted(VALID)),
            st.integers(0, 2000),
            st.binary(min_size=1, max_size=6),
        ),
    )
)
def test_any_bytes_give_an_image_or_a_sentence(data):
    try:
        pixels = read_image(data, "x")
    except UserError as error:
        assert str(error).startswith("x: ")
    else:
        assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3 and max(pixels.shape) <= 4096
