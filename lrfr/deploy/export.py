"""The `export` stage: the student that was ranked first as ONNX, in float32 and with 8-bit weights, and its card.

The files go to runs/<study>/export; tables/export.csv compares equal error rates: of faces of the first fold's test
people in protocol `dense`, both at the same resolution. The graphs get them as an application would, r x r pixels and
never enlarged outside of the graph; torch gets the study's views. (The verb `export` is `lrfr.deploy.export_student`.)
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from lrfr.config import Study
from lrfr.data.align import CHIP, PADDING, TEMPLATE
from lrfr.data.degrade import area, hr_view
from lrfr.deploy import onnx_graph
from lrfr.deploy.cards import Model
from lrfr.deploy.recognizer import released_student
from lrfr.deploy.release import card, chosen, confirmed_lock, sha256, write_card
from lrfr.evaluate.verification import equal_error_rate
from lrfr.formats import markdown, write_table
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
RESIZE = "inside: bicubic enlargement where a side is below `size`, else area averaging; rounded to whole grey levels"
GEOMETRY = (
    "a chip as of lrfr.data.align: a similarity transform takes the five points (eye centres, nose tip, mouth corners; "
    "MTCNN's) to `template`, in pixels of a chip of `chip` pixels; other sides in proportion"
)


def run(study: Study) -> None:
    model, table = export(study, None, study.runs / "export")
    write_table(study.reports / "tables", "export", table, page(model, table))


def export(study: Study, model: str | None, folder: Path) -> tuple[str, pd.DataFrame]:
    """Write one trained model's two graphs and, last, their card; returns the model's name and the comparison.

    model: a key of `models`, or None for the one that was ranked first. Raises UserError if the extra `export` is not
    installed, or the model or its results are not there, or are not those that dvc.lock knows.
    """
    onnx_graph.check_packages()
    limit_threads(study.threads)
    lock = confirmed_lock(study)
    model = model or chosen(study)
    released = card(study, model, lock)
    student, fold = load_student(study, model, released["fold"], released["seed"]), read_fold(study, released["fold"])
    files = [folder / f"{released['name']}{end}.onnx" for end in ("", "-int8")]
    onnx_graph.export_onnx(student, study.views.size, files[0])
    onnx_graph.quantise(*files, calibration_faces(study, fold))
    table = parity(study, student, fold.number, files)
    measured = table.drop(columns=["bytes_float", "bytes_int8"]).to_dict("records")
    write_card(folder / f"{released['name']}.json", {**describe(released, files), "exported": measured})
    print(f"Exported: {', '.join(file.as_posix() for file in files)}.")
    return model, table


def write_released(model: Model, folder: Path) -> None:
    """Write a released student's float32 graph and its card: 8-bit weights need training faces."""
    onnx_graph.check_packages()
    file = folder / f"{model.path.stem}.onnx"
    onnx_graph.export_onnx(released_student(model), model.card["input"]["size"], file)
    write_card(file.with_suffix(".json"), describe(model.card, [file]))
    print(f"Exported: {file.as_posix()}.")


def calibration_faces(study: Study, fold: Fold) -> np.ndarray:
    """Views uint8 (n, S, S, 3) of training people's photographs, at resolutions drawn evenly from all that there
    are."""
    rng = stream("calibration", study.seed, fold.number)
    images = np.sort(rng.permutation(fold.images)[:CALIBRATION])
    return fold.views[images, rng.integers(0, fold.views.shape[1], len(images))]


def parity(study: Study, student: StudentNet, number: int, files: list[Path]) -> pd.DataFrame:
    """tables/export.csv: a row per resolution.

    distance: the largest 1 - cosine between torch's and another's embedding of a face. shift: the largest change of a
    test pair's cosine, which is what a threshold meets.
    """
    fold = build_fold(study, number, draws=0)
    chips = np.load(study.runs / "chips.npy", mmap_mode="r")[fold.rows.images[fold.test]]
    found, rows = embeddings(study, student, files, chips), []
    for name in study.resolutions:
        x = {runtime: found[runtime, name] for runtime in RUNTIMES}
        scores = {runtime: fold.test_pairs.scores(similarity(v, v)) for runtime, v in x.items()}
        eer = {runtime: equal_error_rate(values, fold.test_pairs.same) for runtime, values in scores.items()}
        cosine = {runtime: 1 - distance**2 / 2 for runtime, distance in scores.items()}  # of unit vectors
        row: dict[str, object] = {"resolution": name} | {f"eer_{runtime}": eer[runtime] for runtime in RUNTIMES}
        row |= {f"diff_{runtime}": eer[runtime] - eer["torch"] for runtime in RUNTIMES[1:]}
        furthest = {runtime: 1 - float((x["torch"] * x[runtime]).sum(1).min()) for runtime in RUNTIMES[1:]}
        row |= {f"distance_{runtime}": float(f"{max(far, 0):.1e}") for runtime, far in furthest.items()}
        shift = {runtime: float(np.abs(cosine[runtime] - cosine["torch"]).max()) for runtime in RUNTIMES[1:]}
        rows.append(row | {f"shift_{runtime}": float(f"{far:.1e}") for runtime, far in shift.items()})
    sizes = {f"bytes_{runtime}": file.stat().st_size for runtime, file in zip(RUNTIMES[1:], files, strict=True)}
    return pd.DataFrame(rows).assign(**sizes)


def embeddings(
    study: Study, student: StudentNet, files: list[Path], chips: np.ndarray
) -> dict[tuple[str, str], np.ndarray]:
    """Unit vectors float64 (n, D) of chips uint8 (n, 150, 150, 3), by runtime and resolution. files: float32, int8."""
    sessions = [onnx_graph.session(file, study.threads) for file in files]
    parts: dict[tuple[str, str], list[np.ndarray]] = {(r, name): [] for name in study.resolutions for r in RUNTIMES}
    for start in bar(range(0, len(chips), BATCH), "exported students"):
        batch = torch.from_numpy(chips[start : start + BATCH])
        for name in study.resolutions:
            faces = (batch if name == "hr" else area(batch, int(name))).numpy()
            found = [embed_views(student, hr_view(faces, study.views.size))]
            found += [onnx_graph.embed(session, faces) for session in sessions]
            for runtime, embedding in zip(RUNTIMES, found, strict=True):
                parts[runtime, name].append(unit(embedding))
    return {key: np.concatenate(arrays) for key, arrays in parts.items()}


def page(name: str, table: pd.DataFrame) -> str:
    """export.csv for people."""
    per_cent = [c for c in table.columns if c.startswith(("eer", "diff"))]
    shown = table.drop(columns=["bytes_float", "bytes_int8"]).astype(object)
    shown[per_cent] = table[per_cent].map(lambda value: f"{round(100 * value, 2) + 0.0:.2f}")  # never "-0.00"
    large, small = (int(table[f"bytes_{runtime}"].iloc[0]) for runtime in RUNTIMES[1:])
    return (
        f"# The exported student `{name}`\n\nEqual error rates in per cent of the first fold's test people, protocol "
        "`dense`, both faces at the same resolution: in torch, as ONNX in float32, as ONNX with 8-bit weights; "
        "differences are to torch. `distance` is the largest 1 - cosine between torch's embedding of a face and the "
        "exported student's, `shift` the largest change of a pair's cosine: a pair nearer than that to a threshold may "
        f"be decided otherwise.\n\n{markdown(shown)}\n"
        f"Files: {large} bytes in float32, {small} with 8-bit weights ({100 * small / large:.1f} %).\n"
    )


def describe(released: dict[str, Any], files: list[Path]) -> dict[str, Any]:
    """The card of a release, with what is particular to exported files: float32, then 8-bit weights if there are
    any."""
    shape = ["batch", released["network"]["embedding"]]
    face = {"name": onnx_graph.FACES, "type": "uint8", "shape": ["batch", "height", "width", 3], "colours": "RGB"}
    geometry = {"alignment": GEOMETRY, "chip": CHIP, "padding": PADDING, "template": TEMPLATE.round(2).tolist()}
    rows = []
    for kind, file in zip(("float32", "int8"), files, strict=False):
        digest = sha256(file.read_bytes())
        rows.append({"file": file.name, "weights": kind, "bytes": file.stat().st_size, "sha256": digest})
    return {
        **released,
        "input": {**released["input"], **face, "resize": RESIZE, **geometry},
        "output": {"name": onnx_graph.EMBEDDINGS, "type": "float32", "shape": shape, "length": 1},
        "files": rows,
    }
