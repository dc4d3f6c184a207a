"""Independent pieces of work side by side. The number of processes changes the time, never a number."""

import multiprocessing
import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from lrfr.progress import bar


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def limit_threads(threads: int) -> None:
    """Set the threads of torch, if it is in use, and of the BLAS of processes started from here on."""
    os.environ["OMP_NUM_THREADS"] = str(threads)
    if "torch" in sys.modules:
        import torch

        torch.set_num_threads(threads)


def parallel_map(
    function: Callable[..., Any], tasks: Sequence[tuple], jobs: int, threads: int, description: str
) -> list[Any]:
    """`[function(*task) for task in tasks]` in up to `jobs` processes of `threads` threads each, in the order of the
    tasks.

    On Linux the processes are forked, which saves importing torch again; do not compute with torch before calling this.
    An exception in a task is raised here.
    """
    limit_threads(threads)
    if min(jobs, len(tasks)) <= 1:
        return [function(*task) for task in bar(tasks, description)]
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    with ProcessPoolExecutor(min(jobs, len(tasks)), context, initializer=limit_threads, initargs=(threads,)) as pool:
        futures = [pool.submit(function, *task) for task in tasks]
        return [future.result() for future in bar(futures, description)]
