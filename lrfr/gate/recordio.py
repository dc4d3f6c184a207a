"""InsightFace's training sets in MXNet's RecordIO (`train.rec`, `train.idx`, `property`), read without MXNet.

A record is two 32-bit words, the magic number and flag and length (3 and 29 bits), then the contents, padded to four
bytes. A record whose contents include the aligned magic number is written in parts that leave it out: flag 1 starts, 2
goes on, 3 ends. The contents start with a header: flag, label, id, id2; flag labels more follow where flag > 0. Layout:
dmlc-core's recordio.h; record 0: InsightFace's `dataset.py`.
"""

import mmap
import re
import struct
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lrfr.errors import UserError
from lrfr.gate.images import read_pixels, read_regular, refusing
from lrfr.gate.trees import Count
from lrfr.progress import bar

MAGIC = struct.pack("<I", 0xCED7230A)
WHOLE, START, MIDDLE, END = range(4)
HEADER = struct.Struct("<IfQQ")
RECORD, INDEX, PROPERTY = "train.rec", "train.idx", "property"
RECORD_BYTES = 1 << 24  # our choice: a thousand times the usual image; a record with more is damaged
INDEX_BYTES, PROPERTY_BYTES = 1 << 30, 1 << 10  # our choices: 30 million lines; one line
LABELS = 1 << 24  # whole numbers up to here are exact in a label's 32-bit float


def read_index(path: Path, size: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Keys, ascending, and offsets of an index, UserError if it is malformed; size: bytes of the records."""
    data = read_regular(path, INDEX_BYTES)
    if not re.fullmatch(rb"(?:\d{1,10}\t\d{1,15}(?:\r?\n|\Z))++\s*", data):
        raise UserError(f"{path}: not lines of a key, a tab and an offset; fetch the set again.")
    table = np.fromstring(data.decode("ascii"), np.int64, sep=" ").reshape(-1, 2)
    keys, offsets = table[np.argsort(table[:, 0])].T
    outside = (offsets > size - 8).any() or (offsets % 4).any()
    if outside or len(np.unique(keys)) + len(np.unique(offsets)) < 2 * len(table):
        what = f"a key or an offset comes twice, or an offset is no place of a record in {size} bytes"
        raise UserError(f"{path}: {what}; fetch the set again.")
    return keys, offsets


class RecordSet:
    """Training images in random access: the file is mapped into memory, not read.

    keys: int64 (N,), of the images' records. people: as `property` says. size: (height, width) of every image. Raises
    UserError, naming file and record, if property, index or record 0 are wrong; images are checked when they are read.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / RECORD
        text = read_regular(folder / PROPERTY, PROPERTY_BYTES)
        match = re.fullmatch(rb"([1-9]\d{0,8}),([1-9]\d{0,3}),([1-9]\d{0,3})\s*", text)
        if not match:
            raise UserError(f"{folder / PROPERTY}: not people,height,width as in 85742,112,112; fetch it again.")
        self.people, *self.size = map(int, match.groups())
        path = self.path if self.path.is_file() else folder  # a pipe would be waited for
        with refusing(self.path, "records", "give the folder of a training set"), path.open("rb") as file:
            self.map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self.index, self.offsets = read_index(folder / INDEX, len(self.map))
        self.keys = self.index  # in newer sets every record is an image
        zero = self.record(0)[0] if self.index[0] == 0 else ()
        if len(zero) > 1:  # (a, b): images are 1 ... a - 1, the records a ... b - 1 say which images a person has
            images, end = (self.whole(0, label, LABELS) for label in zero[:2])
            if not 1 < images < end or not np.array_equal(self.index, np.arange(end)):
                said = f"says that 1 ... {images - 1} are images and that there are {end} records"
                raise self.refusal(0, f"{said}, {INDEX} differs")
            self.keys = self.index[1:images]

    def __len__(self) -> int:
        return len(self.keys)

    @cached_property
    def labels(self) -> NDArray[np.int64]:
        """The person of every image, 0 ... people - 1, int64 (N,): all records are read through."""
        return np.array([self.face(i)[0] for i in bar(range(len(self)), self.path.name)], np.int64)

    @property
    def counts(self) -> tuple[Count, ...]:
        """What is there next to what `property` says."""
        people = len(np.unique(self.labels))
        return Count("training images", len(self), None), Count("training people", people, self.people)

    def refusal(self, key: int, reason: str) -> UserError:
        return UserError(f"{self.path}, record {key}: {reason}; fetch the set again.")

    def read(self, i: int) -> NDArray[np.uint8]:
        """Image i, uint8 (height, width, 3) RGB; UserError if its record is damaged or it has another size."""
        image = read_pixels(self.face(i)[1], f"{self.path}, record {self.keys[i]}")
        if image.shape != (*self.size, 3):
            raise self.refusal(self.keys[i], f"another size than {PROPERTY} says")
        return image

    def face(self, i: int) -> tuple[int, bytes]:
        """Person and encoded bytes, not looked into, of image i; UserError if its record is damaged."""
        key = int(self.keys[i])
        labels, data = self.record(key)
        return self.whole(key, labels[0], self.people), data

    def record(self, key: int) -> tuple[NDArray[np.float32], bytes]:
        """Labels (at least one) and data of a key's record, its parts joined; UserError if it is missing or damaged."""
        row = int(np.searchsorted(self.index, key))
        if row == len(self.index) or self.index[row] != key:
            raise self.refusal(key, f"not in {INDEX}")
        place, parts, flag, total = int(self.offsets[row]), [], START, 0
        while flag in (START, MIDDLE):
            if place + 8 > len(self.map) or self.map[place : place + 4] != MAGIC:
                raise self.refusal(key, f"no record starts at byte {place}")
            (word,) = struct.unpack_from("<I", self.map, place + 4)
            flag, length = word >> 29, word & ((1 << 29) - 1)
            total += length
            if place + 8 + length > len(self.map) or total > RECORD_BYTES:
                raise self.refusal(key, f"its {total} bytes end outside of the file or are too many")
            if flag not in ((MIDDLE, END) if parts else (WHOLE, START)):
                raise self.refusal(key, f"a part with flag {flag} is out of order")
            parts.append(self.map[place + 8 : place + 8 + length])
            place += 8 + length + -length % 4
        data = MAGIC.join(parts)
        more, label, _, _ = HEADER.unpack(data[: HEADER.size].ljust(HEADER.size, b"\xff"))
        end = HEADER.size + 4 * more
        if end > len(data):
            raise self.refusal(key, "shorter than its header and labels")
        return np.frombuffer(data[HEADER.size : end], "<f4") if more else np.array([label], np.float32), data[end:]

    def whole(self, key: int, label: np.float32, limit: int) -> int:
        """A label as a whole number below limit; UserError if it is none. Beyond 2^24 (Glint360K) none is exact."""
        if not (0 <= label < min(limit, LABELS + 1) and float(label).is_integer()):  # comparisons with NaN are false
            raise self.refusal(key, f"label {label} is not from 0 to {limit - 1}")
        return int(label)
