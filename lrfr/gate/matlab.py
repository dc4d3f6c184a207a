"""Lists of file names and numbers in MATLAB's format of version 5, from files that nobody has checked.

Our own reader of the little that such lists hold, cells of text and plain numbers, because `scipy.io.loadmat` (1.17)
trusts a file: a damaged one can end the process with a segmentation fault. Here every claim is compared with the bytes
that are there. Format: The MathWorks, "MAT-File Format", chapter "Level 5 MAT-Files".
"""

import math
import struct
import zlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lrfr.errors import UserError
from lrfr.gate.images import Damaged, read_regular, refusing
from lrfr.gate.trees import check_name

# Our choices: the largest list that we know, of QMUL-SurvFace, has 60,423 names: about 6 MB when decompressed.
FILE_BYTES, TOTAL_BYTES = 1 << 25, 1 << 27
HEADER = 128
MATRIX, COMPRESSED = 14, 15  # types of data elements
TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
ENCODINGS = {1: "ascii", 2: "ascii", 4: "utf-16-le", 16: "utf-8", 17: "utf-16-le"}
CELL, CHAR, NUMBERS = 1, 4, range(6, 16)  # array classes: doubles, singles and whole numbers are 6 ... 15
COMPLEX = 1 << 11  # flag of an array


def elements(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """(type, contents) of one data element after another; `Damaged` if one ends outside."""
    place = 0
    while place < len(data):
        kind, size = struct.unpack_from("<II", data, place)
        start, step = place + 8, 8 + size + (-size % 8 if kind != COMPRESSED else 0)
        if kind >> 16:  # a small element: type and size share four bytes, the contents are the next four
            kind, size, start, step = kind & 0xFFFF, kind >> 16, place + 4, 8
        if start + size > len(data) or size > step - 4:
            raise Damaged("it ends early")
        yield kind, data[start : start + size]
        place += step


def read_array(data: memoryview, inside_cell: bool = False) -> tuple[str, NDArray | str]:
    """Name and value of an array: numbers, text, or the texts of a cell array as objects; `Damaged` for all else."""
    parts = elements(data)  # one at a time: a hundred megabytes of empty elements would be gigabytes of objects
    (_, flags), (_, dimensions), (_, name) = islice(parts, 3)
    (flag, _), shape = struct.unpack("<II", flags), struct.unpack("<ii", dimensions)
    kind = flag & 0xFF
    if kind == CELL and not inside_cell:
        cells = [read_array(cell, inside_cell=True)[1] for cell_kind, cell in parts if cell_kind == MATRIX]
        values = np.array(cells, dtype=object)
    elif kind == CHAR:
        ((code, content),) = islice(parts, 2)
        values = bytes(content).decode(ENCODINGS[code])
    elif kind in NUMBERS and not inside_cell and not flag & COMPLEX:
        ((code, content),) = islice(parts, 2)
        values = np.frombuffer(content, f"<{TYPES[code]}")
    else:
        raise Damaged("it has something else than names and numbers")
    if len(values) != math.prod(shape) or min(shape) < 0 or (kind == CHAR and shape[0] != 1):
        raise Damaged("an array has not as many elements as it claims, or a text more than one line")
    return bytes(name).decode("ascii", "replace"), values if kind == CHAR else values.reshape(shape, order="F")


def read_arrays(data: bytes) -> dict[str, NDArray | str]:
    """The variables of a version 5 file whose every claim holds; `Damaged`, or any other exception, otherwise."""
    if data[126:HEADER] != b"IM" or data.startswith(b"MATLAB 7.3"):  # MI: of another byte order, decades old
        raise Damaged("it is no MATLAB file of version 5; version 7.3 is HDF5")
    found, left = {}, TOTAL_BYTES
    for kind, content in elements(memoryview(data)[HEADER:]):
        if kind == COMPRESSED:
            stream = zlib.decompressobj()
            unpacked = memoryview(stream.decompress(content, left + 1))
            left -= len(unpacked)
            if left < 0 or not stream.eof:
                raise Damaged(f"it ends early, or has more than {TOTAL_BYTES} bytes when decompressed")
            kind, content = next(elements(unpacked), (0, unpacked))
        if kind != MATRIX:
            raise Damaged("it has an element that is not an array")
        found.update([read_array(content)])
    return found


def read_table(path: Path, variable: str) -> NDArray:
    """The variable of a list, names or numbers, (rows, columns); UserError if it is not there, or the file damaged."""
    data = read_regular(path, FILE_BYTES)
    with refusing(path, "the list that is expected", "fetch it again or save it with `-v7`"):
        found = read_arrays(data).get(variable)
        if not isinstance(found, np.ndarray):
            raise Damaged(f"it has no variable {variable} of names or numbers")
        return found


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
    if values.dtype == object or values.shape not in ((rows, 1), (1, rows)):
        raise UserError(f"{path}: {variable} is not a column of {rows} numbers, one a name; fetch the list again.")
    for row, value in enumerate(values.ravel().astype(np.float64), start=1):
        if not (value.is_integer() and 1 <= value < 2**31):
            raise UserError(f"{path}, {variable}, entry {row}: {value} is no person's number; fetch it again.")
    return values.ravel().astype(np.int64)
