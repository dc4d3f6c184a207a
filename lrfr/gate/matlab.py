"""Lists of file names and numbers in MATLAB's format of version 5, from files that nobody has checked.

Our own reader of the little that such lists hold, cells of text and plain numbers, because `scipy.io.loadmat` (1.17)
trusts a file: a damaged one can end the process with a segmentation fault. Here every claim is compared with the bytes
that are there. Format: The MathWorks, "MAT-File Format", chapter "Level 5 MAT-Files".
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
ENCODINGS = {1: "ascii", 2: "ascii", 4: "utf-16-", 16: "utf-8", 17: "utf-16-"}  # the byte order follows
CELL, CHAR, NUMBERS = 1, 4, range(6, 16)  # array classes: doubles, singles and whole numbers are 6 ... 15
COMPLEX = 1 << 11  # flag of an array


class Unreadable(Exception):
    """What is wrong with a list, in a few words."""


def elements(data: memoryview, order: str) -> Iterator[tuple[int, memoryview]]:
    """(type, contents) of one data element after another; `Unreadable` if one ends outside. order: "<" or ">"."""
    place = 0
    while place < len(data):
        if place + 8 > len(data):
            raise Unreadable("it ends early")
        kind, size = struct.unpack_from(f"{order}II", data, place)
        start, step = place + 8, 8 + size + (-size % 8 if kind != COMPRESSED else 0)
        if kind >> 16:  # a small element: type and size share four bytes, the contents are the next four
            kind, size, start, step = kind & 0xFFFF, kind >> 16, place + 4, 8
        if start + size > len(data) or size > step - 4:
            raise Unreadable("it ends early")
        yield kind, data[start : start + size]
        place += step


def read_content(kind: int, data: memoryview, order: str, text: bool) -> str | NDArray:
    """Characters, or the flat values of an array of real numbers; `Unreadable` if they are not encoded as they say."""
    try:
        if not text:
            return np.frombuffer(data, np.dtype(TYPES[kind]).newbyteorder(order))
        encoding = ENCODINGS[kind]
        return bytes(data).decode(encoding + {"<": "le", ">": "be"}[order] if encoding.endswith("-") else encoding)
    except (LookupError, ValueError):  # ValueError: bytes that are no such text, or not as many as whole numbers take
        raise Unreadable("a text or an array is not encoded as it says") from None


def read_array(data: memoryview, order: str, inside_cell: bool = False) -> tuple[str, NDArray | str]:
    """Name and value of an array: numbers, text, or the texts of a cell array as objects; `Unreadable` for all else."""
    parts = elements(data, order)  # one at a time: a hundred megabytes of empty elements would be gigabytes of objects
    header = [content for _, content in islice(parts, 3)]
    if len(header) < 3 or len(header[0]) != 8 or len(header[1]) != 8:
        raise Unreadable("an array has no header, or more than two dimensions")
    (flag, _), shape = struct.unpack(f"{order}II", header[0]), struct.unpack(f"{order}ii", header[1])
    kind, size = flag & 0xFF, math.prod(shape)
    if min(shape) < 0 or size > len(data):
        raise Unreadable("an array claims more elements than the file has bytes")
    if kind == CELL and not inside_cell:
        cells = [read_array(cell, order, inside_cell=True)[1] for cell_kind, cell in parts if cell_kind == MATRIX]
        values = np.array(cells, dtype=object)
    else:
        content = list(islice(parts, 2))
        if kind not in ((CHAR,) if inside_cell else (CHAR, *NUMBERS)) or flag & COMPLEX or len(content) != 1:
            raise Unreadable("it has something else than names and numbers")
        values = read_content(*content[0], order, text=kind == CHAR)
    if len(values) != size or (kind == CHAR and shape[0] != 1):
        raise Unreadable("an array has not as many elements as it claims, or a text more than one line")
    name = bytes(header[2]).decode("ascii", "replace")
    return name, values if kind == CHAR else values.reshape(shape, order="F")


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
            kind, content = next(elements(unpacked, order), (0, unpacked))
        if kind != MATRIX:
            raise Unreadable("it has an element that is not an array")
        name, value = read_array(content, order)
        if name in found:
            raise Unreadable("it has two variables of one name")
        found[name] = value
    return found


def read_table(path: Path, variable: str) -> NDArray:
    """A variable with rows and columns, numbers or texts; UserError if the file is not complete or lacks it."""
    try:
        found = read_arrays(read_regular(path, FILE_BYTES)).get(variable)
        if not isinstance(found, np.ndarray):
            raise Unreadable(f"it has no variable {variable} of names or numbers")
        return found
    except Unreadable as error:
        what = f"not the list that is expected, {error}"
        raise UserError(f"{path}: {what}; fetch it again or save it with `-v7`.") from None


def read_names(path: Path, variable: str, columns: int) -> list[tuple[str, ...]]:
    """Rows (N, columns) of a cell array of file names that `trees.check_name` allows; UserError naming a bad entry."""
    cells = read_table(path, variable)
    if cells.dtype != object or cells.shape[1] != columns or not len(cells):
        raise UserError(f"{path}: {variable} is not a cell array with {columns} column(s); fetch the list again.")
    for row, names in enumerate(cells, start=1):
        for name in names:
            check_name(name, f"{path}, {variable}, entry {row}")
    return [tuple(names) for names in cells]


def read_ids(path: Path, variable: str, rows: int) -> NDArray[np.int64]:
    """Whole numbers above 0, one a row, as int64 (rows,): MATLAB's uint16 would wrap. UserError for anything else."""
    values = read_table(path, variable)
    if values.dtype == object or 1 not in values.shape:
        raise UserError(f"{path}: {variable} is not a column of numbers; fetch the list again.")
    if values.size != rows:
        raise UserError(f"{path}: {variable} has {values.size} numbers for {rows} names; fetch the list again.")
    flat = values.ravel().astype(np.float64)
    wrong = np.flatnonzero(~((flat == np.floor(flat)) & (flat >= 1) & (flat < 2**31)))  # comparisons with NaN are false
    if len(wrong):
        entry = f"{path}, {variable}, entry {wrong[0] + 1}"
        raise UserError(f"{entry}: {flat[wrong[0]]} is no person's number; fetch it again.")
    return flat.astype(np.int64)
