"""Benchmark sets in miniature, made of the ORL faces, with the folders, names, lists and formats of the real ones.

For tests, and for a look at a protocol without licensed data. Who is who is known by construction (`s3` of ORL is
person 3 here), so that every score can be checked by hand. The same bytes on every run: nothing is random. The numbers
of people and images are our choice, small and all different; sizes of faces are those that the sets' authors name.
"""

from __future__ import annotations

import io
import pickle
import struct
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from lrfr.benchmarks import scface, survface, tinyface
from lrfr.errors import UserError
from lrfr.files import atomic_file, atomic_folder
from lrfr.gate import insightface_bin, recordio
from lrfr.gate.images import read_image
from lrfr.sources import orl

TINY, SURVEILLANCE = (16, 20), (20, 24)  # mean width and height of the faces of TinyFace and QMUL-SurvFace, pixels
# SCface by distance: width of the face, and size of the picture around it; our choice, within what is reported
SCENES = {1: (20, (100, 75)), 2: (38, (144, 108)), 3: (60, (224, 168))}
POINTS = np.array([(0.32, 0.45), (0.68, 0.45), (0.5, 0.62), (0.5, 0.78)])  # eyes, nose, mouth in an ORL picture, by eye
Name = Callable[[int, int], str]  # of (person, photograph)
OFFSET = 100  # person 1 of the surveillance set is 101 in its file names and 1 in its lists


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder that appears complete or not at all; UserError if there is already something."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UserError(f"{path}: is already there; choose a new folder.")
    with atomic_folder(path) as folder:
        yield folder


@lru_cache(maxsize=400)
def face(person: int, photograph: int) -> Image.Image:
    """ORL photograph, person 1 ... 40 and photograph 1 ... 10: RGB, 92 x 112."""
    name = f"s{person}/{photograph}.pgm"
    return read_image(orl.Photographs().read(name), name)


def jpeg(image: Image.Image) -> bytes:
    """Encoded as JPEG."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=95)
    return file.getvalue()


def small(person: int, photograph: int, size: tuple[int, int]) -> bytes:
    """JPEG of a photograph reduced to (width, height), antialiased."""
    return jpeg(face(person, photograph).resize(size, Image.Resampling.BICUBIC))


def aligned(person: int, photograph: int) -> bytes:
    """JPEG of 112 x 112 pixels: the crop that ORL faces get where no landmarks are found."""
    side = (insightface_bin.SIDE, insightface_bin.SIDE)
    return jpeg(face(person, photograph).crop(orl.FALLBACK).resize(side, Image.Resampling.BICUBIC))


def write(path: Path, data: bytes) -> str:
    """Write a new file, its folder too; returns its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path.name


def write_list(path: Path, **columns: list) -> None:
    """A .mat file of version 5: cell arrays of names, one or two columns, and columns of numbers.

    Its first 116 bytes are for people to read; the library puts the time of writing there, which would differ.
    """
    import scipy.io  # here, because only these lists need it

    types = {key: np.uint16 if isinstance(rows[0], int) else object for key, rows in columns.items()}
    arrays = {key: np.array(rows, types[key]).reshape(len(rows), -1) for key, rows in columns.items()}
    file = io.BytesIO()
    scipy.io.savemat(file, arrays, do_compression=True)
    path.write_bytes(b"MATLAB 5.0 MAT-file, a miniature".ljust(116) + file.getvalue()[116:])


def write_role(folder: Path, name: Name, size: tuple[int, int], people: range, photographs: Iterable[int]) -> tuple:
    """Some photographs of some people under names of (person, photograph): the names, and who each shows."""
    entries = [(person, n) for person in people for n in photographs]
    return [write(folder / name(*e), small(*e, size)) for e in entries], [person for person, _ in entries]


def write_tinyface(folder: Path) -> None:
    """TinyFace: 8 people with 2 gallery images and 3 probes, 40 distractors of 8 others, 8 training people of 4 images.

    Training people are numbered from 1 again, so that file names occur in several roles, as in the real set.
    """

    def name(person: int, n: int) -> str:
        return f"{person}_{n}.jpg"

    with new_folder(folder) as new:
        test, training = (new / tinyface.NAME / part for part in (tinyface.TEST, tinyface.TRAINING))
        names, ids = write_role(test / "Gallery_Match", name, TINY, range(1, 9), (1, 2))
        write_list(test / "gallery_match_img_ID_pairs.mat", gallery_set=names, gallery_ids=ids)
        names, ids = write_role(test / "Probe", name, TINY, range(1, 9), (3, 4, 5))
        write_list(test / "probe_img_ID_pairs.mat", probe_set=names, probe_ids=ids)
        for i in range(40):
            write(test / "Gallery_Distractor" / f"{i + 1}.jpg", small(9 + i // 5, 1 + i % 5, TINY))
        for person in range(1, 9):
            for n in range(1, 5):
                write(training / str(person) / name(person, n), small(person + 16, n, TINY))


def write_survface(folder: Path) -> None:
    """QMUL-SurvFace: 7 people with 3 gallery images and 2 mated probes, 4 others with 5 unmated probes, 6 probes of 2
    more without a number; 20 positive and 20 negative pairs; 8 training people of 4 images.
    """

    def name(person: int, n: int) -> str:
        return f"{OFFSET + person}_cam{n % 3 + 1}_{n}.jpg"

    with new_folder(folder) as new:
        parts = (survface.SEARCH, survface.PAIRED, survface.TRAINING)
        search, paired, training = (new / survface.NAME / part for part in parts)
        for role, photographs in (("gallery", (1, 2, 3)), ("mated_probe", (4, 5))):
            names, ids = write_role(search / role, name, SURVEILLANCE, range(1, 8), photographs)
            write_list(search / f"{role}_img_ID_pairs.mat", **{f"{role}_set": names, f"{role}_ids": ids})
        write_role(search / "unmated_probe", name, SURVEILLANCE, range(8, 12), range(1, 6))
        for i in range(6):
            write(search / "unmated_probe" / f"distractors_{i + 1}.jpg", small(12 + i // 3, 1 + i % 3, SURVEILLANCE))
        write_role(paired / "verification_images", name, SURVEILLANCE, range(1, 11), range(1, 6))
        for kind, step in (("positive", 0), ("negative", 1)):
            pairs = [(p, n, (p + step - 1) % 10 + 1) for p in range(1, 11) for n in (1, 2)]
            names = [(name(p, n), name(other, n + 2)) for p, n, other in pairs]
            write_list(paired / f"{kind}_pairs_names.mat", **{f"{kind}_pairs_names": names})
        for person in range(17, 25):
            write_role(training / str(OFFSET + person), name, SURVEILLANCE, range(person, person + 1), range(1, 5))


def write_scface(folder: Path) -> None:
    """SCface: 9 subjects, a mugshot, five cameras at three distances, an infrared one, landmarks at nominal places."""
    lines = ["# name, eyes, nose, mouth"]

    def annotate(name: str, corner: tuple[int, int], size: tuple[int, int]) -> None:
        points = np.round(np.array(corner) + POINTS * size, 1).ravel()
        lines.append(" ".join([name, *(f"{value:.1f}" for value in points)]))

    with new_folder(folder) as new:
        root = new / scface.NAME
        for subject in range(1, 10):
            mugshot = face(subject, 1)
            write(root / scface.MUGSHOTS[0] / f"{subject:03d}_frontal.JPG", jpeg(mugshot))
            annotate(f"{subject:03d}_frontal", (0, 0), mugshot.size)
            for distance, (width, scene) in SCENES.items():
                for camera in (*scface.CAMERAS, 6):
                    picture = face(subject, 1 + camera)
                    size = (width, round(width * picture.height / picture.width))
                    corner = ((scene[0] - size[0]) // 2, (scene[1] - size[1]) // 2)
                    canvas = Image.new("RGB", scene, (96, 96, 96))
                    canvas.paste(picture.resize(size, Image.Resampling.BICUBIC), corner)
                    name = f"{subject:03d}_cam{camera}_{distance}"
                    write(root / scface.BY_DISTANCE.format(distance) / f"cam_{camera}" / f"{name}.jpg", jpeg(canvas))
                    annotate(name, corner, size)
        write(root / scface.ANNOTATIONS, ("\n".join(lines) + "\n").encode())


def write_bin(path: Path) -> None:
    """A verification set: ten folds of four people each, with four pairs of one person and four of two."""
    images, same = [], []
    for first in range(1, 41, 4):
        people = range(first, first + 4)
        positive = [((person, 1), (person, 2)) for person in people]
        negative = [((person, 3), (first + (person - first + 1) % 4, 4)) for person in people]
        images += [aligned(*photograph) for pair in positive + negative for photograph in pair]
        same += [True] * len(positive) + [False] * len(negative)
    with atomic_file(path) as temporary:
        temporary.write_bytes(pickle.dumps((images, same), protocol=4))


def pack(data: bytes) -> bytes:
    """A record: magic number, flag, length, contents, padding; in parts where the contents have such a number."""
    cuts = [i for i in range(0, len(data) - 3, 4) if data[i : i + 4] == recordio.MAGIC]
    starts, stops = [0, *(cut + 4 for cut in cuts)], [*cuts, len(data)]
    packed = b""
    for start, stop in zip(starts, stops, strict=True):
        flag = recordio.MIDDLE if start and stop < len(data) else recordio.END if start else recordio.START
        head = struct.pack("<I", (flag if cuts else recordio.WHOLE) << 29 | stop - start)
        packed += recordio.MAGIC + head + data[start:stop] + bytes(-(stop - start) % 4)
    return packed


def labelled(labels: list[float], key: int, data: bytes = b"") -> bytes:
    """The contents of a record: header with one label, or with several behind it, then data."""
    more = struct.pack(f"<{len(labels)}f", *labels) if len(labels) > 1 else b""
    return recordio.HEADER.pack(len(labels) if more else 0, 0 if more else labels[0], key, 0) + more + data


def write_records(folder: Path, people: int, photographs: int) -> None:
    """A training set in RecordIO: the first people and photographs of ORL, 112 x 112; persons' records at the end."""
    keys = [(person, n) for person in range(people) for n in range(1, photographs + 1)]
    first = len(keys) + 1  # key of the first person's record
    contents = [labelled([first, first + people], 0)]
    contents += [labelled([person], key, aligned(person + 1, n)) for key, (person, n) in enumerate(keys, start=1)]
    for person in range(people):
        contents.append(labelled([1 + person * photographs, 1 + (person + 1) * photographs], first + person))
    records = [pack(data) for data in contents]
    offsets = np.cumsum([0, *map(len, records)])
    with new_folder(folder) as new:
        write(new / recordio.RECORD, b"".join(records))
        lines = [f"{key}\t{offset}\n" for key, offset in enumerate(offsets[:-1])]
        write(new / recordio.INDEX, "".join(lines).encode())
        write(new / recordio.PROPERTY, f"{people},{insightface_bin.SIDE},{insightface_bin.SIDE}\n".encode())
