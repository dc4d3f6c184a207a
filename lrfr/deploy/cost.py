"""Everything that is measured in seconds, in one run on one machine, so that ratios mean something.

No other result of the study reads what this stage writes; times differ from run to run, numbers elsewhere do not.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from pathlib import Path

import pandas as pd
import torch

from lrfr.config import Study
from lrfr.data.draws import epoch_batches
from lrfr.deploy.latency import exported, latency, latency_page
from lrfr.deploy.measure import environment, network_cost, round_off, seconds
from lrfr.deploy.release import chosen
from lrfr.errors import UserError
from lrfr.files import atomic_file
from lrfr.formats import markdown, read_table
from lrfr.models.features import Features
from lrfr.models.student import build_student
from lrfr.models.teachers import TEACHERS
from lrfr.parallel import limit_threads
from lrfr.progress import bar
from lrfr.report.tables import write_table
from lrfr.train.distill import Trainer
from lrfr.train.fold import Fold, read_fold
from lrfr.train.targets import allocate, fill
from lrfr.train.teacher import load_trained
from lrfr.train.trainings import training
from lrfr.train.tuned_teacher import Tuner, validation_error

CACHED = 400  # images from which the cost of caching is estimated
TITLES = {
    "cost": "Cost of every model",
    "schemes": "Cost of whole training schemes",
    "throughput": "Images a second in training",
}


def epoch_costs(study: Study) -> tuple[pd.DataFrame, dict[str, float]]:
    """Seconds of an epoch of every model, interleaved, with cached and with on-line targets; and of the conventional scheme.

    Timed are the first `benchmark.batches` batches of a late epoch, when every term is switched on, and scaled to the whole of
    it. Ratios are medians over rounds of ratios within a round.
    """
    fold = read_fold(study, study.faces.run_folds[0])
    seed, last, most = study.train.seeds[0], study.train.epochs - 1, study.benchmark.batches
    trainers = {
        name: Trainer(training(study, name), fold, seed)
        for name, model in study.models.items()
        if model.teacher != "tuned"
    }
    batches = len(trainers["scratch"].batches(last))
    whole = batches / min(most, batches)
    times: dict[str, list[float]] = {name: [] for name in trainers}
    for trainer in trainers.values():
        trainer.epoch(last, most=most)  # warm-up
    for _ in bar(range(study.benchmark.rounds), "epochs"):
        for name, trainer in trainers.items():
            times[name].append(whole * seconds(trainer.epoch, last, False, most))
    online: dict[str, float] = {}
    for name, trainer in bar(list(trainers.items()), "on-line epochs"):
        if trainer.source.cached is not None:
            trainer.source.cached = None
            online[name] = whole * seconds(trainer.epoch, last, False, most)
    rows = []
    for name, found in times.items():
        ratios = [t / s for t, s in zip(found, times["scratch"], strict=True)]
        reference = statistics.median(times["scratch"])
        rows.append(
            (
                name,
                statistics.median(found),
                statistics.median(ratios),
                online[name] / reference if name in online else float("nan"),
            )
        )
    conventional = trainers["kd"]
    conventional.source.low_resolution = True
    extra = {"kd_lr_online": whole * seconds(conventional.epoch, last, False, most), "kd_online": online["kd"]}
    return pd.DataFrame(rows, columns=["model", "epoch_seconds", "epoch_ratio", "online_epoch_ratio"]), extra


def throughput(study: Study) -> pd.DataFrame:
    """Images a second of the data path alone, of the student's forward and backward pass alone (the limit), and of the loop.

    All of `scratch`, on the same batches, interleaved; medians over rounds. `share` is of the limit.
    """
    fold, last = read_fold(study, study.faces.run_folds[0]), study.train.epochs - 1
    trainer = Trainer(training(study, "scratch"), fold, study.train.seeds[0])
    batches = trainer.batches(last)[: study.benchmark.batches]
    images = sum(len(ids) for ids, _ in batches)
    ready = [trainer.inputs(ids, draw) for ids, draw in batches]
    trainer.student.train()

    def passes() -> None:
        for inputs in ready:
            Features(*trainer.student(inputs)).embedding.square().sum().backward()

    parts = {
        "data path": lambda: [trainer.inputs(ids, draw) for ids, draw in batches],
        "forward and backward": passes,
        "whole loop": lambda: trainer.epoch(last, most=study.benchmark.batches),
    }
    times: dict[str, list[float]] = {name: [] for name in parts}
    for _ in range(study.benchmark.rounds + 1):
        for name, part in parts.items():
            times[name].append(seconds(part))
    rates = {
        name: images / statistics.median(found[1:]) for name, found in times.items()
    }  # the first round is the warm-up
    rows = [(name, rate, rate / rates["forward and backward"]) for name, rate in rates.items()]
    return pd.DataFrame(rows, columns=["part", "images_per_second", "share"])


def conventional_scheme(
    study: Study, tuned: str, fold: Fold, student_seconds: float
) -> tuple[str, int, float, float, float]:
    """The row of the scheme that fine-tunes the teacher: its epochs are what early stopping took in this study's own run."""
    log = pd.read_csv(study.reports / "students" / tuned / "log.csv")
    teacher_epochs = int(log[log.term == "teacher_face"].epoch.max())
    spec, most = study.models[tuned].tuned, study.benchmark.batches
    tuner = Tuner(training(study, tuned), fold)
    batches = len(epoch_batches(study.seed, 1, fold.images, fold.persons, spec.batch, spec.batch // 8))
    tuning = seconds(tuner.epoch, 1, most) * max(1.0, batches / most)
    validating = seconds(validation_error, study.teacher.name, tuner.trained, fold)
    return (
        "teacher tuned on LR, then on line",
        teacher_epochs,
        teacher_epochs * (tuning + validating),
        0.0,
        student_seconds,
    )


def caching_seconds(study: Study, fold: Fold) -> float:
    """Seconds to compute one fold's targets in one process, from a part of them where the fold is large."""
    count = min(len(fold.images), CACHED)
    with tempfile.TemporaryDirectory() as folder:
        names = allocate(study, fold.number, "plain", Path(folder) / "targets")
        return (
            seconds(fill, study, fold.number, "plain", Path(folder) / "targets", names, 0, count)
            * len(fold.images)
            / count
        )


def schemes(study: Study, cost: pd.DataFrame, extra: dict[str, float]) -> pd.DataFrame:
    """Whole training schemes for one fold, from measured epochs times their number; `speedup` is over the first row."""
    fold, epochs = read_fold(study, study.faces.run_folds[0]), study.train.epochs
    caching = caching_seconds(study, fold)
    cached = float(cost.set_index("model").epoch_seconds["kd"])
    rows = [
        ("frozen HR teacher, on line", 0, 0.0, 0.0, epochs * extra["kd_online"]),
        ("frozen HR teacher, cached", 0, 0.0, caching, epochs * cached),
    ]
    tuned = next((name for name, model in study.models.items() if model.tuned), None)
    if tuned is not None:
        rows.insert(0, conventional_scheme(study, tuned, fold, epochs * extra["kd_lr_online"]))
    table = pd.DataFrame(
        rows, columns=["scheme", "teacher_epochs", "teacher_seconds", "targets_seconds", "student_seconds"]
    )
    table["total_seconds"] = table.teacher_seconds + table.targets_seconds + table.student_seconds
    table["speedup"] = table.total_seconds.iloc[0] / table.total_seconds
    return table


def run(study: Study) -> None:
    """The `benchmark` stage."""
    for name in ("scratch", "kd"):
        if name not in study.models:
            raise UserError(f"params.yaml: the benchmark compares with models.{name}; add its block.")
    folder = study.reports / "tables"
    picked = chosen(read_table(folder / "tuning.csv"))
    beside = latency(study, picked, exported(study, picked), read_table(folder / "runs.csv")).map(round_off)
    limit_threads(study.threads)
    spec, size = TEACHERS[study.teacher.name], study.views.size
    face = torch.zeros(1, 3, size, size)
    nets = {
        kind: network_cost(build_student(study.student, kind, size, study.seed), face, study.benchmark.latency_runs)
        for kind in ("plain", "se")
    }
    teacher = load_trained(study, study.faces.run_folds[0], study.teacher.setting).net
    costs = {name: nets[model.student] for name, model in study.models.items()}
    costs["teacher"] = network_cost(teacher, torch.zeros(1, 3, spec.chip, spec.chip), study.benchmark.latency_runs)
    epochs, extra = epoch_costs(study)
    cost = pd.DataFrame(costs).T.rename_axis("model").reset_index().merge(epochs, on="model", how="left")
    cost = cost.astype({"params": int, "macs": int, "bytes": int})
    tables = {"cost": cost, "schemes": schemes(study, epochs, extra), "throughput": throughput(study)}
    for name, frame in tables.items():
        write_table(folder, name, frame.map(round_off), f"# {TITLES[name]}\n\n{markdown(frame.map(round_off))}")
    write_table(folder, "latency", beside, latency_page(beside, picked))
    with atomic_file(study.reports / "environment.json") as file:
        file.write_text(json.dumps(environment(study), indent=1) + "\n", encoding="utf-8")
