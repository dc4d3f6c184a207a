"""Lists of file names and numbers in MATLAB's format of version 5, from files that nobody has checked.

`scipy.io.loadmat` runs no code, but it believes what a file says about its size. So the file is walked first: only cells of
text and plain numbers are let through, and no array may claim more elements than there are bytes for it.
Format: The MathWorks, "MAT-File Format", chapter "Level 5 MAT-Files".
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lrfr.data.images import read_regular
from lrfr.data.trees import check_name
from lrfr.errors import UserError

# Our choices: the largest list that we know, of QMUL-SurvFace, has 60,423 names: about 6 MB when decompressed.
FILE_BYTES, TOTAL_BYTES = 1 << 25, 1 << 27
HEADER = 128
MATRIX, COMPRESSED = 14, 15
CELL, CHAR, NUMBERS = 1, 4, range(6, 16)  # array classes: doubles, singles and whole numbers are 6 ... 15


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


def check_matrix(data: memoryview, order: str, inside_cell: bool) -> str:
    """The name of an array after a look at its claims; `Unreadable` for what is not a list of names or numbers."""
    parts = list(zip(range(3), elements(data, order), strict=False))
    if len(parts) < 3 or len(parts[0][1][1]) != 8 or len(parts[1][1][1]) % 4:
        raise Unreadable("an array has no header")
    (_, (_, flags)), (_, (_, shape)), (_, (_, name)) = parts
    kind = struct.unpack_from(f"{order}I", flags)[0] & 0xFF
    sizes = struct.unpack(f"{order}{len(shape) // 4}i", shape)
    elements_claimed = 1
    for size in sizes:
        elements_claimed *= size if 0 <= size <= len(data) else len(data) + 1
    if not 2 <= len(sizes) <= 3 or elements_claimed > len(data):
        raise Unreadable("an array claims more elements than the file has bytes")
    if kind == CELL and not inside_cell:
        cells = list(elements(data, order))[3:]
        if elements_claimed != len(cells):
            raise Unreadable("a cell array has not as many cells as it claims")
        for cell_kind, cell in cells:
            if cell_kind != MATRIX:
                raise Unreadable("a cell is not an array")
            check_matrix(cell, order, inside_cell=True)
    elif not (kind == CHAR or (kind in NUMBERS and not inside_cell)):
        raise Unreadable("it has something else than names and numbers")
    return bytes(name).decode("ascii", "replace")


def check_file(data: bytes) -> list[str]:
    """Names of the variables of a version 5 file whose every claim holds; `Unreadable` otherwise."""
    if data.startswith(b"MATLAB 7.3") or data[:8] == b"\x89HDF\r\n\x1a\n":
        raise Unreadable("it has version 7.3 (HDF5)")
    if len(data) < HEADER or data[126:128] not in (b"IM", b"MI"):
        raise Unreadable("it is no MATLAB file of version 5")
    order = "<" if data[126:128] == b"IM" else ">"
    names, left = [], TOTAL_BYTES
    for kind, packed in elements(memoryview(data)[HEADER:], order):
        content = packed
        if kind == COMPRESSED:
            stream = zlib.decompressobj()
            content = memoryview(stream.decompress(packed, left + 1))
            left -= len(content)
            if left < 0:
                raise Unreadable(f"it has more than {TOTAL_BYTES} bytes when decompressed")
            if not stream.eof:
                raise Unreadable("it ends early")
            unpacked = list(elements(content, order))
            if len(unpacked) != 1:
                raise Unreadable("a compressed element is not one array")
            kind, content = unpacked[0]
        if kind != MATRIX:
            raise Unreadable("it has an element that is not an array")
        names.append(check_matrix(content, order, inside_cell=False))
    if len(set(names)) != len(names):
        raise Unreadable("it has two variables of one name")
    return names


def read_variable(path: Path, variable: str) -> NDArray:
    """One variable as scipy gives it; UserError if the file is not a complete version 5 file that has it."""
    import scipy.io  # here, because only these lists need it

    try:
        data = read_regular(path, FILE_BYTES)
        if variable not in check_file(data):
            raise Unreadable(f"it has no variable {variable}")
        return scipy.io.loadmat(io.BytesIO(data), variable_names=[variable])[variable]
    except UserError:
        raise
    except Unreadable as error:
        raise UserError(f"{path}: not the list that is expected, {error}; fetch it again or save it with `-v7`.") from None
    except Exception as error:  # the library raises almost anything on hostile bytes
        raise UserError(f"{path}: cannot be read as a MATLAB list ({type(error).__name__}); fetch it again.") from None


def read_names(path: Path, variable: str, columns: int) -> list[tuple[str, ...]]:
    """Rows of a cell array of file names (N, columns), each checked by `trees.check_name`; UserError naming the bad entry."""
    cells = read_variable(path, variable)
    if cells.dtype != object or cells.ndim != 2 or cells.shape[1] != columns or not len(cells):
        raise UserError(f"{path}: {variable} is not a cell array with {columns} column(s); fetch the list again.")
    rows = []
    for row, line in enumerate(cells, start=1):
        for cell in line:
            if cell.dtype.kind != "U" or cell.size != 1:
                raise UserError(f"{path}, {variable}, entry {row}: not one name; fetch the list again.")
            check_name(str(cell.item()), f"{path}, {variable}, entry {row}")
        rows.append(tuple(str(cell.item()) for cell in line))
    return rows


def read_ids(path: Path, variable: str, rows: int) -> NDArray[np.int64]:
    """Whole numbers above 0, one a row, as int64 (rows,): MATLAB's uint16 would wrap in arithmetic. UserError otherwise."""
    values = read_variable(path, variable)
    if values.dtype.kind not in "uif" or values.size != rows or values.ndim != 2:
        raise UserError(f"{path}: {variable} has {values.size} numbers for {rows} names; fetch the list again.")
    flat = values.ravel().astype(np.float64)
    wrong = np.flatnonzero(~((flat == np.floor(flat)) & (flat >= 1) & (flat < 2**31)))  # comparisons with NaN are false
    if len(wrong):
        raise UserError(f"{path}, {variable}, entry {wrong[0] + 1}: {flat[wrong[0]]} is no person's number; fetch it again.")
    return flat.astype(np.int64)
