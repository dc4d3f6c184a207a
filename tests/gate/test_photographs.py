"""A user's files: what can be shown is read as a viewer shows it, everything else is one sentence."""

from __future__ import annotations

import os
import struct
import zlib
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lrfr.gate.photographs import LARGEST_PIXELS, list_photographs, read_photograph, to_rgb
from PIL import Image

from lrfr.errors import UserError

RAMP = np.arange(12 * 16, dtype=np.uint8).reshape(12, 16)


def saved(tmp_path, image, name="a.png", **options):
    path = tmp_path / name
    image.save(path, **options)
    return path


def refusal(path):
    with pytest.raises(UserError) as refused:
        read_photograph(path)
    text = str(refused.value)
    assert text.startswith(f"{path}: ") and text.endswith(".") and "\n" not in text
    return text


def png(width, height, data=b""):
    """A PNG that claims a size; 8-bit grey."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"\0" * 100, "not an image"),
        (b"hello, this is a text", "not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "not an image"),
        (png(30000, 30000, zlib.compress(b"\0" * 1000)), "pixels"),
        (png(8193, 8192, zlib.compress(b"\0" * 1000)), "pixels"),
        (png(200, 200, zlib.compress(b"\0" * 1000)), "damaged or incomplete"),
    ],
)
def test_what_is_no_image_is_refused(tmp_path, data, reason):
    path = tmp_path / "a.jpg"
    path.write_bytes(data)
    assert reason in refusal(path)


@pytest.mark.parametrize("side", [9000, 16384])  # Pillow itself allows the first and refuses the second
def test_a_bomb_is_refused_before_it_is_decoded(tmp_path, monkeypatch, side):
    path = tmp_path / "bomb.png"
    path.write_bytes(png(side, side, zlib.compress(b"\0" * (1 << 20))))
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    assert "pixels" in refusal(path)
    assert LARGEST_PIXELS > 48_000_000  # cameras of 48 million pixels are common


def test_missing_files_folders_and_pipes_are_refused(tmp_path):
    assert "cannot be read" in refusal(tmp_path / "none.png")
    assert "not a file" in refusal(tmp_path)
    os.mkfifo(tmp_path / "pipe.png")
    assert "not a file" in refusal(tmp_path / "pipe.png")
    assert "cannot be read" in refusal(tmp_path / "a\0b.png")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF"])
def test_a_truncated_file_is_refused(tmp_path, kind):
    buffer = BytesIO()
    noise = np.random.Generator(np.random.Philox(key=1)).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, kind)
    path = tmp_path / "a.img"
    path.write_bytes(buffer.getvalue()[: len(buffer.getvalue()) // 2])
    refusal(path)


@given(cut=st.integers(0, 2000), flip=st.integers(0, 2000), value=st.integers(0, 255))
@settings(max_examples=60, deadline=None)
def test_damage_anywhere_gives_an_image_or_a_sentence(tmp_path_factory, cut, flip, value):
    buffer = BytesIO()
    Image.fromarray(np.stack([RAMP] * 3, -1)).save(buffer, "JPEG")
    data = bytearray(buffer.getvalue())
    data[flip % len(data)] = value
    path = tmp_path_factory.getbasetemp() / "fuzzed.jpg"
    path.write_bytes(data[: max(1, len(data) - cut)])
    try:
        assert read_photograph(path).mode == "RGB"
    except UserError as error:
        assert str(error).endswith(".")


def test_grey_with_16_bits_is_scaled(tmp_path):
    deep = RAMP.astype(np.uint16) * 257
    for name in ("a.png", "a.tif", "a.pgm"):
        image = np.asarray(read_photograph(saved(tmp_path, Image.fromarray(deep), name)))
        assert np.array_equal(image, np.stack([RAMP] * 3, -1)), name


def test_values_without_a_known_range_are_refused(tmp_path):
    assert "range" in refusal(saved(tmp_path, Image.fromarray(RAMP.astype(np.float32)), "f.tif"))
    assert "16 bits" in refusal(saved(tmp_path, Image.fromarray(RAMP.astype(np.int32) * 100_000), "i.tif"))


def test_what_is_transparent_becomes_white(tmp_path):
    colour = np.zeros((4, 4, 4), np.uint8)
    colour[..., 0] = 200
    colour[0, :, 3] = 255
    colour[1, :, 3] = 51  # a fifth
    image = np.asarray(read_photograph(saved(tmp_path, Image.fromarray(colour))))
    assert image[0, 0].tolist() == [200, 0, 0] and image[3, 0].tolist() == [255, 255, 255]
    assert np.abs(image[1, 0].astype(int) - [244, 204, 204]).max() <= 1
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putpixel((1, 0), 1)
    path = saved(tmp_path, palette, "p.png", transparency=1)
    assert np.asarray(read_photograph(path)).tolist() == [[[10, 20, 30], [255, 255, 255]]]
    grey = Image.merge("LA", [Image.new("L", (2, 2), 7), Image.new("L", (2, 2), 0)])
    assert np.asarray(to_rgb(grey)).tolist() == [[[255] * 3] * 2] * 2


def test_cmyk_grey_and_bilevel_become_rgb(tmp_path):
    red = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    pixel = np.asarray(read_photograph(saved(tmp_path, red, "a.jpg", quality=100)))[4, 4]
    assert np.abs(pixel.astype(int) - [255, 0, 0]).max() <= 4
    for mode in ("L", "1"):
        assert np.asarray(read_photograph(saved(tmp_path, Image.new(mode, (3, 3), 255), f"{mode}.png"))).min() == 255


def test_orientation_is_applied_and_the_first_frame_taken(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees to the right
    upright = read_photograph(saved(tmp_path, Image.fromarray(RAMP), exif=exif))
    assert np.array_equal(np.asarray(upright)[..., 0], np.rot90(RAMP, -1))
    frames = [Image.new("RGB", (5, 5), colour) for colour in ((255, 0, 0), (0, 0, 255))]
    path = saved(tmp_path, frames[0], "a.gif", save_all=True, append_images=frames[1:])
    assert np.asarray(read_photograph(path))[2, 2].tolist() == [255, 0, 0]


def test_the_images_of_a_folder_are_listed_sorted_and_hidden_ones_left_out(tmp_path):
    for name in ("b/2.JPG", "b/1.png", "a.webp", "notes.txt", ".hidden/x.png", ".y.png", "deep/er/z.tiff"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    found = [path.relative_to(tmp_path).as_posix() for path in list_photographs(tmp_path)]
    assert found == ["a.webp", "b/1.png", "b/2.JPG", "deep/er/z.tiff"]
    with pytest.raises(UserError, match="no such folder"):
        list_photographs(tmp_path / "none")
    (tmp_path / os.fsdecode(b"\xff.png")).touch()
    with pytest.raises(UserError, match="not UTF-8"):
        list_photographs(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no image"):
        list_photographs(tmp_path / "empty")
