"""The `benchmark` stage: what is measured in seconds, in one run on one machine, so that ratios mean something.

No other result of the study reads what this stage writes; times differ from run to run, numbers elsewhere do not.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import tempfile
from importlib.metadata import distributions, version
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from lrfr.config import Study
from lrfr.data.draws import epoch_batches
from lrfr.deploy.latency import counts, exported, latency, latency_page, seconds
from lrfr.deploy.release import chosen
from lrfr.errors import UserError
from lrfr.files import atomic_file
from lrfr.formats import markdown, read_table, write_table
from lrfr.models.features import Features
from lrfr.models.student import build_student
from lrfr.models.teachers import TEACHERS
from lrfr.parallel import limit_threads
from lrfr.progress import bar
from lrfr.train.distill import Trainer
from lrfr.train.fold import Fold, read_fold
from lrfr.train.targets import allocate, fill
from lrfr.train.teacher import Tuner, load_trained, validation_error
from lrfr.train.trainings import training

CACHED = 400  # images from which the cost of caching is estimated
THROUGHPUT_BATCH = 64  # a common batch for throughput on a CPU
TITLES = {
    "cost": "Cost of every model",
    "schemes": "Cost of whole training schemes",
    "throughput": "Images a second in training",
}
PACKAGES = ("torch", "torchvision", "numpy", "facenet-pytorch", "lightning-fabric", "dvc", "papermill")
OPTIONAL = ("onnxruntime", "dlib", "dlib-bin")  # dlib's wheels have a name of their own
CPUINFO = Path("/proc/cpuinfo")
# Instructions that decide what 8-bit arithmetic is worth, and vectors of floats; names as in /proc/cpuinfo.
X86 = ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16")
ARM = ("asimd", "asimddp", "i8mm", "sve")


def run(study: Study) -> None:
    for name in ("scratch", "kd"):
        if name not in study.models:
            raise UserError(f"params.yaml: the benchmark compares with models.{name}; add its block.")
    folder, picked = study.reports / "tables", chosen(study)
    beside = latency(study, picked, exported(study, picked), read_table(folder / "runs.csv"))
    limit_threads(study.threads)
    networks = network_costs(study)
    epochs, extra = epoch_costs(study)
    cost = networks.merge(epochs, on="model", how="left")
    tables = {"cost": cost, "schemes": schemes(study, epochs, extra), "throughput": throughput(study)}
    pages = {name: f"# {TITLES[name]}\n\n{markdown(table.map(round_off))}" for name, table in tables.items()}
    for name, table in tables.items():
        write_table(folder, name, table.map(round_off), pages[name])
    write_table(folder, "latency", beside.map(round_off), latency_page(beside.map(round_off), picked))
    with atomic_file(study.reports / "environment.json") as file:
        file.write_text(json.dumps(environment(study), indent=1) + "\n", encoding="utf-8")


def round_off(value: object) -> object:
    """Four significant digits: times vary in the second."""
    return float(f"{value:.4g}") if isinstance(value, float) else value


def network_cost(net: nn.Module, inputs: Tensor, runs: int) -> dict[str, float]:
    """`counts`, median latency of one image and throughput in batches. inputs: one image, float (1, 3, S, S)."""
    counted = counts(net, inputs)
    batch = inputs.expand(THROUGHPUT_BATCH, -1, -1, -1).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        net(batch)  # warm-up
        one = statistics.median(seconds(net, inputs) for _ in range(runs))
        many = statistics.median(seconds(net, batch) for _ in range(max(3, runs // 10)))
    return {**counted, "latency_ms": 1000 * one, "throughput": THROUGHPUT_BATCH / many}


def network_costs(study: Study) -> pd.DataFrame:
    """`network_cost` of every model's student and of the teacher."""
    size, chip, runs = study.views.size, TEACHERS[study.teacher.name].chip, study.benchmark.latency_runs
    face = torch.zeros(1, 3, size, size)
    nets = {
        kind: network_cost(build_student(study.student, kind, size, study.seed), face, runs) for kind in ("plain", "se")
    }
    costs = {name: nets[model.student] for name, model in study.models.items()}
    teacher = load_trained(study, study.faces.run_folds[0], study.teacher.setting).net
    costs["teacher"] = network_cost(teacher, torch.zeros(1, 3, chip, chip), runs)
    table = pd.DataFrame(costs).T.rename_axis("model").reset_index()
    return table.astype({"params": int, "macs": int, "bytes": int})


def epoch_costs(study: Study) -> tuple[pd.DataFrame, dict[str, float]]:
    """Seconds of an epoch of every model, interleaved, with cached and on-line targets; and of the conventional scheme.

    Timed are the first `benchmark.batches` batches of a late epoch, when every term is switched on; scaled to the
    whole. Ratios are medians over rounds of ratios within a round.
    """
    fold = read_fold(study, study.faces.run_folds[0])
    seed, last, most = study.train.seeds[0], study.train.epochs - 1, study.benchmark.batches
    trainers = {
        name: Trainer(training(study, name), fold, seed) for name, model in study.models.items() if model.teacher != "tuned"
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
    conventional = trainers["kd"]
    conventional.source.low_resolution = True
    extra = {"kd_lr_online": whole * seconds(conventional.epoch, last, False, most), "kd_online": online["kd"]}
    table = pd.DataFrame(times)  # a row per round
    medians, ratios = table.median(), table.div(table.scratch, axis=0).median()
    columns = {"epoch_seconds": medians, "epoch_ratio": ratios}
    columns["online_epoch_ratio"] = pd.Series(online, medians.index, dtype=float) / medians["scratch"]
    return pd.DataFrame(columns).rename_axis("model").reset_index(), extra


def throughput(study: Study) -> pd.DataFrame:
    """Images a second of the data path, of the student's forward and backward pass (the limit), and of the whole loop.

    All of `scratch`, on the same batches, interleaved; medians over rounds. `share` is of the limit.
    """
    fold, last = read_fold(study, study.faces.run_folds[0]), study.train.epochs - 1
    trainer = Trainer(training(study, "scratch"), fold, study.train.seeds[0])
    batches = trainer.batches(last)[: study.benchmark.batches]
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
    times = [[seconds(part) for part in parts.values()] for _ in range(study.benchmark.rounds + 1)]
    rates = sum(len(ids) for ids, _ in batches) / np.median(times[1:], axis=0)  # the first round is the warm-up
    return pd.DataFrame({"part": [*parts], "images_per_second": rates, "share": rates / rates[1]})


def schemes(study: Study, cost: pd.DataFrame, extra: dict[str, float]) -> pd.DataFrame:
    """Whole training schemes for one fold, from measured epochs times their number; `speedup` is over the first row."""
    fold, epochs = read_fold(study, study.faces.run_folds[0]), study.train.epochs
    cached = float(cost.set_index("model").epoch_seconds["kd"])
    rows = [
        ("frozen HR teacher, on line", 0, 0.0, 0.0, epochs * extra["kd_online"]),
        ("frozen HR teacher, cached", 0, 0.0, caching_seconds(study, fold), epochs * cached),
    ]
    for tuned in [name for name, model in study.models.items() if model.tuned][:1]:
        number, teacher = teacher_seconds(study, tuned, fold)
        rows.insert(0, ("teacher tuned on LR, then on line", number, teacher, 0.0, epochs * extra["kd_lr_online"]))
    columns = ["scheme", "teacher_epochs", "teacher_seconds", "targets_seconds", "student_seconds"]
    table = pd.DataFrame(rows, columns=columns)
    table["total_seconds"] = table.teacher_seconds + table.targets_seconds + table.student_seconds
    table["speedup"] = table.total_seconds.iloc[0] / table.total_seconds
    return table


def teacher_seconds(study: Study, tuned: str, fold: Fold) -> tuple[int, float]:
    """Epochs that early stopping of the fine-tuned teacher took in this study's own run, and their seconds."""
    log = pd.read_csv(study.reports / "students" / tuned / "log.csv")
    epochs = int(log[log.term == "teacher_face"].epoch.max())
    spec, most = study.models[tuned].tuned, study.benchmark.batches
    tuner = Tuner(training(study, tuned), fold)
    batches = len(epoch_batches(study.seed, 1, fold.images, fold.persons, spec.batch, spec.batch // 8))
    tuning = seconds(tuner.epoch, 1, most) * max(1.0, batches / most)
    return epochs, epochs * (tuning + seconds(validation_error, study.teacher.name, tuner.trained, fold))


def caching_seconds(study: Study, fold: Fold) -> float:
    """Seconds to compute one fold's targets in one process, from a part of them where the fold is large."""
    images = len(fold.images)
    count = min(images, CACHED)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "targets"
        names = allocate(study, fold.number, "plain", folder)
        return seconds(fill, study, fold.number, "plain", folder, names, 0, count) * images / count


def processor() -> tuple[str, list[str] | None]:
    """Name of the processor, and which of the instructions above it has; None where the system does not say."""
    name, instructions = platform.processor() or platform.machine(), None
    if CPUINFO.exists():
        lines = [line.partition(":") for line in CPUINFO.read_text(encoding="utf-8").splitlines()]
        found = {key.strip(): value.strip() for key, _, value in reversed(lines)}  # of the first core
        name = found.get("model name", name)
        flags = found.get("flags", found.get("Features"))  # x86, ARM
        instructions = None if flags is None else [flag for flag in X86 + ARM if flag in flags.split()]
    return name, instructions


def environment(study: Study) -> dict[str, object]:
    """Versions and machine, as far as they explain times; no names, no paths."""
    name, instructions = processor()
    optional = {found.name: found.version for found in distributions() if found.name in OPTIONAL}
    return {
        "python": platform.python_version(),
        "system": platform.system(),
        "processor": name,
        "instructions": instructions,
        "cores": os.cpu_count(),
        "threads": study.threads,
        "packages": {package: version(package) for package in PACKAGES} | optional,
    }
