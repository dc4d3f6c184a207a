"""InsightFace's training sets in MXNet's RecordIO (`train.rec`, `train.idx`, `property`), read without MXNet.

A record is two 32-bit words, the magic number and flag and length (3 and 29 bits), then the contents, padded to four
bytes. A record whose contents include the aligned magic number is written in parts that leave it out: flag 1 starts, 2
goes on, 3 ends. The contents start with a header: flag, label, id, id2; flag labels more follow where flag > 0. Layout:
dmlc-core's recordio.h; record 0 and the persons' records: InsightFace's `dataset.py`.
"""

from __future__ import annotations

import mmap
import re
import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lrfr.errors import UserError
from lrfr.gate.images import read_pixels, read_regular
from lrfr.gate.trees import Count
from lrfr.progress import bar

MAGIC = struct.pack("<I", 0xCED7230A)
WHOLE, START, MIDDLE, END = range(4)
HEADER = struct.Struct("<IfQQ")
RECORD, INDEX, PROPERTY = "train.rec", "train.idx", "property"
RECORD_BYTES = 1 << 24  # our choice: a thousand times the usual image; a record with more is damaged
INDEX_BYTES, PROPERTY_BYTES = 1 << 30, 1 << 10  # our choices: 30 million lines; one line
LABELS = 1 << 24  # whole numbers up to here are exact in a label's 32-bit float
LINE = rb"\d{1,10}\t\d{1,15}"


def read_index(path: Path, size: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Keys, ascending, and offsets of the lines "key<TAB>offset" of an index; size: bytes of the records.

    Raises UserError for a malformed line, a key or offset that comes twice, and an offset where no record can be.
    """
    data = read_regular(path, INDEX_BYTES)
    if not re.fullmatch(rb"(?:%b\r?\n)*+(?:%b)?+\s*" % (LINE, LINE), data) or not data.strip():
        raise UserError(f"{path}: not lines of a key, a tab and an offset; fetch the set again.")
    table = np.fromstring(data.decode("ascii"), np.int64, sep=" ").reshape(-1, 2)
    keys, offsets = table[np.argsort(table[:, 0])].T
    outside = (offsets > size - 8).any() or (offsets % 4).any()
    if outside or len(np.unique(keys)) + len(np.unique(offsets)) < 2 * len(table):
        what = f"a key or an offset comes twice, or an offset is no place of a record in {size} bytes"
        raise UserError(f"{path}: {what}; fetch the set again.")
    return keys, offsets


def read_property(path: Path) -> tuple[int, int, int]:
    """(people, height, width) of the file `property`, one line "people,height,width"; UserError otherwise."""
    match = re.fullmatch(rb"([1-9]\d{0,8}),([1-9]\d{0,3}),([1-9]\d{0,3})\s*", read_regular(path, PROPERTY_BYTES))
    if not match:
        raise UserError(f"{path}: not people,height,width as in 85742,112,112; fetch it again.")
    people, height, width = map(int, match.groups())
    return people, height, width


class RecordSet:
    """Training images in random access: the file is mapped into memory, not read.

    labels: int64 (N,), the persons 0 ... people - 1. people: as `property` says. size: (height, width) of every image.
    counts: what is there next to what `property` says. Raises UserError, naming file and line or record, at the first
    thing that is wrong with property, index, record 0 and the persons' records; images are checked when they are read.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / RECORD
        self.people, *size = read_property(folder / PROPERTY)
        self.size = tuple(size)
        try:
            with open(self.path if self.path.is_file() else folder, "rb") as file:  # a pipe would be waited for
                self.map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError):  # ValueError: an empty file cannot be mapped
            raise UserError(f"{self.path}: cannot be read, or empty; give the folder of a training set.") from None
        self.index, self.offsets = read_index(folder / INDEX, len(self.map))
        self.keys, self.labels = self.read_labels()
        found = Count("training people", len(np.unique(self.labels)), self.people)
        self.counts = Count("training images", len(self.keys), None), found

    def __len__(self) -> int:
        return len(self.keys)

    def refusal(self, key: int, reason: str) -> UserError:
        return UserError(f"{self.path}, record {key}: {reason}; fetch the set again.")

    def read(self, i: int) -> NDArray[np.uint8]:
        """Image i, uint8 (height, width, 3) RGB; UserError if its record is damaged or contradicts label or size."""
        image = read_pixels(self.encoded(i), f"{self.path}, record {self.keys[i]}")
        if image.shape != (*self.size, 3):
            raise self.refusal(self.keys[i], f"another size than {PROPERTY} says")
        return image

    def encoded(self, i: int) -> bytes:
        """The encoded bytes of image i, not looked into; UserError if its record is damaged or contradicts a label."""
        key = int(self.keys[i])
        labels, data = self.record(key)
        if self.label(key, labels) != self.labels[i]:
            raise self.refusal(key, "another person than the persons' records say")
        return data

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

    def label(self, key: int, labels: NDArray[np.float32], limit: int | None = None, place: int = 0) -> int:
        """A label as a whole number from 0 to limit - 1 (the number of people); UserError if it is anything else."""
        value, limit = float(labels[place]) if place < len(labels) else -1.0, limit or self.people
        if not (0 <= value < min(limit, LABELS + 1) and value.is_integer()):  # comparisons with NaN are false
            raise self.refusal(key, f"label {value} is not from 0 to {limit - 1}")
        return int(value)

    def read_labels(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Keys and labels of the images.

        Record 0 with two labels (a, b) says that images are 1 ... a - 1 and persons a ... b - 1, each with the range
        (first, last + 1) of its images: then only the first and the last image of every person are looked at. Without
        it every record is an image and all are read. Numbers are exact up to 2^24, so that larger sets (Glint360K) are
        refused.
        """
        zero = self.record(0)[0] if self.index[0] == 0 else ()
        if len(zero) < 2:
            labels = [self.label(key, self.record(key)[0]) for key in bar(self.index.tolist(), self.path.name)]
            return self.index, np.array(labels, np.int64)
        images, end = (self.label(0, zero, LABELS, place) for place in (0, 1))
        if not 1 < images < end or not np.array_equal(self.index, np.arange(end)):
            said = f"says that 1 ... {images - 1} are images and that there are {end} records"
            raise self.refusal(0, f"{said}, {INDEX} differs")
        labels = np.full(images, -1, np.int64)
        for key in bar(range(images, end), self.path.name):
            person = self.record(key)[0]
            first, last = (self.label(key, person, images + 1, place) for place in (0, 1))
            if not 1 <= first < last or (labels[first:last] != -1).any():
                raise self.refusal(key, f"images {first} to {last - 1} are no range, or another person's")
            ends = {self.label(image, self.record(image)[0]) for image in (first, last - 1)}
            if len(ends) > 1:
                raise self.refusal(key, "its first and last image have two labels")
            labels[first:last] = ends.pop()
        if (labels[1:] == -1).any():
            raise self.refusal(int(np.argmin(labels[1:])) + 1, "an image of nobody")
        return np.arange(1, images, dtype=np.int64), labels[1:]
