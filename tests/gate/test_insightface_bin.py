import builtins
import io
import os
import pickle
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lrfr.errors import UserError
from lrfr.gate import insightface_bin
from lrfr.gate.insightface_bin import read_bin
from tests.gate.refusals import refusal


def jpeg(number, side=112):
    file = io.BytesIO()
    Image.new("RGB", (side, side), (number * 10, 0, 0)).save(file, "JPEG")
    return file.getvalue()


IMAGES = [jpeg(i) for i in range(20)]
SAME = [True, False] * 5


def python2(images, same):
    """As Python 2 pickles byte strings, in protocol 2: strings without a coding."""
    parts = [b"\x80\x02(](" + b"".join(b"T" + struct.pack("<i", len(data)) + data for data in images) + b"e"]
    parts.append(b"](" + b"".join(b"\x88" if one else b"\x89" for one in same) + b"et.")
    return b"".join(parts)


class Legacy:
    """An array that names its parts as NumPy 1 does."""

    @staticmethod
    def dumps(value, protocol):
        return pickle.dumps(value, protocol).replace(b"numpy._core.", b"numpy.core.")


def write(folder, data):
    (folder / "x.bin").write_bytes(data)
    return folder / "x.bin"


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    "same", [SAME, np.array(SAME), np.array(SAME, np.int64), [np.bool_(one) for one in SAME], tuple(SAME)], ids=range(5)
)
def test_every_form_of_the_booleans(tmp_path, protocol, same):
    pairs = read_bin(write(tmp_path, pickle.dumps((IMAGES, same), protocol)))
    assert pairs.images == IMAGES and pairs.same.dtype == np.bool_ and pairs.same.tolist() == SAME


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_images_as_arrays_of_bytes(tmp_path, protocol):
    """OpenCV's encoder returns arrays; they were stored like this, with shape (N,) or (N, 1)."""
    for shape in ((-1,), (-1, 1)):
        arrays = [np.frombuffer(data, np.uint8).reshape(shape).copy() for data in IMAGES]
        assert read_bin(write(tmp_path, pickle.dumps((arrays, SAME), protocol))).images == IMAGES


def test_files_of_python_2_and_of_numpy_1(tmp_path):
    assert read_bin(write(tmp_path, python2(IMAGES, SAME))).images == IMAGES
    old = Legacy.dumps((IMAGES, np.array(SAME)), 2)
    assert b"numpy.core" in old and read_bin(write(tmp_path, old)).same.tolist() == SAME


def test_a_list_instead_of_a_pair(tmp_path):
    assert read_bin(write(tmp_path, pickle.dumps([IMAGES, SAME]))).images == IMAGES


def test_counts_and_pixels(tmp_path):
    pairs = read_bin(write(tmp_path, pickle.dumps((IMAGES, SAME))).rename(tmp_path / "lfw.bin"))
    assert [(count.observed, count.published) for count in pairs.counts] == [(10, 6000), (5, None)]
    image = pairs.read(13)
    assert image.shape == (112, 112, 3) and abs(int(image[..., 0].mean()) - 130) < 3


@pytest.mark.parametrize(
    "call", [os.system, eval, exec, getattr, print, builtins.open, bytes, np.save, pickle.loads, os.getcwd]
)
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickle_that_calls_is_refused_and_calls_nothing(tmp_path, monkeypatch, call, protocol):
    class Call:
        def __reduce__(self):
            return call, (f"touch {tmp_path}/called",)

    text = refusal(read_bin, write(tmp_path, pickle.dumps(([Call()], [True]), protocol)))
    assert call.__name__ in text and "it asks for" in text
    assert not (tmp_path / "called").exists()


def refused(tmp_path, data):
    text = refusal(read_bin, write(tmp_path, data))
    assert text.startswith(f"{tmp_path}/x.bin: ")
    return text


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"cos\nsystem\n(S'true'\ntR.", "os.system"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93.", "os.system"),
        (b"(ios\nsystem\n.", "os.system"),
        (b"Pfile\n.", "UnpicklingError"),
        (b"\x80\x02\x82\x01.", "outside of the file"),
        (b"\x80\x02N\x72\xff\xff\xff\x7f.", "more objects"),  # a memory of 2^31 places
        (b"I1\np999999999\n.", "more objects"),
        (b"cnumpy\ndtype\n(dS'x'\nI1\nsb.", "cannot be read as a set of image pairs"),
        (pickle.dumps((IMAGES, SAME[:9])), "20 images and 9 booleans"),
        (pickle.dumps((IMAGES[:19], SAME)), "19 images and 10 booleans"),
        (pickle.dumps((IMAGES[:18], SAME[:9])), "10 folds"),
        (pickle.dumps(([], [])), "0 images and 0 booleans"),
        (pickle.dumps((IMAGES, [2, 0] * 5)), "array or a boolean"),
        (pickle.dumps((IMAGES, np.arange(10))), "20 images and 10 booleans"),
        (pickle.dumps((IMAGES, [SAME])), "array or a boolean"),
        (pickle.dumps((IMAGES, np.array(SAME, float))), "KeyError"),
        (pickle.dumps((IMAGES, np.array(SAME, object))), "where bytes belong"),
        (pickle.dumps((["a.jpg"] * 20, SAME)), "where bytes belong"),
        (pickle.dumps(([None] * 20, SAME)), "where bytes belong"),
        (pickle.dumps(IMAGES), "cannot be read as a set of image pairs"),
        (pickle.dumps({"bins": IMAGES}), "cannot be read as a set of image pairs"),
        (b"", "cannot be read as a set of image pairs"),
        (b"\xff\xd8\xff", ""),
        (b"<html>", ""),
        (
            b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.",
            "cannot be read as a set of image pairs",
        ),  # bytes of a length that is not there
        (pickle.dumps((IMAGES, SAME))[:-1], "cannot be read as a set of image pairs"),
    ],
)
def test_other_pickles_are_refused(tmp_path, data, word):
    assert word in refused(tmp_path, data)


def test_a_short_file_does_not_fill_the_memory(tmp_path, monkeypatch):
    """Bytes in protocol 2 are a call; a file that names one call many times would get as many copies of its text."""
    monkeypatch.setattr(insightface_bin, "FILE_BYTES", 1 << 20)
    data = pickle.dumps(([b"\xff" * 10_000] * 200, [True] * 100), 2)
    assert len(data) < 100_000 and "more than 1 MB" in refused(tmp_path, data)
    large = np.zeros(1000, bool)
    assert "ValueError" in refused(tmp_path, pickle.dumps((IMAGES, [large] * 10)))


def test_limits(tmp_path, monkeypatch):
    data = pickle.dumps((IMAGES, SAME))
    monkeypatch.setattr(insightface_bin, "STEPS", 20)
    assert "more objects" in refused(tmp_path, data)
    monkeypatch.setattr(insightface_bin, "FILE_BYTES", len(data) - 1)
    assert f"larger than {len(data) - 1} bytes" in refused(tmp_path, data)
    assert "cannot be read" in refusal(read_bin, tmp_path / "absent.bin")
    assert "not a file" in refusal(read_bin, tmp_path)


def test_an_image_is_checked_when_it_is_read(tmp_path):
    images = [*IMAGES[:17], IMAGES[17][:-60], b"no image", jpeg(0, side=96)]
    pairs = read_bin(write(tmp_path, pickle.dumps((images, SAME))))
    for i, word in (
        (17, "cannot be read as an image"),
        (18, "cannot be read as an image"),
        (19, "not 112 x 112 pixels"),
    ):
        text = refusal(pairs.read, i)
        assert f"x.bin, image {i} (of pair {i // 2}): " in text and word in text


VALID = [pickle.dumps(([b"12345678"] * 20, same), p) for p in (0, 2, 4) for same in (SAME, np.array(SAME))]


@settings(max_examples=300, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=80),
        st.builds(
            lambda data, place, junk: data[: place % len(data)] + junk + data[place % len(data) + len(junk) :],
            st.sampled_from(VALID),
            st.integers(0, 2000),
            st.binary(min_size=1, max_size=5),
        ),
    )
)
def test_any_bytes_give_pairs_or_a_sentence(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "any.bin"
    path.write_bytes(data)
    try:
        pairs = read_bin(path)
    except UserError as error:
        assert str(error).startswith(f"{path}: ")
    else:
        assert len(pairs.images) == 2 * len(pairs.same) and all(type(image) is bytes for image in pairs.images)
