"""Benchmark sets in miniature, made of the ORL faces, with the folders, names, lists and formats of the real ones.

For tests, and for a look at a protocol without licensed data. Who is who is known by construction (`s3` of ORL is
person 3 here), so that every score can be checked by hand. The same bytes on every run: nothing is random. The numbers
of people and images are our choice, small and all different; sizes of faces are those that the sets' authors name.
"""

import io
import pickle
import struct
from itertools import product
from pathlib import Path

import numpy as np
from PIL import Image

from lrfr.benchmarks import scface, survface, tinyface
from lrfr.errors import UserError
from lrfr.files import atomic_file, atomic_folder
from lrfr.gate import insightface_bin, recordio
from lrfr.gate.images import read_image
from lrfr.sources import orl

ALIGNED = (insightface_bin.SIDE, insightface_bin.SIDE)
TINY, SURVEILLANCE = (16, 20), (20, 24)  # mean width and height of the faces of TinyFace and QMUL-SurvFace, pixels
# SCface by distance: width of the face, and size of the picture around it; our choice, within what is reported
SCENES = {1: (20, (100, 75)), 2: (38, (144, 108)), 3: (60, (224, 168))}
POINTS = np.array([(0.32, 0.45), (0.68, 0.45), (0.5, 0.62), (0.5, 0.78)])  # eyes, nose, mouth in an ORL picture, by eye
TINYFACE = (  # names of images, first and last person, first and last photograph of each, list: see `role_files`
    ("Testing_Set/Gallery_Match/{p}_{n}.jpg", (1, 8), (1, 2), "gallery"),
    ("Testing_Set/Probe/{p}_{n}.jpg", (1, 8), (3, 5), "probe"),
    ("Testing_Set/Gallery_Distractor/{k}.jpg", (9, 16), (1, 5), None),
    ("Training_Set/{q}/{q}_{n}.jpg", (17, 24), (1, 4), None),
)
SURVFACE = (  # person 1 of the surveillance set is 101 in its file names and 1 in its lists
    ("Face_Identification_Test_Set/gallery/1{p:02d}_cam{c}_{n}.jpg", (1, 7), (1, 3), "gallery"),
    ("Face_Identification_Test_Set/mated_probe/1{p:02d}_cam{c}_{n}.jpg", (1, 7), (4, 5), "mated_probe"),
    ("Face_Identification_Test_Set/unmated_probe/1{p:02d}_cam{c}_{n}.jpg", (8, 11), (1, 5), None),
    ("Face_Identification_Test_Set/unmated_probe/distractors_{k}.jpg", (12, 13), (1, 3), None),
    ("Face_Verification_Test_Set/verification_images/1{p:02d}_cam{c}_{n}.jpg", (1, 10), (1, 5), None),
    ("training_set/1{p:02d}/1{p:02d}_cam{c}_{n}.jpg", (17, 24), (1, 4), None),
)


def write_set(folder: Path, files: dict[str, bytes]) -> None:
    """A folder of files that appears complete or not at all; UserError if there is already something."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: is already there; choose a new folder.")
    with atomic_folder(folder) as new:
        for name, data in files.items():
            (new / name).parent.mkdir(parents=True, exist_ok=True)
            (new / name).write_bytes(data)


def photograph(person: int, number: int, size=ALIGNED, crop=orl.FALLBACK, scene=None) -> bytes:
    """JPEG of ORL's person 1 ... 40, photograph 1 ... 10, at (width, height), in the middle of a grey scene."""
    name, scene = f"s{person}/{number}.pgm", scene or size
    face = read_image(orl.Photographs().read(name), name).crop(crop).resize(size, Image.Resampling.BICUBIC)
    picture = Image.new("RGB", scene, (96, 96, 96))
    picture.paste(face, ((scene[0] - size[0]) // 2, (scene[1] - size[1]) // 2))
    picture.save(file := io.BytesIO(), "JPEG", quality=95)
    return file.getvalue()


def matlab_list(**columns: list) -> bytes:
    """A .mat file of version 5: cell arrays of names, one or two columns, and columns of numbers."""
    import scipy.io  # here, because only these lists need it

    types = {key: np.uint16 if isinstance(rows[0], int) else object for key, rows in columns.items()}
    arrays = {key: np.array(rows, types[key]).reshape(len(rows), -1) for key, rows in columns.items()}
    scipy.io.savemat(file := io.BytesIO(), arrays, do_compression=True)
    # the first 116 bytes are for people to read; the library puts the time there, which would differ
    return b"MATLAB 5.0 MAT-file, a miniature".ljust(116) + file.getvalue()[116:]


def role_files(root: str, size: tuple[int, int], roles: tuple[tuple, ...]) -> dict[str, bytes]:
    """Files of rows (pattern, people, photographs, name of the list beside the folder or None), as in `TINYFACE`.

    In a pattern p is the person, q the same counted from 1, n the photograph, c its camera, k a running number.
    """
    files: dict[str, bytes] = {}
    for pattern, (first, last), (start, stop), kind in roles:
        part, folder, _ = pattern.split("/")
        shown = list(product(range(first, last + 1), range(start, stop + 1)))
        names = [pattern.format(p=p, q=p - first + 1, n=n, c=n % 3 + 1, k=k) for k, (p, n) in enumerate(shown, 1)]
        files |= {f"{root}/{name}": photograph(p, n, size, None) for name, (p, n) in zip(names, shown, strict=True)}
        if kind:
            columns: dict[str, list] = {f"{kind}_set": [Path(name).name for name in names]}
            columns[f"{kind}_ids"] = [p for p, _ in shown]
            files[f"{root}/{part}/{folder.lower()}_img_ID_pairs.mat"] = matlab_list(**columns)
    return files


def write_tinyface(folder: Path) -> None:
    """TinyFace: 8 people with 2 gallery images and 3 probes, 40 distractors of 8 others, 8 training people of 4 images,
    numbered from 1 again, so that file names occur in several roles, as in the real set.
    """
    write_set(folder, role_files(tinyface.NAME, TINY, TINYFACE))


def write_survface(folder: Path) -> None:
    """QMUL-SurvFace: 7 people with 3 gallery images and 2 mated probes, 4 others with 5 unmated probes, 6 probes of 2
    more without a number; 20 positive and 20 negative pairs; 8 training people of 4 images.
    """
    files = role_files(survface.NAME, SURVEILLANCE, SURVFACE)
    for kind, step in (("positive", 0), ("negative", 1)):
        people = [(p, (p + step - 1) % 10 + 1) for p in range(1, 11)]
        shown = [((a, n), (b, n + 2)) for a, b in people for n in (1, 2)]
        pairs = [[f"1{p:02d}_cam{n % 3 + 1}_{n}.jpg" for p, n in pair] for pair in shown]
        name = f"{kind}_pairs_names"
        files[f"{survface.NAME}/{survface.PAIRED}/{name}.mat"] = matlab_list(**{name: pairs})
    write_set(folder, files)


def write_scface(folder: Path) -> None:
    """SCface: 9 subjects, a mugshot, five cameras at three distances, an infrared one, landmarks at nominal places."""
    whole = (92, 112)  # of an ORL photograph
    pictures = [(f"{scface.MUGSHOTS[0]}/{{:03d}}_frontal.JPG", 1, whole, whole)]  # name, photograph, face, scene
    for (distance, (width, scene)), camera in product(SCENES.items(), (*scface.CAMERAS, 6)):
        name = f"{scface.BY_DISTANCE.format(distance)}/cam_{camera}/{{:03d}}_cam{camera}_{distance}.jpg"
        pictures.append((name, 1 + camera, (width, round(width * whole[1] / whole[0])), scene))
    files, lines = {}, ["# name, eyes, nose, mouth\n"]
    for subject, (pattern, number, size, scene) in product(range(1, 10), pictures):
        name = pattern.format(subject)
        files[f"{scface.NAME}/{name}"] = photograph(subject, number, size, None, scene)
        points = np.round((np.array(scene) - size) // 2 + POINTS * size, 1).ravel()
        lines.append(" ".join([Path(name).stem, *(f"{value:.1f}" for value in points)]) + "\n")
    write_set(folder, files | {f"{scface.NAME}/{scface.ANNOTATIONS}": "".join(lines).encode()})


def write_bin(path: Path) -> None:
    """A verification set: ten folds of four people each, with four pairs of one person and four of two."""
    images = []
    for first in range(1, 41, 4):
        people = range(first, first + 4)
        shown = [(person, n) for person in people for n in (1, 2)]
        shown += [one for person in people for one in ((person, 3), (first + (person - first + 1) % 4, 4))]
        images += [photograph(*one) for one in shown]
    with atomic_file(path) as temporary:
        temporary.write_bytes(pickle.dumps((images, ([True] * 4 + [False] * 4) * 10), protocol=4))


def pack(data: bytes) -> bytes:
    """A record: magic number, flag, length, contents, padding; in parts where the contents have such a number."""
    cuts = [i for i in range(0, len(data) - 3, 4) if data[i : i + 4] == recordio.MAGIC]
    parts = [data[start:stop] for start, stop in zip([0, *(cut + 4 for cut in cuts)], [*cuts, len(data)], strict=True)]
    flags = [recordio.START, *[recordio.MIDDLE] * (len(cuts) - 1), recordio.END] if cuts else [recordio.WHOLE]
    heads = [struct.pack("<I", flag << 29 | len(part)) for flag, part in zip(flags, parts, strict=True)]
    return b"".join(
        recordio.MAGIC + head + part + bytes(-len(part) % 4) for head, part in zip(heads, parts, strict=True)
    )


def labelled(labels: list[float], key: int, data: bytes = b"") -> bytes:
    """The contents of a record: header with one label, or with several behind it, then data."""
    if len(labels) == 1:
        return recordio.HEADER.pack(0, labels[0], key, 0) + data
    return recordio.HEADER.pack(len(labels), 0, key, 0) + struct.pack(f"<{len(labels)}f", *labels) + data


def write_records(folder: Path, people: int, photographs: int) -> None:
    """A training set in RecordIO: the first people and photographs of ORL, 112 x 112; persons' records at the end."""
    images = [photograph(person + 1, n + 1) for person, n in product(range(people), range(photographs))]
    first = len(images) + 1  # key of the first person's record
    contents = [labelled([first, first + people], 0)]
    contents += [labelled([i // photographs], i + 1, data) for i, data in enumerate(images)]
    contents += [labelled([1 + i * photographs, 1 + (i + 1) * photographs], first + i) for i in range(people)]
    records = [pack(data) for data in contents]
    offsets = np.cumsum([0, *map(len, records)])[:-1]
    index = "".join(f"{key}\t{offset}\n" for key, offset in enumerate(offsets)).encode()
    shape = f"{people},{ALIGNED[0]},{ALIGNED[1]}\n".encode()
    write_set(folder, {recordio.RECORD: b"".join(records), recordio.INDEX: index, recordio.PROPERTY: shape})
