"""What an engineer would use instead: the student beside other networks and runtimes, in one run, as ratios.

A number of threads has a process of its own, so that no pool of threads disturbs another's. In it, rounds in which
every network has its turn; a ratio is taken within a round, so that a slow minute of the machine hits both of its
sides.

How each is fed is said in `templates/latency.md.j2`. In eager torch the student, InceptionResnetV1 and MobileFaceNet
have random weights: weights change no time.
"""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from lrfr.config import Study
from lrfr.data.degrade import hr_view
from lrfr.deploy import onnx_graph
from lrfr.formats import markdown, render
from lrfr.gate.dlib_weights import embedded_path
from lrfr.models.heads import unit
from lrfr.models.student import StudentNet, build_student, normalise
from lrfr.models.teachers import TEACHERS, build_teacher
from lrfr.parallel import limit_threads
from lrfr.progress import bar
from lrfr.protocol.folds import DENSE

FACE = 16  # pixels, side of the student's faces: the resolution of the study's headline
BATCHES = (1, 64)  # a single face, and many
EMBEDDING = 512  # of the MobileFaceNet: 1.2 M parameters
PHONE = 112  # pixels of a MobileFaceNet's faces
BLOCKS = ((2, 64, 5, 2), (4, 128, 1, 2), (2, 128, 6, 1), (4, 128, 1, 2), (2, 128, 2, 1))  # its Table 1's t, c, n, s
MEASURED = ("16", "hr")  # resolutions whose equal error rate stands beside the times
STUDENT, DLIB = "student", "dlib_resnet"
ORDER = ["network", "runtime", "threads", "batch", "median_ms", "low_ms", "high_ms", "faces_per_second", "ratio"]


class Runner(NamedTuple):
    """A network in a runtime.

    input: what it is given, in words. megabytes: 10^6 bytes of its file (onnx, dlib) or of its tensors in memory
    (torch). side: of its faces, in pixels. call: is timed, with what `ready` makes of uint8 faces (B, side, side, 3).
    """

    network: str
    runtime: str
    input: str
    megabytes: float
    params: int
    macs: int
    side: int
    ready: Callable[[np.ndarray], Any]
    call: Callable[[Any], object]

    def prepare(self, batch: int) -> Callable[[], object]:
        """The call that is timed, its input made already."""
        given = self.ready(noise(batch, self.side))
        return lambda: self.call(given)


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


def noise(batch: int, side: int) -> np.ndarray:
    """uint8 (batch, side, side, 3), the same every time: faces without a meaning take as long as faces."""
    return np.random.Generator(np.random.Philox(key=side)).integers(0, 256, (batch, side, side, 3), dtype=np.uint8)


def torch_runner(network: str, net: nn.Module, side: int) -> Runner:
    """Eager torch, channels last in memory, which is the faster layout on CPUs."""
    cost = counts(net, torch.zeros(1, 3, side, side))
    text, megabytes = f"float {side} x {side}", cost["bytes"] / 1e6
    return Runner(network, "torch", text, megabytes, cost["params"], cost["macs"], side, to_float, net)


def to_float(faces: np.ndarray) -> Tensor:
    return torch.from_numpy(faces).permute(0, 3, 1, 2).to(torch.float32)


def student_runner(net: StudentNet, size: int) -> Runner:
    """The student in eager torch, from small uint8 faces; its operations are those of the network alone."""
    alone = torch_runner(STUDENT, net, size)._replace(input=f"uint8 {FACE} x {FACE}", side=FACE)
    call = lambda faces: unit(net(normalise(hr_view(faces, size))).embedding)  # noqa: E731
    return alone._replace(ready=torch.from_numpy, call=call)


def runners(study: Study, kind: str, files: dict[str, Path], threads: int) -> list[Runner]:
    """Everything that is compared, the reference first. kind: of the student; files: runtime -> its exported file."""
    eager = student_runner(build_student(study.student, kind, study.views.size, study.seed), study.views.size)
    found = [*(onnx_runner(eager, runtime, path, threads) for runtime, path in files.items()), eager]
    for name, weights in ((DLIB, "embedded"), ("inception_resnet_v1", "random")):
        found.append(torch_runner(name, build_teacher(name, weights), TEACHERS[name].chip))
    if importlib.util.find_spec("dlib"):
        found.append(dlib_runner(found[-2]))
    return [*found, torch_runner("mobilefacenet", build_mobilefacenet(EMBEDDING), PHONE)]


def onnx_runner(eager: Runner, runtime: str, path: Path, threads: int) -> Runner:
    """An exported student, which resizes and normalises itself."""
    running, megabytes = onnx_graph.session(path, threads), path.stat().st_size / 1e6
    call = partial(onnx_graph.embed, running)
    return eager._replace(runtime=runtime, megabytes=megabytes, ready=np.asarray, call=call)


def dlib_runner(ported: Runner) -> Runner:
    """dlib's own descriptor: the network that `ported` is, in C++; it takes no number of threads."""
    import dlib

    call = dlib.face_recognition_model_v1(str(embedded_path())).compute_face_descriptor
    text, megabytes = f"uint8 {ported.side} x {ported.side}", embedded_path().stat().st_size / 1e6
    return ported._replace(runtime="dlib", input=text, megabytes=megabytes, ready=list, call=call)


def interleaved(found: Sequence[Runner], batch: int, rounds: int, runs: int) -> np.ndarray:
    """Seconds of every call, float (runners, rounds, calls): a turn has about `runs` faces, and one batch at least.

    It begins with a call of one face that does not count, so that the threads of the turn before have gone to sleep.
    """
    turns = [(runner.prepare(1), runner.prepare(batch)) for runner in found]
    times = np.empty((len(found), rounds, max(1, runs // batch)))
    for _, call in turns:
        call()  # the first call of a shape plans and allocates
    for number in bar(range(rounds), f"latency, batches of {batch}"):
        for k, (wake, call) in enumerate(turns):
            wake()
            times[k, number] = [seconds(call) for _ in range(times.shape[2])]
    return times


def summary(times: np.ndarray, batch: int) -> pd.DataFrame:
    """Medians and quartiles over all calls; medians over rounds of the ratio to the first runner in the same round."""
    low, median, high = 1000 * np.quantile(times.reshape(len(times), -1), (0.25, 0.5, 0.75), axis=1)
    within = np.median(times, axis=2)
    columns = {"median_ms": median, "low_ms": low, "high_ms": high, "faces_per_second": 1000 * batch / median}
    return pd.DataFrame({**columns, "ratio": np.median(within / within[0], axis=1)})


def measure(study: Study, kind: str, files: dict[str, Path], threads: int, batches: Sequence[int]) -> pd.DataFrame:
    """The rows of one number of threads."""
    limit_threads(threads)
    found, parts = runners(study, kind, files, threads), []
    rows = pd.DataFrame(found, columns=Runner._fields).drop(columns=["side", "ready", "call"])
    with torch.inference_mode():
        for batch in batches:
            times = interleaved(found, batch, study.benchmark.rounds, study.benchmark.latency_runs)
            parts.append(rows.join(summary(times, batch)).assign(threads=threads, batch=batch))
    return pd.concat(parts)


def exported(study: Study, model: str) -> dict[str, Path]:
    """runtime -> the file that the stage `export` wrote of a model, the reference first; none without onnxruntime."""
    if importlib.util.find_spec("onnxruntime") is None:
        return {}
    stem = f"{study.study}-{model}"
    files = {r: study.runs / "export" / f"{stem}{end}.onnx" for r, end in (("onnx", ""), ("onnx int8", "-int8"))}
    return {runtime: path for runtime, path in files.items() if path.is_file()}


def with_errors(study: Study, table: pd.DataFrame, runs: pd.DataFrame, model: str) -> pd.DataFrame:
    """Equal error rates of `dense`, both faces at one resolution, where the timed weights are evaluated.

    model: the student's. The exported student is that of the first fold and seed, hence runs.csv and not the means of
    results.csv. dlib's published weights are evaluated where they are the study's teacher; 8-bit ones are not in
    runs.csv.
    """
    owner = {(STUDENT, "torch"): model, (STUDENT, "onnx"): model}
    if (study.teacher.name, study.teacher.setting) == (DLIB, "pretrained"):
        owner |= {(DLIB, "torch"): "teacher", (DLIB, "dlib"): "teacher"}
    first = (runs.fold == study.faces.run_folds[0]) & (runs.seed == study.train.seeds[0])
    rows = runs[first & (runs.protocol == DENSE) & (runs.metric == "eer") & (runs.pairing == "lr_lr")]
    value = rows.set_index(["model", "resolution"]).value.to_dict()
    owners = [owner.get(key) for key in zip(table.network, table.runtime, strict=True)]
    return table.assign(**{f"eer_{r}": [value.get((name, r), float("nan")) for name in owners] for r in MEASURED})


def latency(study: Study, model: str, files: dict[str, Path], runs: pd.DataFrame) -> pd.DataFrame:
    """latency.csv: one row per network, runtime, number of threads and size of a batch.

    model: whose student is measured. files: runtime -> its exported file. runs: runs.csv.
    """
    kind, parts = study.models[model].student, []
    for threads in sorted({1, os.cpu_count() or 1}):
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as apart:
            parts.append(apart.submit(measure, study, kind, files, threads, BATCHES).result())
    table = with_errors(study, pd.concat(parts, ignore_index=True), runs, model)
    return table[[*ORDER, "megabytes", "params", "macs", "input", *(f"eer_{r}" for r in MEASURED)]]


def latency_page(table: pd.DataFrame, model: str) -> str:
    """latency.csv for people."""
    shown = table.drop(columns=["threads", "batch"]).astype(object).where(table.notna(), "")
    groups = table.groupby(["threads", "batch"]).groups
    tables = {key: markdown(shown.loc[rows]) for key, rows in groups.items()}
    return render("latency.md.j2", model=model, face=FACE, tables=tables)


def linear(inputs: int, outputs: int, side: int, stride: int = 1, padding: int = 0, groups: int = 1) -> nn.Sequential:
    """Convolution and batch norm."""
    layer = nn.Conv2d(inputs, outputs, side, stride, padding, groups=groups, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs))


def conv(inputs: int, outputs: int, *shape: int) -> nn.Sequential:
    """The same with PReLU."""
    return nn.Sequential(linear(inputs, outputs, *shape), nn.PReLU(outputs))


class Skip(nn.Sequential):
    """Layers, and around them their input."""

    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


def build_mobilefacenet(embedding: int) -> nn.Sequential:
    """MobileFaceNet (Chen et al., CCBR 2018, arXiv 1804.07573, Table 1): what one would use on a phone.

    float (B, 3, 112, 112) in -1 ... 1 -> float (B, embedding), before L2 normalisation. Random weights, the same every
    time, in eval mode without gradients. With the paper's 128 dimensions it has 1.00 M parameters and 221 M
    multiply-accumulates, as published.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers, inputs = [conv(3, 64, 3, 2, 1), conv(64, 64, 3, 1, 1, 64)], 64
        for expansion, outputs, count, first in BLOCKS:
            middle = expansion * inputs
            for stride in (first, *[1] * (count - 1)):
                block = conv(inputs, middle, 1), conv(middle, middle, 3, stride, 1, middle), linear(middle, outputs, 1)
                layers.append((Skip if stride == 1 and inputs == outputs else nn.Sequential)(*block))
                inputs, middle = outputs, expansion * outputs
        layers += [conv(inputs, 512, 1), linear(512, 512, 7, groups=512), linear(512, embedding, 1)]
        net = nn.Sequential(*layers, nn.Flatten())
    return net.to(memory_format=torch.channels_last).requires_grad_(False).eval()
