"""Images are read as a viewer shows them; all else is one sentence."""

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
from lrfr.gate.images import LARGEST_PIXELS, list_photographs, read_image, read_pixels, shown
from tests.gate.refusals import refusal

RAMP = np.arange(12 * 16, dtype=np.uint8).reshape(12, 16)
NOISE = np.random.Generator(np.random.Philox(0)).integers(0, 256, (64, 64, 3), dtype=np.uint8)


def encoded(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def saved(tmp_path, image, name="a.png", **options):
    path = tmp_path / name
    image.save(path, **options)
    return path


def png(width, height, rows=b"", depth=8, colour=0):
    """A PNG from its parts, with any size in the header; 8-bit grey by default."""

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
            pixels = read_pixels(source)
            assert pixels.dtype == np.uint8 and np.array_equal(pixels, picture) and pixels.flags.writeable
        assert read_image(path).mode == "RGB"


def test_cmyk_jpeg_keeps_its_colours(picture, tmp_path):
    path = saved(tmp_path, Image.fromarray(picture).convert("CMYK"), "a.jpg", quality=95)
    pixels = read_pixels(path)
    assert pixels.shape == picture.shape and np.abs(pixels.astype(int) - picture).mean() < 5  # inverted: above 60


def test_palette_grey_bilevel_and_transparent_images_become_rgb(picture, tmp_path):
    flat = np.full((8, 9, 3), (255, 0, 128), np.uint8)
    for image in (Image.fromarray(flat).quantize(4), Image.fromarray(flat).convert("RGBA")):
        assert np.array_equal(read_pixels(encoded(image, "PNG")), flat)
    grey = read_pixels(encoded(Image.fromarray(picture).convert("L"), "PNG"))
    assert grey.shape == picture.shape and (grey == grey[..., :1]).all()
    for mode in ("L", "1"):
        path = saved(tmp_path, Image.new(mode, (3, 3), 255))
        assert read_pixels(path).min() == 255


def test_what_is_transparent_becomes_white(tmp_path):
    colour = np.zeros((4, 4, 4), np.uint8)
    colour[..., 0] = 200
    colour[0, :, 3] = 255
    colour[1, :, 3] = 51  # a fifth
    image = np.asarray(read_image(saved(tmp_path, Image.fromarray(colour))))
    assert image[0, 0].tolist() == [200, 0, 0] and image[3, 0].tolist() == [255, 255, 255]
    assert np.abs(image[1, 0].astype(int) - [244, 204, 204]).max() <= 1
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putpixel((1, 0), 1)
    path = saved(tmp_path, palette, "p.png", transparency=1)
    assert np.asarray(read_image(path)).tolist() == [[[10, 20, 30], [255, 255, 255]]]
    grey = Image.merge("LA", [Image.new("L", (2, 2), 7), Image.new("L", (2, 2), 0)])
    assert np.asarray(shown(grey)).tolist() == [[[255] * 3] * 2] * 2


def test_sixteen_bits(picture, tmp_path):
    """Colour keeps its high byte; grey is scaled."""
    rows = b"".join(b"\0" + bytes(v for pixel in row for c in pixel for v in (c, 77)) for row in picture.tolist())
    assert np.array_equal(read_pixels(png(60, 40, rows, 16, 2)), picture)
    for name in ("a.png", "a.tif", "a.pgm"):
        path = saved(tmp_path, Image.fromarray(RAMP.astype(np.uint16) * 257), name)
        assert np.array_equal(np.asarray(read_image(path)), np.stack([RAMP] * 3, -1)), name


def test_values_without_a_known_range_are_refused(tmp_path):
    for values in (RAMP.astype(np.float32), RAMP.astype(np.int32) * 100_000):
        path = saved(tmp_path, Image.fromarray(values), "f.tif")
        assert "without a known range" in refusal(read_image, path)


@pytest.mark.parametrize(("orientation", "turns"), [(1, 0), (3, 2), (6, 3), (8, 1)])
def test_exif_rotation_is_applied(picture, tmp_path, orientation, turns):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path, Image.fromarray(picture), exif=exif)
    assert np.array_equal(read_pixels(path), np.rot90(picture, turns))


def test_the_first_frame_is_taken(tmp_path):
    frames = [Image.new("RGB", (5, 5), colour) for colour in ((255, 0, 0), (0, 0, 255))]
    path = saved(tmp_path, frames[0], "a.gif", save_all=True, append_images=frames[1:])
    assert np.asarray(read_image(path))[2, 2].tolist() == [255, 0, 0]


def test_what_is_no_image_is_refused(tmp_path):
    path = tmp_path / "a.jpg"
    for data in (
        b"",
        b"\0" * 5000,
        b"hello, this is a text",
        b"\xff\xd8\xff",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        png(200, 200, b"\0" * 1000),
    ):
        path.write_bytes(data)
        assert refusal(read_image, path).startswith(f"{path}: cannot be read as an image")


def test_a_giant_is_refused_by_its_header(tmp_path, monkeypatch):
    """Decoded, its 1.2 GB would be allocated; Pillow itself allows 9000 x 9000 and refuses 16384 x 16384."""
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    path = tmp_path / "bomb.png"
    for width, height in ((9000, 9000), (8193, 8192), (16384, 16384), (20000, 20000), (2**31 - 1, 2**31 - 1)):
        path.write_bytes(png(width, height))
        text = refusal(read_image, path)
        assert "bomb.png: cannot be read" in text and "at most 67 million pixels) (" in text
    assert LARGEST_PIXELS > 48_000_000  # cameras of 48 million pixels are common


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "PPM", "BMP", "WEBP", "GIF", "TIFF"])
def test_cut_images_are_refused_and_never_filled(tmp_path, kind):
    data = encoded(Image.fromarray(NOISE), kind)
    for part in (0.1, 0.5, 0.9):
        path = tmp_path / "cut"
        path.write_bytes(data[: int(len(data) * part)])
        assert refusal(read_image, path.read_bytes(), "cut").startswith("cut: ")
        assert refusal(read_image, path).startswith(f"{path}: ")


def test_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")  # would be waited for
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "broken.jpg").symlink_to(tmp_path / "absent")
    for name, word in (
        ("pipe.jpg", "not a file"),
        ("folder.jpg", "not a file"),
        ("broken.jpg", "cannot be read"),
        ("absent.jpg", "cannot be read"),
        ("a\0b", "cannot be read"),
    ):
        with pytest.raises(UserError, match=word):
            read_image(tmp_path / name)


def test_a_large_file_is_refused_before_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "LARGEST_BYTES", 1000)
    (tmp_path / "large.jpg").write_bytes(bytes(1001))
    assert "larger than 1000 bytes" in refusal(read_image, tmp_path / "large.jpg")


VALID = {
    kind: encoded(Image.fromarray((np.arange(768) % 251).astype(np.uint8).reshape(16, 16, 3)), kind)
    for kind in ("JPEG", "PNG", "GIF", "TIFF", "BMP", "WEBP")
}
DAMAGED = st.builds(
    lambda kind, place, junk: (
        VALID[kind][: place % len(VALID[kind])] + junk + VALID[kind][place % len(VALID[kind]) + len(junk) :]
    ),
    st.sampled_from(sorted(VALID)),
    st.integers(0, 2000),
    st.binary(min_size=1, max_size=6),
)


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.binary(max_size=200), DAMAGED))
def test_any_bytes_give_an_image_or_a_sentence(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "fuzzed"
    path.write_bytes(data)
    try:
        image = read_image(path)
    except UserError as error:
        assert str(error).startswith(f"{path}: ") and str(error).endswith(".")
    else:
        assert image.mode == "RGB" and image.width * image.height <= LARGEST_PIXELS


def test_the_images_of_a_folder_are_listed_sorted_and_hidden_ones_left_out(tmp_path):
    for name in ("b/2.JPG", "b/1.png", "a.webp", "notes.txt", ".hidden/x.png", ".y.png", "deep/er/z.tiff"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    found = [path.relative_to(tmp_path).as_posix() for path in list_photographs(tmp_path)]
    assert found == ["a.webp", "b/1.png", "b/2.JPG", "deep/er/z.tiff"]
    assert "no folder with an image" in refusal(list_photographs, tmp_path / "none")
    (tmp_path / os.fsdecode(b"\xff.png")).touch()
    assert "not UTF-8" in refusal(list_photographs, tmp_path)
    (tmp_path / "empty").mkdir()
    assert "no folder with an image" in refusal(list_photographs, tmp_path / "empty")
