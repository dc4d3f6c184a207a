"""Every use of a study's seed, in one table: no two share a random number.

Philox is a counter-based generator: two keys give two independent streams. A key is (seed, use, index), where the index is the
epoch, the fold or the image that the numbers are for. So what is drawn for image 7 in epoch 3 depends on nothing else: not on the
worker that asks, nor on who asked before.
"""

from __future__ import annotations

import numpy as np

OLD = {
    "identity_folds": (1, 0),
    "lfw_validation": (2, 1),
    "views": (0, 2),
    "sampler": (1, 2),
    "moves": (1 << 40, 2),
    "teacher_order": (1, 2),
    "impostors": (5 << 32, 1),
    "misaligned": (6 << 32, 1),
    "calibration": (8 << 32, 1),
    "bootstrap": (0x5B00757A, 1),
    "dyadic": (0x5B00757A + (1 << 32), 1),
    "scface": (0x5CFACE, 0),
}


def philox(use: str, seed: int, index: int = 0) -> np.random.Philox:
    """The bit generator of one use. NumPy promises that its raw bits stay the same across releases, unlike permutations."""
    base, stride = OLD[use]
    return np.random.Philox(key=np.array([seed, base + stride * index], dtype=np.uint64))


def stream(use: str, seed: int, index: int = 0) -> np.random.Generator:
    """A generator of its own for (use, seed, index); use: a name of the table, index: 0 ... 2^48 - 1."""
    return np.random.Generator(philox(use, seed, index))
