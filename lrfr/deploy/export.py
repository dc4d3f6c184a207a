"""The `export` stage: the student that `rank` chose as ONNX, in float32 and with 8-bit weights, and its card.

The graphs (runs/<study>/export) get faces as an application would, r x r pixels, never enlarged outside of the graph;
torch gets the study's views. The comparison of equal error rates is tables/export.csv.
"""

from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from lrfr.config import Study
from lrfr.data.align import CHIP, PADDING, TEMPLATE
from lrfr.data.degrade import area, hr_view, middle
from lrfr.deploy import onnx_graph
from lrfr.deploy.release import WORDS, card, headline_model, write_card
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
    model, table, files = export(study, None, study.runs / "export")
    (large, small), shown = [file.stat().st_size for file in files], table.astype(object)
    per_cent = [c for c in shown.columns if c.startswith(("eer", "diff"))]
    shown[per_cent] = table[per_cent].map(lambda value: f"{round(100 * value, 2) + 0.0:.2f}")  # never "-0.00"
    page = render("export.md.j2", model=model, table=markdown(shown), large=large, small=small)
    write_table(study.reports / "tables", "export", table.assign(bytes_float=large, bytes_int8=small), page)


def export(study: Study, model: str | None, folder: Path) -> tuple[str, pd.DataFrame, list[Path]]:
    """Write one trained model's two graphs and, last, their card; returns its name, the comparison and the graphs.

    model: a key of `models`, or None for the study's `headline_model`. Raises UserError if the extra `export` is not
    installed, or the model or its results are not there, or are not those that dvc.lock knows.
    """
    onnx_graph.extra(*onnx_graph.PACKAGES)  # better before the work than after it
    limit_threads(study.threads)
    model = model or headline_model(study)
    released = card(study, model)
    student, fold = load_student(study, model, released["fold"], released["seed"]), read_fold(study, released["fold"])
    files = [folder / f"{released['name']}{end}.onnx" for end in ("", "-int8")]
    onnx_graph.export_onnx(student, study.views.size, files[0])
    onnx_graph.quantise(*files, calibration_faces(study, fold))
    table = parity(study, student, fold.number, files)
    finish({**released, "exported": table.to_dict("records")}, files)
    return model, table, files


def finish(released: dict[str, Any], files: list[Path]) -> None:
    """Write the card of exported files (float32, then 8 bits if there are any), its student's `released` and more."""
    face = {**WORDS["face"], "chip": CHIP, "padding": PADDING, "template": TEMPLATE.round(2).tolist()}
    output = {"name": onnx_graph.EMBEDDINGS, "type": "float32", "shape": ["batch", released["network"]["embedding"]]}
    rows = []
    for file, kind in zip(files, ("float32", "int8"), strict=False):
        data = file.read_bytes()
        rows.append({"file": file.name, "weights": kind, "bytes": len(data), "sha256": sha256(data).hexdigest()})
    exported = {"input": {**released["input"], **face}, "output": {**output, "length": 1}, "files": rows}
    write_card(files[0].with_suffix(".json"), {**released, **exported})
    print(f"Exported: {', '.join(file.as_posix() for file in files)}.")


def calibration_faces(study: Study, fold: Fold) -> np.ndarray:
    """Views uint8 (n, S, S, 3) of training people's photographs, at resolutions drawn evenly from all."""
    rng = stream("calibration", study.seed, fold.number)
    images = np.sort(rng.permutation(fold.images)[:CALIBRATION])
    bank = fold.views["area"]
    return bank[images, rng.integers(0, bank.shape[1], len(images))]


def parity(study: Study, student: StudentNet, number: int, files: list[Path]) -> pd.DataFrame:
    """tables/export.csv: a row per resolution. files: float32, int8.

    distance: the largest 1 - cosine between torch's and another's embedding of a face. shift: the largest change of a
    test pair's cosine, which is what a threshold meets.
    """
    fold = build_fold(study, number, draws=0)
    chips = middle(np.load(study.runs / "chips.npy", mmap_mode="r")[fold.rows.images[fold.test]], CHIP)
    forward = [lambda faces: embed_views(student, hr_view(faces, study.views.size))]
    forward += [partial(onnx_graph.embed, onnx_graph.session(file, study.threads)) for file in files]
    batches, table = [torch.from_numpy(chips[i : i + BATCH]) for i in range(0, len(chips), BATCH)], []
    others = [*enumerate(RUNTIMES)][1:]
    for name in bar(study.resolutions, "exported students"):
        faces = [(batch if name == "hr" else area(batch, int(name))).numpy() for batch in batches]
        x = [np.concatenate([unit(embed(batch)) for batch in faces]) for embed in forward]
        scores = [fold.test_pairs.scores(similarity(v, v)) for v in x]
        cosine = [1 - distance**2 / 2 for distance in scores]  # of unit vectors
        error = [equal_error_rate(distances, fold.test_pairs.same) for distances in scores]
        row = {"resolution": name, **{f"eer_{runtime}": value for runtime, value in zip(RUNTIMES, error, strict=True)}}
        row |= {f"diff_{runtime}": error[k] - error[0] for k, runtime in others}
        furthest = {runtime: max(1 - float((x[0] * x[k]).sum(1).min()), 0) for k, runtime in others}
        shift = {runtime: np.abs(cosine[k] - cosine[0]).max() for k, runtime in others}
        for what, values in (("distance", furthest), ("shift", shift)):
            row |= {f"{what}_{runtime}": float(f"{value:.1e}") for runtime, value in values.items()}
        table.append(row)
    return pd.DataFrame(table)
