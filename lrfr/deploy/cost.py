"""The `benchmark` stage: what is measured in seconds, in one run on one machine, so that ratios mean something.

First the student beside what an engineer would use instead, then what training costs, by model and by scheme. In the
latency table a number of threads has a process of its own, so that no pool of threads disturbs another's. There, every
network has its turn in every round; a ratio is taken within a round, so that a slow minute hits both of its sides.
Times differ from run to run, and weights may be random, which changes no time.
"""

import importlib.util
import json
import multiprocessing
import os
import platform
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from lrfr.config import Study
from lrfr.data.degrade import hr_view
from lrfr.data.draws import epoch_batches
from lrfr.deploy import onnx_graph
from lrfr.deploy.release import headline_model
from lrfr.errors import UserError
from lrfr.files import atomic_file
from lrfr.formats import markdown, read_table, render, write_table
from lrfr.gate.dlib_weights import embedded_path
from lrfr.models.features import Features
from lrfr.models.heads import unit
from lrfr.models.student import StudentNet, build_student, normalise
from lrfr.models.teachers import TEACHERS, build_teacher
from lrfr.parallel import limit_threads
from lrfr.progress import bar
from lrfr.protocol.folds import DENSE
from lrfr.train.distill import Trainer
from lrfr.train.fold import read_fold
from lrfr.train.targets import allocate, fill
from lrfr.train.teacher import Tuner, load_trained, validation_error
from lrfr.train.trainings import training

CACHED, THROUGHPUT_BATCH = 400, 64  # images: from which the cost of caching is estimated; of a common batch
PACKAGES = ("torch", "torchvision", "numpy", "facenet-pytorch", "lightning-fabric", "dvc", "papermill")
PACKAGES += ("onnxruntime", "dlib", "dlib-bin")  # optional; dlib's wheels have a name of their own
CPUINFO = Path("/proc/cpuinfo")
# Instructions that decide what 8-bit arithmetic is worth, and vectors of floats; of x86, then ARM, as in /proc/cpuinfo.
INSTRUCTIONS = ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16")
INSTRUCTIONS += ("asimd", "asimddp", "i8mm", "sve")
FACE, BATCHES = 16, (1, 16)  # side of the student's faces in pixels, as in the headline; a single face, and many
# MobileFaceNet's Table 1: expansion, channels, repeats, stride of the first
BLOCKS = ((2, 64, 5, 2), (4, 128, 1, 2), (2, 128, 6, 1), (4, 128, 1, 2), (2, 128, 2, 1))
DLIB = "dlib_resnet"
ORDER = ["network", "runtime", "threads", "batch", "median_ms", "low_ms", "high_ms", "faces_per_second", "ratio"]
ORDER += ["megabytes", "params", "macs", "input"]


def run(study: Study) -> None:
    for name in ("scratch", "kd"):
        if name not in study.models:
            raise UserError(f"params.yaml: the benchmark compares with models.{name}; add its block.")
    folder, picked = study.reports / "tables", headline_model(study)
    beside = latency(study, picked, read_table(folder / "runs.csv"))
    limit_threads(study.threads)
    epochs, extra = epoch_costs(study)
    for name, title, table in (
        ("latency", "", beside),
        ("cost", "Cost of every model", network_costs(study).merge(epochs, on="model", how="left")),
        ("schemes", "Cost of whole training schemes", schemes(study, epochs, extra)),
        ("throughput", "Images a second in training", throughput(study)),
    ):
        table = table.map(lambda x: float(f"{x:.4g}") if isinstance(x, float) else x)  # times vary in the second digit
        page = f"# {title}\n\n{markdown(table)}"
        if name == "latency":
            shown = table.drop(columns=["threads", "batch"]).astype(object).where(table.notna(), "")
            parts = {key: markdown(shown.loc[rows.index]) for key, rows in table.groupby(["threads", "batch"])}
            page = render("latency.md.j2", model=picked, face=FACE, tables=parts)
        write_table(folder, name, table, page)
    with atomic_file(study.reports / "environment.json") as file:
        file.write_text(json.dumps(environment(study), indent=1) + "\n", encoding="utf-8")


def timed(parts: dict[str, Callable[[], object]], rounds: int) -> pd.DataFrame:
    """Seconds of every part, in turn: a row a round. One more round, the first, is the warm-up."""
    rows = [{name: seconds(part) for name, part in parts.items()} for _ in bar(range(rounds + 1), ", ".join(parts))]
    return pd.DataFrame(rows[1:])


def network_costs(study: Study) -> pd.DataFrame:
    """Of every model's student and of the teacher: `counts`, median latency of one image, throughput in batches."""
    size, runs, costs = study.views.size, study.benchmark.latency_runs, {}
    nets = {kind: (build_student(study.student, kind, size, study.seed), size) for kind in ("plain", "se")}
    teacher = load_trained(study, study.faces.run_folds[0], study.teacher.setting).net
    for kind, (net, side) in {**nets, "teacher": (teacher, TEACHERS[study.teacher.name].chip)}.items():
        image = torch.zeros(1, 3, side, side)
        batch = image.expand(THROUGHPUT_BATCH, -1, -1, -1).contiguous(memory_format=torch.channels_last)
        costs[kind] = counts(net, image)
        with torch.inference_mode():
            net(batch)  # warm-up
            costs[kind]["latency_ms"] = 1000 * np.median([seconds(net, image) for _ in range(runs)])
            many = np.median([seconds(net, batch) for _ in range(max(3, runs // 10))])
        costs[kind]["throughput"] = THROUGHPUT_BATCH / many
    owners = {**{name: model.student for name, model in study.models.items()}, "teacher": "teacher"}
    return pd.DataFrame([{"model": name, **costs[kind]} for name, kind in owners.items()])


def epoch_costs(study: Study) -> tuple[pd.DataFrame, dict[str, float]]:
    """Seconds of an epoch of every model, interleaved, with cached and on-line targets; and of the conventional scheme.

    Timed are the first `benchmark.batches` batches of a late epoch, when every term is switched on; scaled to the
    whole. Ratios are medians over rounds of ratios within a round.
    """
    fold, last, most = read_fold(study, study.faces.run_folds[0]), study.train.epochs - 1, study.benchmark.batches
    names = [name for name, model in study.models.items() if model.teacher != "tuned"]
    trainers = {name: Trainer(training(study, name), fold, study.train.seeds[0]) for name in names}
    epochs = {name: partial(trainer.epoch, last, most=most) for name, trainer in trainers.items()}
    whole = max(1.0, len(trainers["scratch"].batches(last)) / most)
    times, online = whole * timed(epochs, study.benchmark.rounds), {}
    for name, trainer in bar(list(trainers.items()), "on-line epochs"):
        if trainer.source.cached is not None:
            trainer.source.cached = None
            online[name] = whole * seconds(epochs[name])
    trainers["kd"].source.low_resolution = True
    extra = {"kd_lr_online": whole * seconds(epochs["kd"]), "kd_online": online["kd"]}
    table = pd.DataFrame({"epoch_seconds": times.median(), "epoch_ratio": times.div(times.scratch, axis=0).median()})
    table["online_epoch_ratio"] = pd.Series(online, dtype=float) / table.epoch_seconds["scratch"]
    return table.rename_axis("model").reset_index(), extra


def throughput(study: Study) -> pd.DataFrame:
    """Images a second of the data path, of the student's forward and backward pass (the limit), and of the whole loop.

    All of `scratch`, on the same batches, interleaved; medians over rounds. `share` is of the limit.
    """
    trainer = Trainer(training(study, "scratch"), read_fold(study, study.faces.run_folds[0]), study.train.seeds[0])
    last, most = study.train.epochs - 1, study.benchmark.batches
    batches = trainer.batches(last)[:most]
    ready = [trainer.inputs(ids, draw) for ids, draw in batches]
    net = trainer.student.train()
    parts = {
        "data path": lambda: [trainer.inputs(ids, draw) for ids, draw in batches],
        "forward and backward": lambda: [Features(*net(x)).embedding.square().sum().backward() for x in ready],
        "whole loop": lambda: trainer.epoch(last, most=most),
    }
    times = timed(parts, study.benchmark.rounds).median().to_numpy()
    rates = sum(len(ids) for ids, _ in batches) / times
    return pd.DataFrame({"part": [*parts], "images_per_second": rates, "share": rates / rates[1]})


def schemes(study: Study, cost: pd.DataFrame, extra: dict[str, float]) -> pd.DataFrame:
    """Whole training schemes for one fold, from measured epochs times their number; `speedup` is over the first row.

    The teacher's epochs are those that early stopping took in this study's own run. Caching is measured in one
    process, on a part of the images where the fold is large.
    """
    fold, epochs, most = read_fold(study, study.faces.run_folds[0]), study.train.epochs, study.benchmark.batches
    count = min(len(fold.images), CACHED)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "targets"
        names = allocate(study, fold.number, "plain", folder)
        caching = seconds(fill, study, fold.number, "plain", folder, names, 0, count) * len(fold.images) / count
    rows = [
        ("frozen HR teacher, on line", 0, 0.0, 0.0, epochs * extra["kd_online"]),
        ("frozen HR teacher, cached", 0, 0.0, caching, epochs * cost.set_index("model").epoch_seconds["kd"]),
    ]
    for name, spec in [(name, model.tuned) for name, model in study.models.items() if model.tuned][:1]:
        log = pd.read_csv(study.reports / "students" / name / "log.csv")
        tuning, tuner = int(log[log.term == "teacher_face"].epoch.max()), Tuner(training(study, name), fold)
        batches = len(epoch_batches(study.seed, 1, fold.images, fold.persons, spec.batch, spec.batch // 8))
        one = seconds(tuner.epoch, 1, most) * max(1.0, batches / most)
        one += seconds(validation_error, study.teacher.name, tuner.trained, fold)
        rows.insert(0, ("teacher tuned on LR, then on line", tuning, tuning * one, 0.0, epochs * extra["kd_lr_online"]))
    columns = ["scheme", "teacher_epochs", "teacher_seconds", "targets_seconds", "student_seconds"]
    table = pd.DataFrame(rows, columns=columns)
    total = table.teacher_seconds + table.targets_seconds + table.student_seconds
    return table.assign(total_seconds=total, speedup=total.iloc[0] / total)


def environment(study: Study) -> dict[str, object]:
    """Versions and machine, as far as they explain times; no names, no paths. What is not known is None."""
    lines = CPUINFO.read_text(encoding="utf-8").splitlines() if CPUINFO.exists() else []
    core = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in reversed(lines))}
    flags = core.get("flags", core.get("Features"))  # of the first core, which comes last; x86, ARM
    return {
        "python": platform.python_version(),
        "system": platform.system(),
        "processor": core.get("model name", platform.processor() or platform.machine()),
        "instructions": flags and [flag for flag in INSTRUCTIONS if flag in flags.split()],
        "cores": os.cpu_count(),
        "threads": study.threads,
        "packages": dict(sorted((d.name, d.version) for d in distributions() if d.name in PACKAGES)),
    }


def seconds(function: Callable[..., object], *arguments: object) -> float:
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start


def counts(net: nn.Module, inputs: Tensor) -> dict[str, int]:
    """Parameters, multiply-accumulates (torch's counter: convolutions, matrix products) and bytes, buffers included."""
    net.eval()
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        net(inputs)
    return {
        "params": sum(p.numel() for p in net.parameters()),
        "macs": counter.get_total_flops() // 2,
        "bytes": sum(t.numel() * t.element_size() for t in net.state_dict().values()),
    }


def prepare(side: int, ready: Callable, call: Callable, batch: int) -> Callable[[], object]:
    """`call`, with what `ready` makes of uint8 faces (batch, side, side, 3): noise, always the same, takes as long."""
    draw = np.random.Generator(np.random.Philox(key=side))
    return partial(call, ready(draw.integers(0, 256, (batch, side, side, 3), dtype=np.uint8)))


def runners(student: StudentNet, size: int, files: dict[str, Path], threads: int) -> list[tuple[dict, Callable]]:
    """Networks in a runtime, the reference first: a row for each, and what makes the timed call for a size of a batch.

    size: of the student's input in pixels. files: runtime -> its exported file. In a row `input` is said in words;
    `megabytes` are 10^6 bytes of the file, in torch of the tensors in memory.
    """

    def eager(network: str, net: nn.Module, side: int) -> tuple[dict[str, Any], Callable]:
        row: dict[str, Any] = {"network": network, "runtime": "torch", "input": f"float {side} x {side}"}
        row |= counts(net, torch.zeros(1, 3, side, side))
        row["megabytes"] = row.pop("bytes") / 1e6
        # channels last in memory is the faster layout on CPUs
        return row, partial(prepare, side, lambda faces: torch.from_numpy(faces).permute(0, 3, 1, 2).float(), net)

    def whole(faces: Tensor) -> Tensor:
        return unit(student(normalise(hr_view(faces, size))).embedding)

    found, row = [], {**eager("student", student, size)[0], "input": f"uint8 {FACE} x {FACE}"}
    for runtime, path in files.items():
        exported = partial(onnx_graph.embed, onnx_graph.session(path, threads))
        changed = {"runtime": runtime, "megabytes": path.stat().st_size / 1e6}
        found.append(({**row, **changed}, partial(prepare, FACE, np.asarray, exported)))
    found.append((row, partial(prepare, FACE, torch.from_numpy, whole)))  # its row counts the network's work alone
    for name, weights in ((DLIB, "embedded"), ("inception_resnet_v1", "random")):
        found.append(eager(name, build_teacher(name, weights), TEACHERS[name].chip))
    if importlib.util.find_spec("dlib"):  # its own descriptor: the network that torch has above, in C++
        import dlib

        path, side = embedded_path(), TEACHERS[DLIB].chip
        own = dlib.face_recognition_model_v1(str(path)).compute_face_descriptor
        changed = {"runtime": "dlib", "input": f"uint8 {side} x {side}", "megabytes": path.stat().st_size / 1e6}
        found.append(({**found[-2][0], **changed}, partial(prepare, side, list, own)))
    return [*found, eager("mobilefacenet", build_mobilefacenet(512), 112)]  # 512: 1.2 M parameters


def measure(study: Study, kind: str, files: dict[str, Path], threads: int, batches: tuple[int, ...]) -> pd.DataFrame:
    """The rows of one number of threads: medians and quartiles over all calls, medians over rounds of the ratios.

    A runner's turn in a round has about `latency_runs` faces, and one batch at least. It begins with a call of one
    face that does not count, so that the threads of the turn before have gone to sleep.
    """
    limit_threads(threads)
    student, parts = build_student(study.student, kind, study.views.size, study.seed), []
    rows, prepared = zip(*runners(student, study.views.size, files, threads), strict=True)
    for batch in batches:
        turns = [(calls(1), calls(batch)) for calls in prepared]
        times = np.empty((len(turns), study.benchmark.rounds, max(1, study.benchmark.latency_runs // batch)))
        with torch.inference_mode():
            for _, call in turns:
                call()  # the first call of a shape plans and allocates
            for number in bar(range(study.benchmark.rounds), f"latency, batches of {batch}"):
                for k, (wake, call) in enumerate(turns):
                    wake()
                    times[k, number] = [seconds(call) for _ in range(times.shape[2])]
        low, median, high = 1000 * np.quantile(times.reshape(len(times), -1), (0.25, 0.5, 0.75), axis=1)
        within = np.median(times, axis=2)
        columns = {"median_ms": median, "low_ms": low, "high_ms": high, "faces_per_second": 1000 * batch / median}
        columns |= {"ratio": np.median(within / within[0], axis=1), "threads": threads, "batch": batch}
        parts.append(pd.DataFrame(rows).assign(**columns))
    return pd.concat(parts)


def latency(study: Study, model: str, runs: pd.DataFrame) -> pd.DataFrame:
    """latency.csv: one row per network, runtime, number of threads and size of a batch.

    model: whose student is measured, also as the stage `export` wrote it, if onnxruntime is there. runs: runs.csv, for
    the equal error rates of `dense`, both faces at one resolution, where the timed weights are evaluated: the exported
    student of the first fold and seed; and dlib's published weights where they are the study's teacher.
    """
    files, parts = {}, []
    for runtime, end in (("onnx", ""), ("onnx int8", "-int8")):
        path = study.runs / "export" / f"{study.study}-{model}{end}.onnx"
        if path.is_file() and importlib.util.find_spec("onnxruntime"):
            files[runtime] = path
    for threads in sorted({1, os.cpu_count() or 1}):
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as apart:
            parts.append(apart.submit(measure, study, study.models[model].student, files, threads, BATCHES).result())
    table = pd.concat(parts, ignore_index=True)[ORDER]
    owner = {("student", "torch"): model, ("student", "onnx"): model}
    if (study.teacher.name, study.teacher.setting) == (DLIB, "pretrained"):
        owner |= {(DLIB, "torch"): "teacher", (DLIB, "dlib"): "teacher"}
    first = (runs.fold == study.faces.run_folds[0]) & (runs.seed == study.train.seeds[0])
    rows = runs[first & (runs.protocol == DENSE) & (runs.metric == "eer") & (runs.pairing == "lr_lr")]
    errors, owners = rows.set_index(["model", "resolution"]).value, table[["network", "runtime"]].apply(tuple, axis=1)
    for resolution in ("16", "hr"):
        table[f"eer_{resolution}"] = [errors.get((owner.get(key), resolution), float("nan")) for key in owners]
    return table


class Skip(nn.Sequential):
    """Layers, and around them their input."""

    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


def build_mobilefacenet(embedding: int) -> nn.Sequential:
    """MobileFaceNet (Chen et al., CCBR 2018, arXiv 1804.07573, Table 1): what one would use on a phone.

    float (B, 3, 112, 112) in -1 ... 1 -> float (B, embedding), before L2 normalisation. Random weights, the same every
    time, in eval mode. With the paper's 128 dimensions it has 1.00 M parameters and 221 M multiply-accumulates.
    """

    def conv(inputs: int, outputs: int, *shape: int, groups: int = 1, prelu: bool = True) -> nn.Sequential:
        layer = nn.Conv2d(inputs, outputs, *(shape or [1]), groups=groups, bias=False)
        return nn.Sequential(layer, nn.BatchNorm2d(outputs), *[nn.PReLU(outputs) for _ in range(prelu)])

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers, inputs = [conv(3, 64, 3, 2, 1), conv(64, 64, 3, 1, 1, groups=64)], 64
        for expansion, outputs, count, first in BLOCKS:
            for stride in (first, *[1] * (count - 1)):
                wide = expansion * inputs
                block = (
                    conv(inputs, wide),
                    conv(wide, wide, 3, stride, 1, groups=wide),
                    conv(wide, outputs, prelu=False),
                )
                layers.append((Skip if stride == 1 and inputs == outputs else nn.Sequential)(*block))
                inputs = outputs
        layers += [conv(inputs, 512), conv(512, 512, 7, groups=512, prelu=False), conv(512, embedding, prelu=False)]
    return nn.Sequential(*layers, nn.Flatten()).to(memory_format=torch.channels_last).requires_grad_(False).eval()
