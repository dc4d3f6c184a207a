import io
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lrfr.benchmarks import miniatures
from lrfr.errors import UserError
from lrfr.gate import recordio
from lrfr.gate.recordio import MAGIC, RecordSet
from tests.gate.refusals import refusal


def png(number):
    file = io.BytesIO()
    Image.new("RGB", (4, 4), (number, 0, 0)).save(file, "PNG")
    return file.getvalue()


def standard():
    """Contents of a set of 3 people with 2, 1 and 2 images: record 0, images 1 to 5, persons 6 to 8."""
    images = [miniatures.labelled([label], key, png(key)) for key, label in enumerate([0, 0, 1, 2, 2], start=1)]
    people = [miniatures.labelled(ends, 6 + i) for i, ends in enumerate([[1, 3], [3, 4], [4, 6]])]
    return [miniatures.labelled([6, 9], 0), *images, *people]


def write(folder, contents=None, index=None, prop="3,4,4\n"):
    """A set of ready contents; returns the offsets."""
    records = [miniatures.pack(data) for data in (standard() if contents is None else contents)]
    offsets = [sum(map(len, records[:i])) for i in range(len(records))]
    folder.mkdir(exist_ok=True)
    (folder / "train.rec").write_bytes(b"".join(records))
    index = "".join(f"{key}\t{offset}\n" for key, offset in enumerate(offsets)) if index is None else index
    (folder / "train.idx").write_bytes(index.encode("latin1"))
    (folder / "property").write_text(prop)
    return offsets


def changed(**records):
    """The standard contents with other ones at r0, r1, ..."""
    contents = standard()
    for name, data in records.items():
        contents[int(name[1:])] = data
    return contents


def test_random_access(tmp_path):
    write(tmp_path)
    records = RecordSet(tmp_path)
    assert len(records) == 5 and records.keys.tolist() == [1, 2, 3, 4, 5] and records.labels.tolist() == [0, 0, 1, 2, 2]
    assert records.people == 3 and records.size == [4, 4]
    assert [(count.observed, count.published) for count in records.counts] == [(5, None), (3, 3)]
    for i in (4, 0, 3):
        assert np.array_equal(records.read(i), np.full((4, 4, 3), (i + 1, 0, 0)))


def test_a_record_byte_by_byte(tmp_path):
    """Written down by hand: magic, flag and length, header (flag, label, id, id2), data, padding."""
    data = bytes.fromhex("0a23d7ce") + struct.pack("<I", 24 + 3) + struct.pack("<IfQQ", 0, 7.0, 1, 0) + b"abc" + b"\0"
    assert miniatures.pack(miniatures.labelled([7], 1, b"abc")) == data
    two = bytes.fromhex("0a23d7ce") + struct.pack("<I", 24 + 8) + struct.pack("<IfQQff", 2, 0.0, 1, 0, 3.0, 4.0)
    assert miniatures.pack(miniatures.labelled([3, 4], 1)) == two


def test_the_set_needs_neither_record_0_nor_persons(tmp_path):
    """InsightFace's newer sets: every record is an image."""
    write(tmp_path, standard()[1:6])
    records = RecordSet(tmp_path)
    assert records.keys.tolist() == [0, 1, 2, 3, 4] and records.labels.tolist() == [0, 0, 1, 2, 2]


@pytest.mark.parametrize(
    "data",
    [
        MAGIC,
        MAGIC * 3,
        b"abcd" + MAGIC,
        MAGIC + b"abcd" + MAGIC + b"ab",
        b"ab" + MAGIC + b"cd",
        b"abcd" + MAGIC[:3],
        b"",
    ],
)
def test_parts_are_joined(tmp_path, data):
    """The aligned magic number splits a record, an unaligned one does not; nothing of it is lost."""
    contents = miniatures.labelled([1], 3, data)
    write(tmp_path, changed(r3=contents))
    aligned = sum(data[i : i + 4] == MAGIC for i in range(0, len(data), 4))
    assert miniatures.pack(contents).count(MAGIC) == 1 + aligned + (data == b"ab" + MAGIC + b"cd")
    assert RecordSet(tmp_path).record(3)[1] == data


def test_a_label_may_have_company(tmp_path):
    """An image with several labels: the first is the person."""
    write(tmp_path, changed(r3=miniatures.labelled([1, 0.5, 0.25], 3, png(3))))
    records = RecordSet(tmp_path)
    assert records.labels[2] == 1 and records.read(2)[0, 0, 0] == 3


@pytest.mark.parametrize(
    ("records", "word"),
    [
        ({"r0": miniatures.labelled([6, 8], 0)}, "1 ... 5 are images and that there are 8 records"),
        ({"r0": miniatures.labelled([6, 10], 0)}, "that there are 10 records"),
        ({"r0": miniatures.labelled([1, 9], 0)}, "record 0: says"),
        ({"r0": miniatures.labelled([float("nan"), 9], 0)}, "record 0: label nan"),
        ({"r0": miniatures.labelled([float("inf"), 9], 0)}, "record 0: label inf"),
        ({"r0": miniatures.labelled([2.5, 9], 0)}, "record 0: label 2.5"),
        ({"r3": miniatures.labelled([3], 3, png(3))}, "record 3: label 3.0 is not from 0 to 2"),
        ({"r3": miniatures.labelled([-1], 3, png(3))}, "record 3: label -1.0"),
        ({"r2": b"short"}, "record 2: shorter than its header and labels"),
        ({"r2": struct.pack("<IfQQ", 2**31, 0, 0, 0)}, "record 2: shorter than its header and labels"),
    ],
)
def test_labels_that_cannot_be(tmp_path, records, word):
    write(tmp_path, changed(**records))
    text = refusal(lambda: RecordSet(tmp_path).labels)
    assert text.startswith(f"{tmp_path}/train.rec, record ") and word in text


def test_damaged_records(tmp_path):
    offsets = write(tmp_path)
    whole = (tmp_path / "train.rec").read_bytes()

    def check(word, place, data):
        (tmp_path / "train.rec").write_bytes(whole[:place] + data + whole[place + len(data) :])
        text = refusal(lambda: RecordSet(tmp_path).read(0))
        assert "train.rec, record 1: " in text and word in text

    length = len(png(1)) + 24
    check("no record starts", offsets[1], b"\x0b")
    check("end outside", offsets[1] + 4, struct.pack("<I", (1 << 29) - 1))
    check("flag 2 is out of order", offsets[1] + 4, struct.pack("<I", 2 << 29 | length))
    check("flag 3 is out of order", offsets[1] + 4, struct.pack("<I", 3 << 29 | length))
    check("flag 7 is out of order", offsets[1] + 4, struct.pack("<I", 7 << 29 | length))
    check(
        "flag 0 is out of order", offsets[1] + 4, struct.pack("<I", 1 << 29 | length)
    )  # starts and is never continued
    check("cannot be read as an image", offsets[1] + 8 + 24, b"\0\0\0\0")


def test_an_image_is_checked_when_it_is_read(tmp_path):
    write(tmp_path, prop="3,4,5")
    assert "record 1: another size" in refusal(RecordSet(tmp_path).read, 0)


@pytest.mark.parametrize("cut", [0, 1, 7, 8, 40, 100, -1, -30])
def test_cut_records(tmp_path, cut):
    write(tmp_path)
    data = (tmp_path / "train.rec").read_bytes()
    (tmp_path / "train.rec").write_bytes(data[:cut])
    refusal(lambda: RecordSet(tmp_path).record(8))


@pytest.mark.parametrize(
    ("new", "word"),
    [
        *(
            (line, "not lines of a key")
            for line in ("1 40\n", "1\t-40\n", "1\t40\t7\n", "\n", "1\t\xb2\n", "1\t" + "9" * 20)
        ),
        ("1\t999999999999\n", "an offset is no place"),
        ("1\t41\n", "an offset is no place"),
        ("0\t40\n", "comes twice"),
        ("1\t0\n", "comes twice"),
    ],
)
def test_damaged_indices(tmp_path, new, word):
    write(tmp_path)
    index = (tmp_path / "train.idx").read_text()
    assert "1\t40\n" in index
    write(tmp_path, index=index.replace("1\t40\n", new, 1))
    text = refusal(RecordSet, tmp_path)
    assert text.startswith(f"{tmp_path}/train.idx: ") and word in text


def test_the_index_may_have_carriage_returns_and_any_order(tmp_path):
    write(tmp_path)
    lines = (tmp_path / "train.idx").read_text().splitlines()
    write(tmp_path, index="\r\n".join(reversed(lines)))
    assert RecordSet(tmp_path).labels.tolist() == [0, 0, 1, 2, 2]


@pytest.mark.parametrize(
    "prop", ["", "3,4", "3,4,4,4", "0,4,4", "a,4,4", "3;4;4", "3,4,4\n3,4,4", "-3,4,4", "\u0663,4,4"]
)
def test_property(tmp_path, prop):
    write(tmp_path, prop=prop)
    assert refusal(RecordSet, tmp_path).startswith(f"{tmp_path}/property: ")


@pytest.mark.parametrize("name", ["train.rec", "train.idx", "property"])
def test_missing_files(tmp_path, name):
    write(tmp_path)
    (tmp_path / name).unlink()
    assert refusal(RecordSet, tmp_path).startswith(f"{tmp_path / name}: ")


def test_a_bomb_of_many_parts_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(recordio, "RECORD_BYTES", 100)
    write(tmp_path, changed(r1=miniatures.labelled([0], 1, bytes(200))))
    assert "record 1: its 224 bytes" in refusal(RecordSet(tmp_path).read, 0)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(["train.rec", "train.idx", "property"]), st.integers(0, 5000), st.binary(min_size=1, max_size=6))
def test_any_damage_is_found_or_harmless(tmp_path_factory, name, place, junk):
    folder = tmp_path_factory.getbasetemp() / "damaged"
    write(folder)
    data = (folder / name).read_bytes()
    place %= len(data)
    (folder / name).write_bytes(data[:place] + junk + data[place + len(junk) :])
    try:
        records = RecordSet(folder)
        for i in range(len(records)):
            assert records.read(i).dtype == np.uint8
    except UserError as error:
        assert str(error).startswith(f"{folder}/")
