"""`lrfr embed DIR --out FILE`: the faces of a folder's photographs as a table of unit vectors."""

from __future__ import annotations

import argparse
import csv
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from lrfr.deploy.cards import find_model
from lrfr.deploy.find_faces import Found, find_all
from lrfr.deploy.recognizer import Recognizer
from lrfr.deploy.verbs import cores
from lrfr.errors import UserError
from lrfr.files import atomic_file
from lrfr.gate.images import list_photographs
from lrfr.parallel import limit_threads

BOX = ("left", "top", "right", "bottom")
Table = dict[str, list]  # columns of one length; missing values are None


def table(found: list[Found], folder: Path, all_faces: bool) -> tuple[Table, list[np.ndarray]]:
    """A row per face, and one for every photograph without any, with the reason; and the faces in the order of their rows.

    Columns: name (below the folder, with slashes), face (1, 2, ... by size; 0 = none), left, top, right, bottom (pixels of the
    photograph), pixels (side of the aligned face), probability (of the detection), problem (None, or a sentence).
    """
    columns: Table = {name: [] for name in ("name", "face", *BOX, "pixels", "probability", "problem")}
    images = []
    for one in found:
        faces = one.faces if all_faces else one.faces[:1]
        name = one.path.relative_to(folder).as_posix()
        rows = [
            (name, k, *(face.box or [None] * 4), face.pixels, face.probability, None) for k, face in enumerate(faces, 1)
        ]
        for row in rows or [(name, 0, *[None] * 6, one.problem)]:
            for values, value in zip(columns.values(), row, strict=True):
                values.append(value)
        images += [face.image for face in faces]
    return columns, images


def write_csv(path: Path, columns: Table, embedding: np.ndarray) -> None:
    """Embeddings as columns e0, e1, ...; missing values are empty fields."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*columns, *(f"e{k}" for k in range(embedding.shape[1]))])
        for row, vector in zip(zip(*columns.values(), strict=True), embedding, strict=True):
            writer.writerow(
                [*row, *("" if np.isnan(value) else f"{value:.9g}" for value in vector)]
            )  # 9 digits keep a float32


def write_npz(path: Path, columns: Table, embedding: np.ndarray) -> None:
    """One array per column and `embedding` (rows, D); missing numbers are NaN (pixels: 0), missing sentences empty. No pickle."""
    kinds = {"name": str, "face": np.int64, "pixels": np.int64, "problem": str}
    empty = {str: "", np.int64: 0, np.float64: np.nan}
    arrays = {}
    for name, values in columns.items():
        kind = kinds.get(name, np.float64)
        arrays[name] = np.array([empty[kind] if value is None else value for value in values], dtype=kind)
    with path.open("wb") as file:
        np.savez(file, **arrays, embedding=embedding)


def write_parquet(path: Path, columns: Table, embedding: np.ndarray) -> None:
    """Embeddings as one column of lists of float32; missing values are nulls."""
    import pyarrow
    from pyarrow import parquet

    vectors = [None if np.isnan(vector).any() else vector for vector in embedding]
    lists = pyarrow.array(vectors, pyarrow.list_(pyarrow.float32(), embedding.shape[1]))
    kinds = {"name": pyarrow.string(), "face": pyarrow.int64(), "pixels": pyarrow.int64(), "problem": pyarrow.string()}
    arrays = {name: pyarrow.array(values, kinds.get(name, pyarrow.float64())) for name, values in columns.items()}
    parquet.write_table(pyarrow.table({**arrays, "embedding": lists}), path)


WRITERS: dict[str, Callable[[Path, Table, np.ndarray], None]] = {
    ".parquet": write_parquet,
    ".csv": write_csv,
    ".npz": write_npz,
}


def check_out(path: Path | None) -> Path:
    """UserError for a table that could not be written, before any work is done."""
    if path is None or path.suffix not in WRITERS:
        raise UserError(f"--out {path or ''}: name a file that ends in {', '.join(WRITERS)}.")
    if path.is_dir():
        raise UserError(f"--out {path}: is a folder; name a file in it.")
    if not path.absolute().parent.is_dir():
        raise UserError(f"--out {path}: its folder does not exist; make it first.")
    if not os.access(path.absolute().parent, os.W_OK):
        raise UserError(f"--out {path}: its folder may not be written to; name another one.")
    if path.suffix == ".parquet":
        try:
            import pyarrow  # noqa: F401
        except ModuleNotFoundError:
            raise UserError(
                f"--out {path}: needs the package pyarrow; install the extra `export`, or write .csv."
            ) from None
    return path


def embed(arguments: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Write the table; returns its summary for programs and for people."""
    out = check_out(arguments.out)
    if arguments.folder is None:
        raise UserError("embed --out: give the folder with the photographs too, `lrfr embed DIR --out FILE`.")
    model = find_model(arguments.model)
    paths = list_photographs(arguments.folder)
    # in processes, before this one computes anything with torch
    found = find_all(paths, model.card["input"]["size"], arguments.aligned, cores())
    columns, images = table(found, arguments.folder, arguments.all_faces)
    limit_threads(cores())
    vectors = Recognizer(model).embed(images)
    embedding = np.full((len(columns["face"]), vectors.shape[1]), np.nan, np.float32)
    embedding[np.array(columns["face"]) > 0] = vectors
    try:
        with atomic_file(out) as temporary:
            WRITERS[out.suffix](temporary, columns, embedding)
    except OSError as error:
        raise UserError(f"--out {out}: cannot be written ({error.strerror or error}).") from None
    problems = [one.problem for one in found if one.problem]
    answer = {
        "out": str(out),
        "photographs": len(found),
        "faces": len(images),
        "problems": problems,
        "model": model.card["name"],
    }
    lines = [f"{out}: {len(images)} faces of {len(found)} photographs; {len(problems)} without one.", *problems]
    return answer, "\n".join(lines)
