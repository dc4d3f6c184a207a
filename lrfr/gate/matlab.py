"""Lists of file names and numbers in MATLAB's format of version 5, from files that nobody has checked.

Our own reader of the little that such lists hold, cells of text and plain numbers, because `scipy.io.loadmat` (1.17) trusts a
file: a damaged one can end the process with a segmentation fault. Here every claim is compared with the bytes that are there.
Format: The MathWorks, "MAT-File Format", chapter "Level 5 MAT-Files".
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lrfr.errors import UserError
from lrfr.gate.images import read_regular
from lrfr.gate.trees import check_name

# Our choices: the largest list that we know, of QMUL-SurvFace, has 60,423 names: about 6 MB when decompressed.
FILE_BYTES, TOTAL_BYTES = 1 << 25, 1 << 27
HEADER = 128
MATRIX, COMPRESSED = 14, 15  # types of data elements
TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
ENCODINGS = {1: "ascii", 2: "ascii", 4: "utf-16", 16: "utf-8", 17: "utf-16"}
CELL, CHAR, NUMBERS = 1, 4, range(6, 16)  # array classes: doubles, singles and whole numbers are 6 ... 15
COMPLEX = 1 << 11  # flag of an array


class Unreadable(Exception):
    """What is wrong with a list, in a few words."""


def elements(data: memoryview, order: str) -> Iterator[tuple[int, memoryview]]:
    """(type, contents) of the data elements one after another; `Unreadable` if one ends outside."""
    place = 0
    while place < len(data):
        if place + 8 > len(data):
            raise Unreadable("it ends early")
        kind, size = struct.unpack_from(f"{order}II", data, place)
        if kind >> 16:  # a small element: type and size share four bytes, the contents are the next four
            kind, size, start, place = kind & 0xFFFF, kind >> 16, place + 4, place + 8
            if size > 4:
                raise Unreadable("an element has an impossible size")
        else:
            start = place + 8
            place = start + size + (-size % 8 if kind != COMPRESSED else 0)
        if start + size > len(data):
            raise Unreadable("it ends early")
        yield kind, data[start : start + size]


def read_text(kind: int, data: memoryview, order: str, shape: tuple[int, ...]) -> str:
    """A row of characters; `Unreadable` if it has another length than `shape` says, or is no text."""
    encoding = ENCODINGS.get(kind, "")
    try:
        text = bytes(data).decode(encoding + {"<": "-le", ">": "-be"}[order] if encoding == "utf-16" else encoding)
    except (LookupError, UnicodeDecodeError):
        raise Unreadable("a text is not encoded as it says") from None
    if shape != (1, len(text)):
        raise Unreadable("a text is not one line of the length that it claims")
    return text


def read_numbers(kind: int, data: memoryview, order: str, shape: tuple[int, ...]) -> NDArray:
    """An array of real numbers, stored column by column; `Unreadable` if there are not as many as `shape` says."""
    if kind not in TYPES or len(data) != math.prod(shape) * np.dtype(TYPES[kind]).itemsize:
        raise Unreadable("an array has not as many numbers as it claims")
    return np.frombuffer(data, np.dtype(TYPES[kind]).newbyteorder(order)).reshape(shape, order="F")


def read_array(data: memoryview, order: str, inside_cell: bool = False) -> tuple[str, NDArray | str]:
    """Name and value of an array: numbers, text, or an object array of a cell array's texts; `Unreadable` for anything else."""
    parts = elements(data, order)  # one at a time: a hundred megabytes of empty elements would be gigabytes of objects
    header = [content for _, content in islice(parts, 3)]
    if len(header) < 3 or len(header[0]) != 8 or len(header[1]) % 4:
        raise Unreadable("an array has no header")
    flags, sizes, name = header
    (flag,) = struct.unpack_from(f"{order}I", flags)
    kind, shape = flag & 0xFF, struct.unpack(f"{order}{len(sizes) // 4}i", sizes)
    if not 2 <= len(shape) <= 3 or min(shape) < 0 or math.prod(shape) > len(data):
        raise Unreadable("an array claims more elements than the file has bytes")
    label = bytes(name).decode("ascii", "replace")
    if kind == CELL and not inside_cell:
        cells = [read_array(cell, order, inside_cell=True)[1] for cell_kind, cell in parts if cell_kind == MATRIX]
        if len(cells) != math.prod(shape):
            raise Unreadable("a cell array has not as many cells as it claims")
        return label, np.array(cells, dtype=object).reshape(shape, order="F")
    content = list(islice(parts, 2))
    if kind not in ((CHAR,) if inside_cell else (CHAR, *NUMBERS)) or flag & COMPLEX or len(content) != 1:
        raise Unreadable("it has something else than names and numbers")
    return label, (read_text if kind == CHAR else read_numbers)(*content[0], order, shape)


def read_arrays(data: bytes) -> dict[str, NDArray | str]:
    """The variables of a version 5 file whose every claim holds; `Unreadable` otherwise."""
    if data.startswith(b"MATLAB 7.3") or data[:8] == b"\x89HDF\r\n\x1a\n":
        raise Unreadable("it has version 7.3 (HDF5)")
    if len(data) < HEADER or data[126:128] not in (b"IM", b"MI"):
        raise Unreadable("it is no MATLAB file of version 5")
    order = "<" if data[126:128] == b"IM" else ">"
    found: dict[str, NDArray | str] = {}
    left = TOTAL_BYTES
    for kind, content in elements(memoryview(data)[HEADER:], order):
        if kind == COMPRESSED:
            stream = zlib.decompressobj()
            try:
                unpacked = memoryview(stream.decompress(content, left + 1))
            except zlib.error:
                raise Unreadable("a compressed element is damaged") from None
            left -= len(unpacked)
            if left < 0:
                raise Unreadable(f"it has more than {TOTAL_BYTES} bytes when decompressed")
            if not stream.eof:
                raise Unreadable("it ends early")
            inside = list(islice(elements(unpacked, order), 2))
            if len(inside) != 1:
                raise Unreadable("a compressed element is not one array")
            kind, content = inside[0]
        if kind != MATRIX:
            raise Unreadable("it has an element that is not an array")
        name, value = read_array(content, order)
        if name in found:
            raise Unreadable("it has two variables of one name")
        found[name] = value
    return found


def read_variable(path: Path, variable: str) -> NDArray | str:
    """One variable: numbers, a text, or an object array of texts; UserError if the file is not complete or lacks it."""
    try:
        found = read_arrays(read_regular(path, FILE_BYTES))
        if variable not in found:
            raise Unreadable(f"it has no variable {variable}")
        return found[variable]
    except Unreadable as error:
        raise UserError(
            f"{path}: not the list that is expected, {error}; fetch it again or save it with `-v7`."
        ) from None


def read_names(path: Path, variable: str, columns: int) -> list[tuple[str, ...]]:
    """Rows of a cell array of file names (N, columns), each checked by `trees.check_name`; UserError naming the bad entry."""
    cells = read_variable(path, variable)
    if (
        isinstance(cells, str)
        or cells.dtype != object
        or cells.ndim != 2
        or cells.shape[1] != columns
        or not len(cells)
    ):
        raise UserError(f"{path}: {variable} is not a cell array with {columns} column(s); fetch the list again.")
    rows = [tuple(line) for line in cells]
    for row, names in enumerate(rows, start=1):
        for name in names:
            check_name(name, f"{path}, {variable}, entry {row}")
    return rows


def read_ids(path: Path, variable: str, rows: int) -> NDArray[np.int64]:
    """Whole numbers above 0, one a row, as int64 (rows,): MATLAB's uint16 would wrap in arithmetic. UserError otherwise."""
    values = read_variable(path, variable)
    if isinstance(values, str) or values.dtype == object or values.ndim != 2 or 1 not in values.shape:
        raise UserError(f"{path}: {variable} is not a column of numbers; fetch the list again.")
    if values.size != rows:
        raise UserError(f"{path}: {variable} has {values.size} numbers for {rows} names; fetch the list again.")
    flat = values.ravel().astype(np.float64)
    wrong = np.flatnonzero(~((flat == np.floor(flat)) & (flat >= 1) & (flat < 2**31)))  # comparisons with NaN are false
    if len(wrong):
        raise UserError(
            f"{path}, {variable}, entry {wrong[0] + 1}: {flat[wrong[0]]} is no person's number; fetch it again."
        )
    return flat.astype(np.int64)
