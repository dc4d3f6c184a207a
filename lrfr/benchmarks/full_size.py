"""How long, and how much memory, do the two large searches take here? Random embeddings in the sets' published sizes.

    python -m lrfr.benchmarks.full_size tinyface
    python -m lrfr.benchmarks.full_size survface

The time is that of the protocol alone, not of embedding the photographs; peak memory is the whole process, inputs included. The
bootstrap over people is not part of it.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from numpy.typing import NDArray

from lrfr.benchmarks import survface, tinyface
from lrfr.benchmarks.outcome import Outcome

DIMENSIONS = 512  # of the usual face embedding
TINYFACE = {"probes": 3_728, "gallery": 4_443, "distractors": 153_428, "people": 2_569}  # published
SURVFACE = {
    "gallery": 60_294,
    "mated": 60_423,
    "unmated": 121_736,
    "people": 3_000,
}  # images as in the archive, about 3,000 people


def faces(size: int) -> NDArray[np.float32]:
    return np.random.default_rng(size).standard_normal((size, DIMENSIONS), dtype=np.float32)


def people(size: int, number: int) -> NDArray[np.int64]:
    """Labels (size,), everybody among them, as evenly as possible."""
    return np.arange(size) % number


def run_tinyface() -> tuple[Outcome, float]:
    sizes = TINYFACE
    probes, gallery, distractors = (faces(sizes[part]) for part in ("probes", "gallery", "distractors"))
    labels = [people(sizes[part], sizes["people"]) for part in ("probes", "gallery")]
    start = time.perf_counter()
    return tinyface.evaluate(probes, labels[0], gallery, labels[1], distractors), time.perf_counter() - start


def run_survface() -> tuple[Outcome, float]:
    sizes = SURVFACE
    gallery, mated, unmated = (faces(sizes[part]) for part in ("gallery", "mated", "unmated"))
    labels = [people(sizes[part], sizes["people"]) for part in ("gallery", "mated")]
    start = time.perf_counter()
    return survface.identification(gallery, labels[0], mated, labels[1], unmated), time.perf_counter() - start


RUNS = {"tinyface": run_tinyface, "survface": run_survface}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m lrfr.benchmarks.full_size", description=__doc__.split("\n")[0])
    parser.add_argument("benchmark", choices=RUNS)
    outcome, seconds = RUNS[parser.parse_args().benchmark]()
    print({**outcome.counts, **outcome.metrics})
    print(f"{seconds:.1f} s")
    try:
        import resource
    except ImportError:  # Windows
        return
    print(f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GB at most")  # Linux counts in KiB


if __name__ == "__main__":
    main()
