"""The `export` stage: the student that was ranked first as ONNX, in float32 and with 8-bit weights, and its card.

The files go to runs/<study>/export, the comparison of equal error rates to tables/export.csv. The graphs get faces as
an application would, r x r pixels and never enlarged outside of the graph; torch gets the study's views.
"""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from lrfr.config import Study
from lrfr.data.align import CHIP, PADDING, TEMPLATE
from lrfr.data.degrade import area, hr_view
from lrfr.deploy import onnx_graph
from lrfr.deploy.release import WORDS, card, ranking, write_card
from lrfr.evaluate.verification import equal_error_rate
from lrfr.formats import markdown, render, write_table
from lrfr.models.student import StudentNet
from lrfr.parallel import limit_threads
from lrfr.progress import bar
from lrfr.protocol.cells import similarity, unit
from lrfr.protocol.embed import embed_views, load_student
from lrfr.protocol.folds import build_fold
from lrfr.streams import stream
from lrfr.train.fold import Fold, read_fold

CALIBRATION = 300  # faces: our choice; onnxruntime's documentation advises a few hundred
BATCH = 50  # faces at once in the comparison; no influence on the numbers beyond float sums
RUNTIMES = ("torch", "float", "int8")


def run(study: Study) -> None:
    model, table = export(study, None, study.runs / "export")
    shown, sizes = table.drop(columns=["bytes_float", "bytes_int8"]).astype(object), table.iloc[0]
    per_cent = [c for c in shown.columns if c.startswith(("eer", "diff"))]
    shown[per_cent] = table[per_cent].map(lambda value: f"{round(100 * value, 2) + 0.0:.2f}")  # never "-0.00"
    page = render("export.md.j2", model=model, table=markdown(shown), large=sizes.bytes_float, small=sizes.bytes_int8)
    write_table(study.reports / "tables", "export", table, page)


def export(study: Study, model: str | None, folder: Path) -> tuple[str, pd.DataFrame]:
    """Write one trained model's two graphs and, last, their card; returns the model's name and the comparison.

    model: a key of `models`, or None for the one that was ranked first. Raises UserError if the extra `export` is not
    installed, or the model or its results are not there, or are not those that dvc.lock knows.
    """
    onnx_graph.extra(*onnx_graph.PACKAGES)  # better before the work than after it
    limit_threads(study.threads)
    model = model or ranking(study).candidate[0]
    released = card(study, model)
    student, fold = load_student(study, model, released["fold"], released["seed"]), read_fold(study, released["fold"])
    files = [folder / f"{released['name']}{end}.onnx" for end in ("", "-int8")]
    onnx_graph.export_onnx(student, study.views.size, files[0])
    onnx_graph.quantise(*files, calibration_faces(study, fold))
    table = parity(study, student, fold.number, files)
    measured = table.drop(columns=["bytes_float", "bytes_int8"]).to_dict("records")
    finish({**released, "exported": measured}, files)
    return model, table


def finish(released: dict[str, Any], files: list[Path]) -> None:
    """Write the card of exported files (float32, then 8-bit weights if there are any), and say where they are.

    released: the card of the student, to which is added what is particular to the files.
    """
    face = {"name": onnx_graph.FACES, "type": "uint8", "shape": ["batch", "height", "width", 3], "colours": "RGB"}
    face |= {key: WORDS[key] for key in ("resize", "alignment")}
    face |= {"chip": CHIP, "padding": PADDING, "template": TEMPLATE.round(2).tolist()}
    output = {"name": onnx_graph.EMBEDDINGS, "type": "float32", "shape": ["batch", released["network"]["embedding"]]}
    exported = {"input": {**released["input"], **face}, "output": {**output, "length": 1}, "files": []}
    for file, kind in zip(files, ("float32", "int8"), strict=False):
        data = file.read_bytes()
        row = {"file": file.name, "weights": kind, "bytes": len(data), "sha256": sha256(data).hexdigest()}
        exported["files"].append(row)
    write_card(files[0].with_suffix(".json"), {**released, **exported})
    print(f"Exported: {', '.join(file.as_posix() for file in files)}.")


def calibration_faces(study: Study, fold: Fold) -> np.ndarray:
    """Views uint8 (n, S, S, 3) of training people's photographs, at resolutions drawn evenly from all."""
    rng = stream("calibration", study.seed, fold.number)
    images = np.sort(rng.permutation(fold.images)[:CALIBRATION])
    return fold.views[images, rng.integers(0, fold.views.shape[1], len(images))]


def parity(study: Study, student: StudentNet, number: int, files: list[Path]) -> pd.DataFrame:
    """tables/export.csv: a row per resolution. files: float32, int8.

    distance: the largest 1 - cosine between torch's and another's embedding of a face. shift: the largest change of a
    test pair's cosine, which is what a threshold meets.
    """
    fold = build_fold(study, number, draws=0)
    chips = np.load(study.runs / "chips.npy", mmap_mode="r")[fold.rows.images[fold.test]]
    sessions, table = [onnx_graph.session(file, study.threads) for file in files], []
    for name in bar(study.resolutions, "exported students"):
        parts = []
        for start in range(0, len(chips), BATCH):
            batch = torch.from_numpy(chips[start : start + BATCH])
            faces = (batch if name == "hr" else area(batch, int(name))).numpy()
            own = embed_views(student, hr_view(faces, study.views.size))
            parts.append([unit(x) for x in (own, *(onnx_graph.embed(session, faces) for session in sessions))])
        x = [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]
        scores = [fold.test_pairs.scores(similarity(v, v)) for v in x]
        cosine = [1 - distance**2 / 2 for distance in scores]  # of unit vectors
        error = [equal_error_rate(distances, fold.test_pairs.same) for distances in scores]
        columns = {
            "eer": error,
            "diff": [value - error[0] for value in error],
            "distance": [float(f"{max(1 - float((x[0] * v).sum(1).min()), 0):.1e}") for v in x],
            "shift": [float(f"{np.abs(c - cosine[0]).max():.1e}") for c in cosine],
            "bytes": [0, *(file.stat().st_size for file in files)],
        }
        rows = {f"{what}_{r}": value for what, values in columns.items() for r, value in zip(RUNTIMES, values)}
        table.append({"resolution": name, **rows})
    return pd.DataFrame(table).drop(columns=[f"{what}_torch" for what in columns if what != "eer"])
