"""Stage `detect`: five landmarks per photograph with MTCNN.

Zhang et al., "Joint face detection and alignment using multitask cascaded convolutional networks", 2016, as implemented
in facenet-pytorch with the weights in its wheel.
"""

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd
from facenet_pytorch import MTCNN
from PIL import Image

from lrfr.config import Study
from lrfr.data.align import COLUMNS, POINTS
from lrfr.data.photographs import Source, read_all, read_faces
from lrfr.files import write_table
from lrfr.gate.images import read_image
from lrfr.parallel import parallel_map

CHUNK = 20  # photographs per task: small enough to share evenly, large enough not to count the loading of the weights


def detector() -> MTCNN:
    """MTCNN on the CPU with the package's thresholds; it keeps every face, since we choose by position, not by size."""
    return MTCNN(keep_all=True, device="cpu")


def landmarks(mtcnn: MTCNN, image: Image.Image, enlarge: int, border: int) -> tuple[int, float, np.ndarray] | None:
    """Five points of the face nearest to the centre of a photograph.

    The photograph gets `border` replicated pixels on each side and is enlarged `enlarge` times before detection.
    Returns (number of faces, probability, points) or None if there is no face. Points: float64 (5, 2), x and y in
    pixels of the photograph, centres at integers, rounded to 0.1: left and right eye (as seen in the image), nose,
    mouth corners.
    """
    pixels = np.pad(np.asarray(image), ((border, border), (border, border), (0, 0)), mode="edge")
    bordered = Image.fromarray(pixels)
    larger = bordered.resize((bordered.width * enlarge, bordered.height * enlarge), Image.Resampling.BICUBIC)
    boxes, probabilities, points = mtcnn.detect(larger, landmarks=True)
    if boxes is None:
        return None
    boxes, points = boxes.astype(np.float64), points.astype(np.float64)  # the package returns arrays of objects
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    nearest = int(np.argmin(np.linalg.norm(centres - np.array(larger.size) / 2, axis=1)))
    original = (points[nearest] + 0.5) / enlarge - 0.5 - border
    return len(boxes), float(probabilities[nearest]), np.round(original, 1)


def detect_chunk(images: list[tuple[int, str, bytes]], enlarge: int, border: int) -> list[list]:
    """Rows of landmarks.csv for some images: (image, name, bytes)."""
    mtcnn, rows = detector(), []
    for image, name, data in images:
        face = landmarks(mtcnn, read_image(data, name), enlarge, border)
        if face is None:
            rows.append([image, 0, np.nan, 0, *[np.nan] * len(POINTS)])
        else:
            faces, probability, points = face
            rows.append([image, 1, round(probability, 4), faces, *points.ravel()])
    return rows


def aligned(images: Iterable[int], points: np.ndarray) -> list[list]:
    """Rows of landmarks.csv for faces that are aligned: one each, at the same points (5, 2); nothing was detected."""
    return [[image, 1, np.nan, 1, *points.ravel()] for image in images]


def detected(study: Study, source: Source, faces: pd.DataFrame) -> list[list]:
    """Rows of landmarks.csv by the detector, in processes."""
    images = list(zip(faces["image"], faces["name"], read_all(source.open(), faces), strict=True))
    options = source.enlarge, source.border
    tasks = [(images[first : first + CHUNK], *options) for first in range(0, len(images), CHUNK)]
    return [row for rows in parallel_map(detect_chunk, tasks, study.jobs, study.threads, "detect") for row in rows]


def run(study: Study, sources: Mapping[str, Source]) -> None:
    """Write landmarks.csv: image, found, probability, faces, x1, y1 ... x5, y5 (empty where no face was found).

    Every photograph of a source is checked against the manifest's sha256 before any is looked at. Photographs of a
    source of aligned faces are not looked at: where the points are is known.
    """
    faces, rows = read_faces(study, sources), []
    for name, source in sources.items():
        own, points = faces[faces["set"] == name], source.points
        rows += detected(study, source, own) if points is None else aligned(own["image"], points)
    write_table(study.reports / "landmarks.csv", pd.DataFrame(rows, columns=COLUMNS), "%.10g")
