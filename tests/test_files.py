import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from lrfr.errors import UserError
from lrfr.files import atomic_file, atomic_folder, read_image


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture
def picture():
    rows, columns = np.mgrid[0:40, 0:60]
    return Image.fromarray(np.stack([rows * 6, columns * 4, rows + columns], axis=-1).astype(np.uint8))


def png_header(width: int, height: int) -> bytes:
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = b"IDAT" + zlib.compress(bytes(1000))
    chunks = [struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part)) for part in (body, pixels)]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


class TestAtomic:
    def test_file_appears_only_at_the_end(self, tmp_path):
        path = tmp_path / "new" / "a.npy"
        with atomic_file(path) as temporary:
            np.save(temporary, np.arange(3))
            assert temporary.parent == path.parent and not path.exists()
        assert np.load(path).tolist() == [0, 1, 2]
        assert list(path.parent.iterdir()) == [path]

    def test_a_failure_keeps_the_old_file(self, tmp_path):
        path = tmp_path / "a.txt"
        path.write_text("old")
        with pytest.raises(ZeroDivisionError), atomic_file(path) as temporary:
            temporary.write_text("half")
            raise ZeroDivisionError
        assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]

    def test_folder_replaces_the_old_one_entirely(self, tmp_path):
        path = tmp_path / "deep" / "folder"
        for name in ("first", "second"):
            with atomic_folder(path) as temporary:
                (temporary / name).write_text(name)
        assert [p.name for p in path.iterdir()] == ["second"]
        assert list(path.parent.iterdir()) == [path]

    def test_a_failure_keeps_the_old_folder(self, tmp_path):
        path = tmp_path / "folder"
        path.mkdir()
        (path / "old").write_text("old")
        with pytest.raises(KeyboardInterrupt), atomic_folder(path) as temporary:
            (temporary / "new").write_text("half")
            raise KeyboardInterrupt
        assert [p.name for p in path.iterdir()] == ["old"] and list(tmp_path.iterdir()) == [path]

    def test_a_failed_rename_brings_the_old_folder_back(self, tmp_path):
        path = tmp_path / "folder"
        path.mkdir()
        (path / "old").write_text("old")
        with pytest.raises(FileNotFoundError), atomic_folder(path) as temporary:
            temporary.rmdir()  # now there is nothing to put in its place
        assert [p.name for p in path.iterdir()] == ["old"] and list(tmp_path.iterdir()) == [path]


class TestReadImage:
    @pytest.mark.parametrize("kind", ["PNG", "BMP", "PPM", "TIFF"])
    def test_lossless_formats_come_back_exactly(self, picture, kind, tmp_path):
        path = tmp_path / "image"
        path.write_bytes(encoded(picture, kind))
        for source in (path, str(path), path.read_bytes()):
            image = read_image(source, "image")
            assert image.mode == "RGB" and np.array_equal(np.asarray(image), np.asarray(picture))

    @pytest.mark.parametrize("mode", ["L", "P", "RGBA", "1"])
    def test_other_modes_become_rgb(self, picture, mode):
        assert read_image(encoded(picture.convert(mode), "PNG")).mode == "RGB"

    def test_cmyk_jpeg(self, picture):
        assert read_image(encoded(picture.convert("CMYK"), "JPEG")).size == (60, 40)

    def test_exif_orientation_is_applied(self, picture):
        exif = Image.Exif()
        exif[0x0112] = 6  # to be shown rotated by 90 degrees
        image = read_image(encoded(picture, "PNG", exif=exif))
        assert np.array_equal(np.asarray(image), np.rot90(np.asarray(picture), -1))

    @pytest.mark.parametrize("part", [0.3, 0.6, 0.95])
    @pytest.mark.parametrize("kind", ["JPEG", "PNG", "PPM"])
    def test_truncated(self, kind, part):
        noise = np.random.Generator(np.random.Philox(0)).integers(0, 256, (100, 100, 3), dtype=np.uint8)
        data = encoded(Image.fromarray(noise), kind)
        with pytest.raises(UserError, match=r"holiday\.jpg: the image is damaged"):
            read_image(data[: int(len(data) * part)], "holiday.jpg")

    @pytest.mark.parametrize(
        "data", [b"", b"hello", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", b"\xff\xd8\xff", b"\0" * 5000]
    )
    def test_not_an_image(self, data):
        with pytest.raises(UserError, match=r"letter\.txt: not an image"):
            read_image(data, "letter.txt")

    @pytest.mark.parametrize(("width", "height"), [(4097, 10), (10, 4097), (20000, 20000), (10**6, 10**6)])
    def test_decompression_bomb_is_refused_by_its_header(self, width, height):
        with pytest.raises(UserError, match=r"bomb\.png: .*4096 x 4096"):
            read_image(png_header(width, height), "bomb.png")

    def test_largest_allowed_size(self):
        assert read_image(encoded(Image.new("L", (4096, 2)), "PNG")).size == (4096, 2)

    def test_sixteen_bits(self):
        deep = Image.fromarray(np.full((4, 4), 40000, np.uint16))
        with pytest.raises(UserError, match="more than 8 bits"):
            read_image(encoded(deep, "PNG"))

    def test_missing_file_and_folder(self, tmp_path):
        for path in (tmp_path, tmp_path / "absent.png"):
            with pytest.raises(UserError, match=path.name):
                read_image(path)
