"""Every use of a study's seed, in one table: no two share a random number.

Philox is a counter-based generator: two keys give two independent streams. A key is (seed, use, index), where the index
is the epoch, the fold or the image that the numbers are for. So what is drawn for image 7 in epoch 3 depends on nothing
else: not on the worker that asks, nor on who asked before.
"""

import numpy as np

USES = {  # use -> (first key, number of keys); the ranges do not overlap, and a key that was once published stays
    "identity_folds": (1, 1),
    "lfw_validation": (2, 1 << 20),  # an index a study fold
    "scface": (0x5CFACE, 1),  # SCface's people; the split is the seed
    "bootstrap": (0x5B00757A, 1 << 20),  # a stratum: who is drawn
    "dyadic": ((1 << 32) + 0x5B00757A, 1 << 20),  # a stratum: coins of sparse lists of pairs
    "trainings": (9 << 40, 1 << 40),  # a model's name, hashed: the luck of its trainings
    "impostors": (5 << 32, 1 << 32),  # a study fold: the sample of impostor pairs
    "misaligned": (6 << 32, 1 << 32),  # an image: noise of its landmarks
    "shown": (7 << 32, 1 << 32),  # a study fold: faces of a figure
    "calibration": (8 << 32, 1 << 32),  # a study fold: faces that choose the ranges of 8-bit weights
    "validation": (9 << 32, 1),  # people, where others than the training source's are tested
    "views": (1 << 48, 1 << 48),  # an epoch: which view of an image, mirrored or not, photometric jitter
    "moves": (2 << 48, 1 << 48),  # an epoch: geometric jitter
    "sampler": (3 << 48, 1 << 48),  # an epoch: the order of the images
    "teacher_order": (4 << 48, 1 << 48),  # an epoch
    "kinds": (7 << 48, 1 << 48),  # an epoch: which kind of small image
    "degradation": (5 << 48, 1 << 48),  # an image and a size: blur, noise and compression
    "colour": (6 << 48, 1 << 48),  # an epoch: who is shown grey, and the casts of the others
}


def philox(use: str, seed: int, index: int = 0) -> np.random.Philox:
    """The bit generator of one use. NumPy promises that its raw bits stay the same across releases, unlike
    permutations.
    """
    first, count = USES[use]
    assert 0 <= index < count, "an index beyond its use would be another use's"
    return np.random.Philox(key=np.array([seed, first + index], dtype=np.uint64))


def stream(use: str, seed: int, index: int = 0) -> np.random.Generator:
    """A generator of its own for (seed, use, index)."""
    return np.random.Generator(philox(use, seed, index))
