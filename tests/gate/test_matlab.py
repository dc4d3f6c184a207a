import io
import os
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
import scipy.io
from hypothesis import given, settings
from hypothesis import strategies as st

from lrfr.errors import UserError
from lrfr.gate import matlab
from lrfr.gate.images import Damaged
from lrfr.gate.matlab import read_ids, read_names
from tests.gate.refusals import refusal

NAMES = ["1_2.jpg", "1_10.jpg", "23_1.jpg"]


def cells(rows, columns=1):
    return np.array(rows, dtype=object).reshape(-1, columns)


def mat(compressed=True, **variables):
    file = io.BytesIO()
    scipy.io.savemat(file, variables, do_compression=compressed)
    return file.getvalue()


def write(folder, data):
    (folder / "list.mat").write_bytes(data)
    return folder / "list.mat"


def element(kind, data):
    return struct.pack("<II", kind, len(data)) + data + bytes(-len(data) % 8)


def array(kind, shape, *content, name=b"probe_set"):
    """An array by hand: flags, dimensions, name, then what follows."""
    flags = element(6, struct.pack("<II", kind, 0))
    return element(
        14, flags + element(5, struct.pack(f"<{len(shape)}i", *shape)) + element(1, name) + b"".join(content)
    )


HEADER = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM"


@pytest.mark.parametrize("compressed", [True, False])
def test_names_and_numbers(tmp_path, compressed):
    path = write(tmp_path, mat(compressed, probe_set=cells(NAMES), probe_ids=np.array([[1], [1], [23]], np.uint16)))
    assert read_names(path, "probe_set", 1) == [(name,) for name in NAMES]
    ids = read_ids(path, "probe_ids", 3)
    assert ids.dtype == np.int64 and ids.tolist() == [1, 1, 23] and (ids - 2).min() == -1  # uint16 would wrap


def test_pairs_of_names(tmp_path):
    path = write(tmp_path, mat(pairs=cells(NAMES + NAMES[::-1], 2)))
    assert read_names(path, "pairs", 2) == [("1_2.jpg", "1_10.jpg"), ("23_1.jpg", "23_1.jpg"), ("1_10.jpg", "1_2.jpg")]
    assert "1 column(s)" in refusal(read_names, path, "pairs", 1)


def test_numbers_of_any_kind_and_direction(tmp_path):
    for kind in (np.uint8, np.int32, np.int64, np.float64):
        for shape in ((3, 1), (1, 3)):
            path = write(tmp_path, mat(ids=np.array([1, 2, 200], kind).reshape(shape)))
            assert read_ids(path, "ids", 3).tolist() == [1, 2, 200]


@pytest.mark.parametrize("value", [0, -1, 1.5, float("nan"), float("inf"), 2.0**31])
def test_numbers_that_nobody_has(tmp_path, value):
    path = write(tmp_path, mat(ids=np.array([[1.0], [value]])))
    assert "list.mat, ids, entry 2: " in refusal(read_ids, path, "ids", 2)


def test_as_many_numbers_as_names(tmp_path):
    path = write(tmp_path, mat(ids=np.array([[1], [2]])))
    assert "ids is not a column of 3 numbers" in refusal(read_ids, path, "ids", 3)


@pytest.mark.parametrize("name", ["../x.jpg", "a/b.jpg", "/etc/passwd", "a\\b.jpg", "..", "a\nb.jpg", "C:\\x.jpg"])
def test_names_that_lead_elsewhere(tmp_path, name):
    path = write(tmp_path, mat(probe_set=cells(["1_1.jpg", name])))
    text = refusal(read_names, path, "probe_set", 1)
    assert f"{path}, probe_set, entry 2: " in text


@pytest.mark.parametrize("value", [3, "", ["a", "bc"], np.zeros((2, 2))])
def test_cells_that_are_not_one_name(tmp_path, value):
    content = np.empty((2, 1), dtype=object)
    content[0, 0], content[1, 0] = "1_1.jpg", value
    refusal(read_names, write(tmp_path, mat(probe_set=content)), "probe_set", 1)


def test_other_kinds_of_variables(tmp_path):
    for value in (np.ones((2, 2)), "text", np.empty((0, 1), dtype=object), {"field": 1}, 1j):
        refusal(read_names, write(tmp_path, mat(probe_set=value)), "probe_set", 1)
    assert "no variable probe_ids" in refusal(read_ids, write(tmp_path, mat(probe_set=cells(NAMES))), "probe_ids", 3)


def test_version_7_3_is_named():
    for data in (b"MATLAB 7.3 MAT-file, Platform".ljust(512) + b"\x89HDF\r\n\x1a\n", b"\x89HDF\r\n\x1a\n" + bytes(600)):
        with pytest.raises(Damaged, match="version 7.3"):
            matlab.read_arrays(data)


@pytest.mark.parametrize("compressed", [True, False])
def test_cut_anywhere(tmp_path, compressed):
    data = mat(compressed, probe_set=cells(NAMES))
    for length in range(0, len(data) - 1, 5):
        if length == matlab.HEADER:
            continue  # a file without variables
        assert "list.mat: " in refusal(read_names, write(tmp_path, data[:length]), "probe_set", 1)


def test_no_file_and_other_files(tmp_path):
    assert "No such file" in refusal(read_names, tmp_path / "absent.mat", "x", 1)
    refusal(read_names, tmp_path, "x", 1)
    for data in (b"", b"hello", b"\0" * 1000, b"PK\x03\x04" * 100, os.urandom(0)):
        refusal(read_names, write(tmp_path, data), "x", 1)


@pytest.mark.parametrize(
    "content",
    [
        array(1, (2**31 - 1, 1)),  # cells: the library would make room for all of them first, 17 GB
        array(1, (1, 1), array(1, (2**31 - 1, 1), name=b"")),  # the same one level further down
        array(1, (40_000, 40_000)),
        array(1, (-1, -1)),
        array(6, (2**31 - 1, 2**31 - 1), element(9, bytes(8))),
        array(1, (2, 1), array(4, (1, 1), element(16, b"a"), name=b"")),  # one cell fewer than claimed
        array(2, (1, 1)),  # a structure
        array(3, (1, 1)),  # an object
        array(17, (1, 1)),  # opaque
        array(1, (1, 1), element(9, bytes(8))),
        array(4, (1, 1), element(16, b"a")) * 2,
        element(9, bytes(8)),
        element(15, zlib.compress(bytes(64))),
        element(15, b"no zlib at all"),
        element(
            15, zlib.compress(array(1, (1, 1), array(4, (1, 1), element(16, b"a"), name=b"")))[:-4]
        ),  # without checksum
        element(14, b""),
        struct.pack("<II", 14, 2**31),
    ],
)
def test_claims_that_do_not_hold(tmp_path, content):
    tracemalloc.start()
    refusal(read_names, write(tmp_path, HEADER + content), "probe_set", 1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5_000_000


def test_a_bomb_is_unpacked_up_to_the_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(matlab, "TOTAL_BYTES", 1 << 20)
    bomb = element(15, zlib.compress(bytes(1 << 23)))
    assert "more than 1048576 bytes when decompressed" in refusal(read_names, write(tmp_path, HEADER + bomb), "x", 1)
    monkeypatch.setattr(matlab, "FILE_BYTES", 100)
    assert "larger than 100 bytes" in refusal(read_names, tmp_path / "list.mat", "x", 1)


VALID = [mat(compressed, probe_set=cells(NAMES), ids=np.array([[1], [2]])) for compressed in (True, False)]


def test_against_the_library_on_files_that_are_whole():
    """scipy reads as an independent reference what numpy types, long names and several columns look like."""
    rng = np.random.default_rng(0)
    texts = np.array(
        [f"{'x' * rng.integers(1, 40)}_{i}.jpg" for i in range(30)] + ["Zoë_1.jpg", "日本_2.jpg"], dtype=object
    )
    numbers = {kind: rng.integers(0, 100, (5, 3)).astype(kind) for kind in ("u1", "i2", "u4", "i8", "f4", "f8")}
    data = mat(names=texts.reshape(-1, 4), **{f"of_{kind}": value for kind, value in numbers.items()})
    ours, theirs = matlab.read_arrays(data), scipy.io.loadmat(io.BytesIO(data))
    assert ours.keys() == {name for name in theirs if not name.startswith("__")}
    for name, value in ours.items():
        expected = (
            np.vectorize(lambda cell: cell.item(), otypes=[object])(theirs[name]) if name == "names" else theirs[name]
        )
        np.testing.assert_array_equal(value, expected)


def test_many_empty_elements_take_no_memory():
    data = HEADER + element(15, zlib.compress(array(1, (1, 1), bytes(1 << 19))))
    tracemalloc.start()
    with pytest.raises(Damaged):
        matlab.read_arrays(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000  # a few times the half megabyte that is unpacked; as objects they would be ten


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(VALID), st.integers(0, 2000), st.binary(min_size=1, max_size=8))
def test_any_damage_is_found_or_gives_names(tmp_path_factory, data, place, junk):
    place %= len(data)
    path = write(tmp_path_factory.getbasetemp(), data[:place] + junk + data[place + len(junk) :])
    try:
        rows = read_names(path, "probe_set", 1)
    except UserError as error:
        assert str(error).startswith(str(path))
    else:
        assert all("/" not in name and name.isprintable() for (name,) in rows)
