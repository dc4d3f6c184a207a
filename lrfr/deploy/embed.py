"""`lrfr embed DIR --out FILE`: the faces of a folder's photographs as a table of unit vectors."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lrfr.deploy.verify import add_common
from lrfr.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

    from lrfr.deploy.find_faces import Found

NUMBERS = dict.fromkeys(("left", "top", "right", "bottom", "probability"), "float64") | {"pixels": "Int64"}
COLUMNS = ["name", "face", "left", "top", "right", "bottom", "pixels", "probability", "problem"]


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, nargs="?", metavar="DIR", help="a folder with photographs")
    parser.add_argument("--out", type=Path, help="the table to be written: .parquet, .csv or .npz")
    parser.add_argument("--all-faces", action="store_true", help="every face of a photograph, not the largest only")
    add_common(parser)


def run(arguments: argparse.Namespace) -> int:
    """Write the table and print its summary; UserError for what cannot be read or written."""
    from lrfr.deploy.cards import find_model
    from lrfr.deploy.find_faces import find_all
    from lrfr.deploy.recognizer import Recognizer
    from lrfr.files import atomic_file
    from lrfr.gate.images import list_photographs
    from lrfr.parallel import cores, limit_threads

    out = check_out(arguments.out)
    if arguments.folder is None:
        raise UserError("embed --out: give the folder with the photographs too, `lrfr embed DIR --out FILE`.")
    model = find_model(arguments.model)
    paths = list_photographs(arguments.folder)
    # in processes, before this one computes anything with torch
    found = find_all(paths, model.card["input"]["size"], arguments.aligned, cores())
    frame, images = table(found, arguments.folder, arguments.all_faces)
    limit_threads(cores())
    vectors = Recognizer(model).embed(images)
    embedding = np.full((len(frame), vectors.shape[1]), np.nan, np.float32)
    embedding[frame.face > 0] = vectors
    try:
        with atomic_file(out) as temporary:
            WRITERS[out.suffix](temporary, frame, embedding)
    except OSError as error:
        raise UserError(f"--out {out}: cannot be written ({error.strerror or error}).") from None
    problems = [one.problem for one in found if one.problem]
    answer = {"out": str(out), "photographs": len(found), "faces": len(images), "problems": problems}
    lines = [f"{out}: {len(images)} faces of {len(found)} photographs; {len(problems)} without one.", *problems]
    print(json.dumps({**answer, "model": model.card["name"]}) if arguments.json else "\n".join(lines))
    return 0


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
            advice = "needs the package pyarrow; install the extra `export`, or write .csv."
            raise UserError(f"--out {path}: {advice}") from None
    return path


def table(found: list[Found], folder: Path, all_faces: bool) -> tuple[pd.DataFrame, list[np.ndarray]]:
    """A row per face, and one for every photograph without any, with the reason; and the faces in the rows' order.

    Columns: name (below the folder, with slashes), face (1, 2, ... by size; 0 = none), left, top, right, bottom (pixels
    of the photograph), pixels (side of the aligned face), probability (of the detection), problem (none, or a
    sentence).
    """
    import pandas as pd

    rows, images = [], []
    for one in found:
        name, faces = one.path.relative_to(folder).as_posix(), one.faces if all_faces else one.faces[:1]
        for k, face in enumerate(faces, 1):
            rows.append((name, k, *(face.box or [None] * 4), face.pixels, face.probability, None))
        if not faces:
            rows.append((name, 0, *[None] * 6, one.problem))
        images += [face.image for face in faces]
    return pd.DataFrame(rows, columns=COLUMNS).astype(NUMBERS), images


def write_csv(path: Path, frame: pd.DataFrame, embedding: np.ndarray) -> None:
    """Embeddings as columns e0, e1, ... with the digits that keep a float32; missing values are empty fields."""
    names = [f"e{k}" for k in range(embedding.shape[1])]
    frame.join(type(frame)(embedding, columns=names)).to_csv(path, index=False, lineterminator="\n")


def write_npz(path: Path, frame: pd.DataFrame, embedding: np.ndarray) -> None:
    """One array per column and `embedding` (rows, D); missing numbers are NaN (pixels: 0), sentences empty. No
    pickle."""
    whole = frame.assign(pixels=frame.pixels.fillna(0).astype(int), problem=frame.problem.fillna("").astype(object))
    text = {name: np.array(whole[name].tolist(), str) for name in ("name", "problem")}
    np.savez(path, **{name: column.to_numpy() for name, column in whole.items()} | text, embedding=embedding)


def write_parquet(path: Path, frame: pd.DataFrame, embedding: np.ndarray) -> None:
    """Embeddings as one column of lists of float32; missing values are nulls."""
    import pyarrow
    from pyarrow import parquet

    vectors = [None if np.isnan(vector).any() else vector for vector in embedding]
    lists = pyarrow.array(vectors, pyarrow.list_(pyarrow.float32(), embedding.shape[1]))
    whole = pyarrow.Table.from_pandas(frame, preserve_index=False).append_column("embedding", lists)
    parquet.write_table(whole, path)


WRITERS = {".parquet": write_parquet, ".csv": write_csv, ".npz": write_npz}
