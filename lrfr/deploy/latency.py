"""What an engineer would use instead: the student beside other networks and runtimes, in one run, as ratios.

A number of threads has a process of its own, so that no pool of threads disturbs another's. In it, rounds in which
every network has its turn; a ratio is taken within a round, so that a slow minute of the machine hits both of its
sides.

The student is timed as it is used: a small uint8 face in, its resize and normalisation included. The others get float
faces of their own size, ready made, which flatters them; dlib's own descriptor takes uint8 chips. In eager torch the
student, InceptionResnetV1 and MobileFaceNet have random weights: weights change no time.
"""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from lrfr.config import Study
from lrfr.data.degrade import hr_view
from lrfr.deploy import mobilefacenet, onnx_graph
from lrfr.formats import markdown
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
MEASURED = ("16", "hr")  # resolutions whose equal error rate stands beside the times
STUDENT, DLIB = "student", "dlib_resnet"
ORDER = ["network", "runtime", "threads", "batch", "median_ms", "low_ms", "high_ms", "faces_per_second", "ratio"]


class Runner(NamedTuple):
    """A network in a runtime.

    input: what it is given, in words. megabytes: 10^6 bytes of its file (onnx, dlib) or of its tensors in memory
    (torch). prepare: size of a batch -> the call that is timed, its input made already.
    """

    network: str
    runtime: str
    input: str
    megabytes: float
    params: int
    macs: int
    prepare: Callable[[int], Callable[[], object]]


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
    counted = counts(net, torch.zeros(1, 3, side, side))

    def prepare(batch: int) -> Callable[[], object]:
        inputs = torch.from_numpy(noise(batch, side)).permute(0, 3, 1, 2).to(torch.float32)
        return lambda: net(inputs)

    megabytes = counted["bytes"] / 1e6
    return Runner(network, "torch", f"float {side} x {side}", megabytes, counted["params"], counted["macs"], prepare)


def student_runner(net: StudentNet, size: int) -> Runner:
    """The student in eager torch, from small uint8 faces; its operations are those of the network alone."""

    def prepare(batch: int) -> Callable[[], object]:
        faces = torch.from_numpy(noise(batch, FACE))
        return lambda: unit(net(normalise(hr_view(faces, size))).embedding)

    return torch_runner(STUDENT, net, size)._replace(input=f"uint8 {FACE} x {FACE}", prepare=prepare)


def onnx_runner(eager: Runner, runtime: str, path: Path, threads: int) -> Runner:
    """An exported student, which resizes and normalises itself."""
    running = onnx_graph.session(path, threads)

    def prepare(batch: int) -> Callable[[], object]:
        faces = noise(batch, FACE)
        return lambda: onnx_graph.embed(running, faces)

    return eager._replace(runtime=runtime, megabytes=path.stat().st_size / 1e6, prepare=prepare)


def dlib_runner(ported: Runner) -> Runner:
    """dlib's own descriptor: the network that `ported` is, in C++; it takes no number of threads."""
    import dlib

    net = dlib.face_recognition_model_v1(str(embedded_path()))
    side, megabytes = TEACHERS[DLIB].chip, embedded_path().stat().st_size / 1e6

    def prepare(batch: int) -> Callable[[], object]:
        chips = list(noise(batch, side))
        return lambda: net.compute_face_descriptor(chips)

    return ported._replace(runtime="dlib", input=f"uint8 {side} x {side}", megabytes=megabytes, prepare=prepare)


def runners(study: Study, kind: str, files: dict[str, Path], threads: int) -> list[Runner]:
    """Everything that is compared, the reference first. kind: of the student; files: runtime -> its exported file."""
    eager = student_runner(build_student(study.student, kind, study.views.size, study.seed), study.views.size)
    found = [*(onnx_runner(eager, runtime, path, threads) for runtime, path in files.items()), eager]
    for name, weights in ((DLIB, "embedded"), ("inception_resnet_v1", "random")):
        found.append(torch_runner(name, build_teacher(name, weights), TEACHERS[name].chip))
    if importlib.util.find_spec("dlib"):
        found.append(dlib_runner(found[-2]))
    phone = mobilefacenet.build_mobilefacenet(EMBEDDING)
    return [*found, torch_runner("mobilefacenet", phone, mobilefacenet.INPUT)]


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
    found = runners(study, kind, files, threads)
    rows = pd.DataFrame(found, columns=Runner._fields).drop(columns="prepare")
    parts = []
    with torch.inference_mode():
        for batch in batches:
            times = interleaved(found, batch, study.benchmark.rounds, study.benchmark.latency_runs)
            parts.append(rows.join(summary(times, batch)).assign(threads=threads, batch=batch))
    return pd.concat(parts)


def exported(study: Study, model: str) -> dict[str, Path]:
    """runtime -> the file that the stage `export` wrote of a model, the reference first; none without onnxruntime."""
    if importlib.util.find_spec("onnxruntime") is None:
        return {}
    folder, name = study.runs / "export", f"{study.study}-{model}"
    files = {"onnx": folder / f"{name}.onnx", "onnx int8": folder / f"{name}-int8.onnx"}
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

    model: whose student is measured. files: runtime -> its exported file, none where onnxruntime is missing. runs:
    runs.csv.
    """
    kind, parts = study.models[model].student, []
    for threads in sorted({1, os.cpu_count() or 1}):
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as apart:
            parts.append(apart.submit(measure, study, kind, files, threads, BATCHES).result())
    table = with_errors(study, pd.concat(parts, ignore_index=True), runs, model)
    return table[[*ORDER, "megabytes", "params", "macs", "input", *(f"eer_{r}" for r in MEASURED)]]


def latency_page(table: pd.DataFrame, model: str) -> str:
    """latency.csv for people."""
    text = f"""# What an engineer would use instead

Times of one run on one machine, medians with quartiles; `ratio` is to the first row of the same threads and batch,
taken within rounds. The student is that of `{model}`, from uint8 faces of {FACE} pixels, resize and normalisation
included; the others get float faces of their own size ready made, which flatters them; dlib's own descriptor takes
uint8 chips and no number of threads; in torch dlib's affine layers are folded into the convolutions, as in the study.
Megabytes are 10^6 bytes, of the file for onnx and dlib, of the tensors in memory for torch. Operations
(multiply-accumulates) are the network's alone. Equal error rates are those of the first fold and seed (`runs.csv`), the
weights that are exported; an 8-bit student has its own (`export.csv`), and random weights, or weights that the study
does not evaluate, have none.
"""
    for (threads, batch), rows in table.groupby(["threads", "batch"]):
        title = f"{threads} thread{'s' if threads > 1 else ''}, {batch} face{'s' if batch > 1 else ''} at a time"
        shown = rows.drop(columns=["threads", "batch"]).astype(object).where(rows.notna(), "")
        text += f"\n## {title}\n\n{markdown(shown)}"
    return text
