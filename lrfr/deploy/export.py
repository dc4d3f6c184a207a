"""`lrfr export`: a student as ONNX, in float32 and with 8-bit weights, beside a card that says what it is and what it measured.

Without options it is the study's `export` stage, for the model that the validation people ranked first: the files go to
runs/<study>/export, and tables/export.csv compares equal error rates. With `--out` any model's files go anywhere. A released
student is exported from its own file, in float32: 8-bit weights need training faces, and a comparison test faces.

Compared are faces of the first fold's test people in protocol `dense`, both at the same resolution. The graphs get them as an
application would, r x r pixels large and never enlarged outside of the graph; torch gets the study's views.
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
from lrfr.deploy.cards import find_model
from lrfr.deploy.recognizer import released_student
from lrfr.deploy.release import card, chosen, confirmed_lock, sha256, weights_of, write_card
from lrfr.errors import UserError
from lrfr.evaluate.scores import similarity, unit
from lrfr.evaluate.verification import equal_error_rate
from lrfr.formats import markdown, read_table
from lrfr.models.student import StudentNet
from lrfr.parallel import limit_threads
from lrfr.progress import bar
from lrfr.protocol.embed import embed_views, load_student
from lrfr.protocol.folds import build_fold
from lrfr.report.tables import write_table
from lrfr.train.fold import Fold, read_fold

CALIBRATION = 300  # faces: our choice; onnxruntime's documentation advises a few hundred
STREAM = 8 << 32  # of the counter-based generator; every use of the seed has its own
BATCH = 50  # faces at once in the comparison; no influence on the numbers beyond float sums
RUNTIMES = ("torch", "float", "int8")
RESIZE = "inside: bicubic enlargement where a side is below `size`, else area averaging; rounded to whole grey levels"
GEOMETRY = (
    "a chip as of lrfr.data.align: a similarity transform takes the five points (eye centres, nose tip, mouth corners; MTCNN's) "
    "to `template`, in pixels of a chip of `chip` pixels; other sides in proportion"
)


def calibration_faces(study: Study, fold: Fold) -> np.ndarray:
    """Views uint8 (n, S, S, 3) of photographs of training people, at resolutions drawn evenly from all that there are."""
    rng = np.random.Generator(np.random.Philox(key=[study.seed, STREAM + fold.number]))
    images = np.sort(rng.permutation(fold.images)[:CALIBRATION])
    return fold.views[images, rng.integers(0, fold.views.shape[1], len(images))]


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
            found = [
                embed_views(student, hr_view(faces, study.views.size)),
                *(onnx_graph.embed(s, faces) for s in sessions),
            ]
            for runtime, embedding in zip(RUNTIMES, found, strict=True):
                parts[runtime, name].append(unit(embedding))
    return {key: np.concatenate(arrays) for key, arrays in parts.items()}


def parity(study: Study, student: StudentNet, number: int, files: list[Path]) -> pd.DataFrame:
    """tables/export.csv: a row per resolution.

    distance: the largest 1 - cosine between torch's and another's embedding of a face. shift: the largest change of a test pair's
    cosine, which is what a threshold meets.
    """
    fold = build_fold(study, number, draws=0)
    chips = np.load(study.runs / "chips.npy", mmap_mode="r")[fold.rows.images[fold.test]]
    found, rows = embeddings(study, student, files, chips), []
    for name in study.resolutions:
        x = {runtime: found[runtime, name] for runtime in RUNTIMES}
        scores = {runtime: fold.test_pairs.scores(similarity(v, v)) for runtime, v in x.items()}
        eer = {runtime: equal_error_rate(values, fold.test_pairs.same) for runtime, values in scores.items()}
        cosine = {
            runtime: 1 - values**2 / 2 for runtime, values in scores.items()
        }  # of unit vectors at that L2 distance
        row: dict[str, object] = {"resolution": name} | {f"eer_{runtime}": eer[runtime] for runtime in RUNTIMES}
        row |= {f"diff_{runtime}": eer[runtime] - eer["torch"] for runtime in RUNTIMES[1:]}
        furthest = {runtime: 1 - float((x["torch"] * x[runtime]).sum(1).min()) for runtime in RUNTIMES[1:]}
        row |= {f"distance_{runtime}": float(f"{max(far, 0):.1e}") for runtime, far in furthest.items()}
        shift = {runtime: float(np.abs(cosine[runtime] - cosine["torch"]).max()) for runtime in RUNTIMES[1:]}
        rows.append(row | {f"shift_{runtime}": float(f"{far:.1e}") for runtime, far in shift.items()})
    sizes = {f"bytes_{runtime}": file.stat().st_size for runtime, file in zip(RUNTIMES[1:], files, strict=True)}
    return pd.DataFrame(rows).assign(**sizes)


def page(name: str, table: pd.DataFrame) -> str:
    """export.csv for people."""
    per_cent = [c for c in table.columns if c.startswith(("eer", "diff"))]
    shown = table.drop(columns=["bytes_float", "bytes_int8"]).astype(object)
    shown[per_cent] = table[per_cent].map(lambda value: f"{round(100 * value, 2) + 0.0:.2f}")  # never "-0.00"
    large, small = (int(table[f"bytes_{runtime}"].iloc[0]) for runtime in RUNTIMES[1:])
    return (
        f"# The exported student `{name}`\n\nEqual error rates in per cent of the first fold's test people, protocol `dense`, "
        "both faces at the same resolution: in torch, as ONNX in float32, as ONNX with 8-bit weights; differences are to torch. "
        "`distance` is the largest 1 - cosine between torch's embedding of a face and the exported student's, `shift` the largest "
        "change of a pair's cosine: a pair nearer than that to a threshold may be decided otherwise.\n\n"
        f"{markdown(shown)}\nFiles: {large} bytes in float32, {small} with 8-bit weights ({100 * small / large:.1f} %).\n"
    )


def describe(released: dict[str, Any], files: list[Path]) -> dict[str, Any]:
    """The card of a release, with what is particular to exported files: float32, and 8-bit weights if there is a second."""
    vector = {
        "name": onnx_graph.EMBEDDINGS,
        "type": "float32",
        "shape": ["batch", released["network"]["embedding"]],
        "length": 1,
    }
    face = {"name": onnx_graph.FACES, "type": "uint8", "shape": ["batch", "height", "width", 3], "colours": "RGB"}
    geometry = {"alignment": GEOMETRY, "chip": CHIP, "padding": PADDING, "template": TEMPLATE.round(2).tolist()}
    kinds = zip(("float32", "int8"), files, strict=False)
    return {
        **released,
        "input": {**released["input"], **face, "resize": RESIZE, **geometry},
        "output": vector,
        "files": [
            {"file": file.name, "weights": kind, "bytes": file.stat().st_size, "sha256": sha256(file.read_bytes())}
            for kind, file in kinds
        ],
    }


def export(study: Study, model: str, folder: Path, lock: dict[str, tuple[str, dict[str, Any]]]) -> pd.DataFrame:
    """Write one trained model's two graphs and, last, their card; returns the comparison.

    Raises
    ------
    UserError
        if the model or its results are not there, or are not those that dvc.lock knows.
    """
    weights = weights_of(study, model)
    released = card(study, model, weights, lock)
    student, fold = load_student(study, model, released["fold"], released["seed"]), read_fold(study, released["fold"])
    files = [folder / f"{released['name']}{end}.onnx" for end in ("", "-int8")]
    onnx_graph.export_onnx(student, study.views.size, files[0])
    onnx_graph.quantise(*files, calibration_faces(study, fold))
    table = parity(study, student, fold.number, files)
    measured = table.drop(columns=["bytes_float", "bytes_int8"]).to_dict("records")
    write_card(folder / f"{released['name']}.json", {**describe(released, files), "exported": measured})
    print(f"Exported: {', '.join(file.as_posix() for file in files)}.")
    return table


def export_released(path: Path, folder: Path) -> None:
    """Write a released student's float32 graph and its card. UserError if model or card is damaged or missing."""
    model = find_model(path)
    student, file = released_student(model), folder / f"{model.path.stem}.onnx"
    onnx_graph.export_onnx(student, model.card["input"]["size"], file)
    write_card(file.with_suffix(".json"), describe(model.card, [file]))
    print(f"Exported: {file.as_posix()}.")


def run(study: Study, model: str | None = None, out: Path | None = None) -> None:
    """The `export` stage, or, with `out`, the verb.

    model: a key of `models`, the .safetensors file of a released student, or None for the model that was ranked first.

    Raises
    ------
    UserError
        if the extra `export` is not installed, or like `export`.
    """
    if model is not None and out is None:
        raise UserError(
            "--model: say with --out DIR where to; the study's own export is of the model that was ranked first."
        )
    if out is not None and out.exists() and not out.is_dir():
        raise UserError(f"--out {out}: is not a folder; name one.")
    for package in onnx_graph.PACKAGES:
        onnx_graph.extra(package)
    limit_threads(study.threads)
    if model is not None and model.endswith(".safetensors"):
        return export_released(Path(model), out)
    lock, tables = confirmed_lock(study), study.reports / "tables"
    model = model or chosen(read_table(tables / "tuning.csv"))
    table = export(study, model, out or study.runs / "export", lock)
    if out is None:
        write_table(tables, "export", table, page(model, table))
