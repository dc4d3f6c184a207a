"""SCface: 130 people, five surveillance cameras at three distances and a mugshot each, brought by the user.

Grgic, Delac and Grgic, "SCface - surveillance cameras face database", Multimedia Tools and Applications 51, 2011. A release
form signed by staff of an institution is needed. Names are subject_camera_distance; distance 1 is the farthest (4.20 m), then
2.60 m and 1.00 m. Cameras 6 to 8 are infrared and not read. The files:

    mugshot_frontal_cropped_all/001_frontal.JPG            or mugshot_frontal_original_all
    surveillance_cameras_distance_1/cam_1/001_cam1_1.jpg   or all of them in surveillance_cameras_all
    scface_annotations.txt                                 where present: eyes, nose and mouth
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lrfr.errors import UserError
from lrfr.gate.images import read_regular
from lrfr.gate.trees import Count, Faces, entries, images_in

NAME = "SCface_database"
MUGSHOTS = ("mugshot_frontal_cropped_all", "mugshot_frontal_original_all")
ALL, BY_DISTANCE = "surveillance_cameras_all", "surveillance_cameras_distance_{}"
ANNOTATIONS = "scface_annotations.txt"
CAMERAS, DISTANCES = (1, 2, 3, 4, 5), (1, 2, 3)
SUBJECTS = 130
ANNOTATION_BYTES = 1 << 22  # our choice; 4,160 lines of about 60 bytes are known
MUGSHOT, SHOT = re.compile(r"(\d{3})_frontal\.jpe?g", re.I), re.compile(r"(\d{3})_cam([1-8])(?:_([123]))?\.jpe?g", re.I)


class SCface(NamedTuple):
    """One mugshot a subject, and the probes by distance: {1: far, 2: middle, 3: near}. ids are the subjects' numbers.

    probes: five a subject and distance, by subject, then camera: none may be missing, since the number of probes is the
    denominator. landmarks: name of a file without its suffix -> float64 (4, 2), pixels (x, y): the eye to the left in the image,
    the other eye, nose, mouth; empty where there are no annotations.
    """

    gallery: Faces
    probes: dict[int, Faces]
    landmarks: dict[str, NDArray[np.float64]]
    counts: tuple[Count, ...]


def read_mugshots(root: Path) -> Faces:
    """One mugshot a subject, cropped ones if both are there; UserError for another name or a subject twice."""
    folder = next((root / name for name in MUGSHOTS if (root / name).is_dir()), None)
    if folder is None:
        raise UserError(f"{root}: neither {MUGSHOTS[0]} nor {MUGSHOTS[1]} is there; give the folder with SCface.")
    found: dict[int, str] = {}
    for name in images_in(folder):
        match = MUGSHOT.fullmatch(name)
        if not match:
            raise UserError(
                f"{folder / name}: not a name like 001_frontal.jpg; remove the file or unpack the set again."
            )
        if found.setdefault(int(match[1]), name) != name:
            raise UserError(f"{folder / name}: a second mugshot of subject {match[1]}; remove one.")
    subjects = sorted(found)
    return Faces(folder, tuple(found[subject] for subject in subjects), np.array(subjects, np.int64))


def list_shots(root: Path) -> list[tuple[Path, str]]:
    """(folder, name) of all surveillance images, names with a camera's folder where there is one."""
    if (root / ALL).is_dir():
        return [(root / ALL, name) for name in images_in(root / ALL)]
    shots = []
    for distance in DISTANCES:
        folder = root / BY_DISTANCE.format(distance)
        cameras, files = entries(folder)
        if files or not cameras:
            raise UserError(f"{folder}: not one folder a camera; unpack the set again.")
        shots += [(folder, f"{camera}/{name}") for camera in cameras for name in images_in(folder / camera)]
    return shots


def read_probes(root: Path, subjects: NDArray[np.int64]) -> dict[int, Faces]:
    """Images of cameras 1 to 5 by distance; UserError for another name, a place that contradicts it, or a missing image."""
    found: dict[tuple[int, int, int], tuple[Path, str]] = {}
    for folder, name in list_shots(root):
        match = SHOT.fullmatch(name.rsplit("/", 1)[-1])
        if not match:
            raise UserError(
                f"{folder / name}: not a name like 001_cam1_1.jpg; remove the file or unpack the set again."
            )
        subject, camera, distance = int(match[1]), int(match[2]), int(match[3] or 0)
        if camera not in CAMERAS:
            continue  # infrared
        place = (folder.name[-1], name.split("/")[0].replace("_", ""))
        if folder.name != ALL and place != (str(distance), f"cam{camera}"):
            raise UserError(f"{folder / name}: in the folder of another camera or distance; unpack the set again.")
        if found.setdefault((distance, subject, camera), (folder, name)) != (folder, name):
            raise UserError(f"{folder / name}: a second image of this subject, camera and distance; remove one.")
    probes = {}
    known = set(subjects.tolist())
    for distance, subject, camera in found:
        if subject not in known or distance == 0:
            reason = "has no distance in its name" if distance == 0 else "is of a subject without a mugshot"
            raise UserError(f"{Path(*found[distance, subject, camera])}: {reason}; unpack the set again.")
    for distance in DISTANCES:
        wanted = [(distance, subject, camera) for subject in subjects.tolist() for camera in CAMERAS]
        missing = [key for key in wanted if key not in found]
        if missing:
            name = "{1:03d}_cam{2}_{0}.jpg".format(*missing[0])
            raise UserError(
                f"{root}: {name} and {len(missing) - 1} others of distance {distance} are missing; unpack it again."
            )
        folder = found[wanted[0]][0]
        probes[distance] = Faces(folder, tuple(found[key][1] for key in wanted), np.repeat(subjects, len(CAMERAS)))
    return probes


def read_landmarks(path: Path) -> dict[str, NDArray[np.float64]]:
    """Lines "name x y x y x y x y": eyes, nose, mouth; empty lines and lines with # are left out.

    Nothing depends on which eye comes first, or nose before mouth: eyes are ordered by x, nose and mouth by y. Where a mouth is
    not below both eyes, the columns are others than we think, and the line is refused.
    """
    lines = read_regular(path, ANNOTATION_BYTES).decode("utf-8", "replace").splitlines()
    found: dict[str, NDArray[np.float64]] = {}
    for number, line in enumerate(lines, start=1):
        fields = line.split()
        if not fields or fields[0].startswith("#"):
            continue
        name, reason = Path(fields[0]).stem, None
        if len(fields) != 9 or not all(re.fullmatch(r"\d{1,5}(\.\d{1,6})?", field, re.ASCII) for field in fields[1:]):
            reason = "not a name and eight numbers"
        elif name in found:
            reason = "the name comes twice"
        else:
            points = np.array(fields[1:], np.float64).reshape(4, 2)
            eyes, rest = points[:2], points[2:]
            points = np.concatenate(
                [eyes[np.argsort(eyes[:, 0], kind="stable")], rest[np.argsort(rest[:, 1], kind="stable")]]
            )
            if not points[3, 1] > points[:2, 1].max():
                reason = "the mouth is not below the eyes"
            found[name] = points
        if reason:
            raise UserError(f"{path}, line {number}: {reason}; fetch the annotations again.")
    return found


def read_scface(root: Path) -> SCface:
    """Read the set at a root, the folder with the mugshots or the one that holds SCface_database.

    Raises
    ------
    UserError
        naming the file or line that is wrong, the first missing image, or the image that has no landmarks where others have.
    """
    root = root / NAME if (root / NAME).is_dir() else root
    gallery = read_mugshots(root)
    probes = read_probes(root, gallery.ids)
    landmarks = read_landmarks(root / ANNOTATIONS) if (root / ANNOTATIONS).is_file() else {}
    for faces in (gallery, *probes.values()):
        for name in faces.names if landmarks else ():
            if Path(name).stem not in landmarks:
                raise UserError(f"{root / ANNOTATIONS}: no line for {Path(name).stem}; fetch the annotations again.")
    counts = (
        Count("subjects", len(gallery), SUBJECTS),
        *(Count(f"probes at distance {d}", len(probes[d]), SUBJECTS * len(CAMERAS)) for d in DISTANCES),
        Count("images with landmarks", len(landmarks), None),
    )
    return SCface(gallery, probes, landmarks, counts)
