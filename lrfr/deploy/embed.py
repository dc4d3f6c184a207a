"""`lrfr embed DIR --out FILE`: the faces of a folder's photographs as a table of unit vectors.

A row per face, and one for every photograph without any. Columns: name (below the folder, with slashes), face (1, 2,
... by size; 0 = none), left, top, right, bottom (pixels of the photograph), pixels (side of the aligned face),
probability (of the detection), problem (why there is no face, or nothing), and the embedding: in Parquet one column of
lists of float32, in CSV the columns e0, e1, ... with the digits that keep a float32. What is missing is null or empty.
"""

import argparse
import os
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from lrfr.deploy.verify import add_common, prepared, tell
from lrfr.errors import UserError
from lrfr.files import atomic_file
from lrfr.parallel import cores, limit_threads

NUMBERS = dict.fromkeys(("left", "top", "right", "bottom", "probability"), "float64") | {"pixels": "Int64"}
COLUMNS = ["name", "face", "left", "top", "right", "bottom", "pixels", "probability", "problem"]


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="DIR", help="a folder with photographs")
    parser.add_argument("--out", type=Path, required=True, help="the table to be written: .parquet or .csv")
    parser.add_argument("--all-faces", action="store_true", help="every face of a photograph, not the largest only")
    add_common(parser)


def run(arguments: argparse.Namespace) -> int:
    """Write the table and print its summary; UserError, before any work, for what cannot be read or written."""
    out = arguments.out
    if out.suffix not in (".parquet", ".csv"):
        raise UserError(f"--out {out}: name a file that ends in .parquet or .csv.")
    if out.is_dir() or not os.access(out.absolute().parent, os.W_OK):
        raise UserError(f"--out {out}: is a folder, or its folder does not exist or may not be written to.")
    if out.suffix == ".parquet" and find_spec("pyarrow") is None:
        raise UserError(f"--out {out}: needs the package pyarrow; install the extra `export`, or write .csv.")
    recognizer, _, found = prepared(arguments, folder=arguments.folder)
    import pandas as pd  # not before the processes were forked: it brings threads

    rows, images = [], []
    for one in found:
        name, faces = one.path.relative_to(arguments.folder).as_posix(), one.faces[: None if arguments.all_faces else 1]
        rows += [(name, k, *(f.box or [None] * 4), f.pixels, f.probability, None) for k, f in enumerate(faces, 1)]
        rows += [] if faces else [(name, 0, *[None] * 6, one.problem)]
        images += [face.image for face in faces]
    frame = pd.DataFrame(rows, columns=COLUMNS).astype(NUMBERS)
    limit_threads(cores())
    vectors = recognizer.embed(images)
    embedding = np.full((len(frame), vectors.shape[1]), np.nan, np.float32)
    embedding[frame.face > 0] = vectors
    try:
        with atomic_file(out) as temporary:
            if out.suffix == ".parquet":
                vectors = [None if np.isnan(vector).any() else vector for vector in embedding]
                frame.assign(embedding=vectors).to_parquet(temporary, index=False)
            else:
                names = [f"e{k}" for k in range(embedding.shape[1])]
                frame.join(pd.DataFrame(embedding, columns=names)).to_csv(temporary, index=False, lineterminator="\n")
    except OSError as error:
        raise UserError(f"--out {out}: cannot be written ({error.strerror or error}).") from None
    problems = [one.problem for one in found if one.problem]
    answer = {"out": str(out), "photographs": len(found), "faces": len(images), "problems": problems}
    lines = [f"{out}: {len(images)} faces of {len(found)} photographs; {len(problems)} without one.", *problems]
    return tell(arguments, {**answer, "model": recognizer.card["name"]}, lines)
