"""What a network costs: parameters, operations and bytes, which can be counted, and seconds, which cannot."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable
from importlib.metadata import distributions, version
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from lrfr.config import Study

THROUGHPUT_BATCH = 64  # a common batch for throughput on a CPU
PACKAGES = ("torch", "torchvision", "numpy", "facenet-pytorch", "lightning-fabric", "dvc", "papermill")
OPTIONAL = ("onnxruntime", "dlib", "dlib-bin")  # dlib's wheels have a name of their own
CPUINFO = Path("/proc/cpuinfo")
# Instructions that decide what 8-bit arithmetic is worth, and the vectors of float arithmetic; names as in /proc/cpuinfo. The
# first line is of x86, the second of ARM.
# fmt: off
INSTRUCTIONS = (
    "avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16",
    "asimd", "asimddp", "i8mm", "sve",
)
# fmt: on


def round_off(value: object) -> object:
    """Four significant digits: times vary in the second."""
    return float(f"{value:.4g}") if isinstance(value, float) else value


def seconds(function: Callable[..., object], *arguments: object) -> float:
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start


def counts(net: nn.Module, inputs: Tensor) -> dict[str, int]:
    """Parameters, multiply-accumulates (torch's own counter: convolutions, matrix products) and bytes, buffers included.

    inputs : one image, float (1, 3, S, S).
    """
    net.eval()
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        net(inputs)
    return {
        "params": sum(p.numel() for p in net.parameters()),
        "macs": counter.get_total_flops() // 2,
        "bytes": sum(t.numel() * t.element_size() for t in net.state_dict().values()),
    }


def network_cost(net: nn.Module, inputs: Tensor, runs: int) -> dict[str, float]:
    """`counts`, the median latency of one image and the throughput in batches.

    inputs : one image, float (1, 3, S, S).
    """
    counted = counts(net, inputs)
    batch = inputs.expand(THROUGHPUT_BATCH, -1, -1, -1).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        net(batch)  # warm-up
        latency = statistics.median(seconds(net, inputs) for _ in range(runs))
        throughput = THROUGHPUT_BATCH / statistics.median(seconds(net, batch) for _ in range(max(3, runs // 10)))
    return {**counted, "latency_ms": 1000 * latency, "throughput": throughput}


def processor() -> tuple[str, list[str] | None]:
    """Name of the processor, and which of `INSTRUCTIONS` it has; None where the system does not say."""
    name, instructions = platform.processor() or platform.machine(), None
    if CPUINFO.exists():
        lines = [line.partition(":") for line in CPUINFO.read_text(encoding="utf-8").splitlines()]
        found = {key.strip(): value.strip() for key, _, value in reversed(lines)}  # of the first core
        name = found.get("model name", name)
        flags = found.get("flags", found.get("Features"))  # x86, ARM
        instructions = None if flags is None else [flag for flag in INSTRUCTIONS if flag in flags.split()]
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
