"""The `distill` stage: one call trains all folds and seeds of one model.

Torch's global generator is used for initialisation only; what an image looks like is a function of (seed, epoch, image), so an
interrupted training resumes bit for bit.
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pandas as pd
from torch import Tensor

from lrfr.config import Study
from lrfr.files import atomic_folder
from lrfr.parallel import parallel_map
from lrfr.parameters import Model
from lrfr.progress import bar
from lrfr.train.checkpoint import load_state, resume_folder, save_state, save_tensors
from lrfr.train.fold import read_fold
from lrfr.train.trainer import Trainer

SAVE_EVERY = 5  # epochs between resumable states
VALIDATE_EVERY = 5  # epochs between measurements of the validation people's EER,
VALIDATED = (8, 12, 16)  # at these pixels: where students are to be better than their teacher
EARLY = 0.4  # progress at which gradients are measured a second time: every method's warm-up is over


def read_hashes(study: Study, number: int) -> dict[str, str]:
    """Path -> sha256 of everything that the training of one fold reads."""
    shared = [study.runs / name for name in ("index.csv", "folds.csv", "views.npy")]
    own = [
        path
        for kind in ("teacher", "targets")
        for path in (study.runs / kind / f"fold{number}").rglob("*")
        if path.is_file()
    ]

    def digest(path: Path) -> str:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    return {path.as_posix(): digest(path) for path in (*shared, *sorted(own))}


def resume_key(
    study: Study, model: Model, number: int, seed: int, code: str, files: dict[str, str]
) -> dict[str, object]:
    """Everything that shapes one training: parameters, code, and what it reads of faces, teachers and targets."""
    settings = study.model_dump(
        mode="json", include={"views", "student", "train", "teacher", "seed", "threads", "accelerator"}
    )
    return {"model": model.model_dump(), "fold": number, "draw": seed, "code": code, "files": files, **settings}


def train_one(
    study: Study, model: Model, number: int, seed: int, key: dict[str, object], folder: Path, heads: Path
) -> tuple[list[tuple], list[tuple]]:
    """Train one student of one fold and seed, from its last saved state if there is one; return its log and gradient ratios.

    The student goes to `folder` in float16, as it is released and tested; class weights and the method's own state to `heads`.
    """
    trainer = Trainer(study, model, read_fold(study, number), seed)
    state = resume_folder(key)
    modules = {"student": trainer.student.module, "head": trainer.head, "method": trainer.method}
    start = {"epoch": 0, "log": [(number, seed, *row) for row in trainer.source.log], "gradients": []}
    progress = load_state(state, modules, trainer.optimizer) or start
    epochs = study.train.epochs
    measured = {0: "start", min(round(EARLY * epochs), epochs - 1): "early", epochs - 1: "end"}
    for epoch in bar(range(progress["epoch"], epochs), f"fold {number} seed {seed}"):
        means, ratios = trainer.epoch(epoch, measure=epoch in measured)
        progress["log"] += [(number, seed, epoch, term, value) for term, value in means.items()]
        progress["gradients"] += [
            (number, seed, measured[epoch], (epoch + 1) / epochs, t, s, r) for t, (s, r) in ratios.items()
        ]
        if (epoch + 1) % VALIDATE_EVERY == 0 or epoch + 1 == epochs:
            for resolution in VALIDATED:
                error = trainer.validation_error(resolution)
                progress["log"].append((number, seed, epoch, f"validation_eer_{resolution}", error))
        progress["epoch"] = epoch + 1
        if (epoch + 1) % SAVE_EVERY == 0 and epoch + 1 < epochs:
            save_state(state, modules, trainer.optimizer, progress)
    name = f"fold{number}-seed{seed}.safetensors"
    save_tensors(folder / name, halved(trainer.student.module.state_dict()))
    method = {f"method.{k}": t for k, t in trainer.method.state_dict().items()}
    save_tensors(heads / name, trainer.head.state_dict() | method)
    shutil.rmtree(state, ignore_errors=True)  # done: a forced rerun starts from the beginning
    return progress["log"], progress["gradients"]


def halved(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Floating-point tensors as float16, which halves the files in git; whole numbers as they are."""
    return {name: t.half() if t.is_floating_point() else t for name, t in state.items()}


def run(study: Study, name: str) -> None:
    """The `distill` stage of one model: all its folds and seeds."""
    model = study.models[name]
    code = (study.runs / "code" / f"distill-{name}.txt").read_text(encoding="utf-8")
    threads = model.tuned.threads if model.tuned else study.threads
    with (
        atomic_folder(study.reports / "students" / name) as folder,
        atomic_folder(study.runs / "heads" / name) as heads,
    ):
        tasks = []
        for number in study.folds_of(name):
            files = read_hashes(study, number)
            for seed in study.train.seeds:
                key = resume_key(study, model, number, seed, code, files)
                tasks.append((study, model, number, seed, key, folder, heads))
        outcomes = parallel_map(train_one, tasks, study.jobs, threads, name)
        write = {"float_format": "%.6g", "index": False, "lineterminator": "\n"}
        logs = [row for log, _ in outcomes for row in log]
        pd.DataFrame(logs, columns=["fold", "seed", "epoch", "term", "value"]).to_csv(folder / "log.csv", **write)
        columns = ["fold", "seed", "when", "progress", "term", "stage", "ratio"]
        rows = [row for _, gradients in outcomes for row in gradients]
        pd.DataFrame(rows, columns=columns).to_csv(folder / "gradients.csv", **write)
