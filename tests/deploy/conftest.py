"""Real faces, without a detector; and students that have seen them."""

from __future__ import annotations

import numpy as np
import pytest

from lrfr.data import align
from lrfr.gate.images import read_image
from lrfr.sources import orl


@pytest.fixture(scope="session")
def chips() -> np.ndarray:
    """uint8 (24, 150, 150, 3): three photographs of each of eight people of ORL, cropped as `prepare` does without landmarks."""
    photographs = orl.Photographs()
    names = [f"s{person}/{number}.pgm" for person in range(1, 9) for number in range(1, 4)]
    return np.stack([align.chip(read_image(photographs.read(name)), None, orl.FALLBACK) for name in names])
