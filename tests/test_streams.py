"""The table of the seed's uses: no number is drawn twice."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import numpy as np
import pytest

from lrfr.streams import USES, philox, stream

ROOT = Path(__file__).resolve().parents[1]


def test_no_two_uses_share_a_key():
    ranges = sorted(USES.values())
    assert all(first + count <= after for (first, count), (after, _) in zip(ranges, ranges[1:], strict=False))
    assert ranges[0][0] >= 0 and ranges[-1][0] + ranges[-1][1] <= 1 << 64
    keys = {tuple(map(int, philox(use, 5, count - 1).state["state"]["key"])) for use, (_, count) in USES.items()}
    assert keys == {(5, first + count - 1) for first, count in ranges}


@pytest.mark.parametrize("use", USES)
def test_an_index_may_not_run_into_the_next_use(use: str):
    for index in (-1, USES[use][1]):
        with pytest.raises(AssertionError):
            philox(use, 0, index)


def test_a_stream_is_a_function_of_its_key():
    assert np.array_equal(stream("views", 3, 7).random(5), stream("views", 3, 7).random(5))
    drawn = [stream(use, 0, index).random() for use in USES for index in range(min(3, USES[use][1]))]
    assert len(set(drawn)) == len(drawn)


def test_nothing_else_makes_a_generator_from_the_seed():
    """Every other Philox of the library is keyed by something that is no seed of a study; torch's generator only
    initialises.
    """
    for path in (ROOT / "lrfr").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        tree = ast.parse(text)
        names = {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
        made = names & {"Philox", "default_rng", "RandomState", "PCG64", "SeedSequence"}
        assert not made or path.name == "streams.py" or "random.Philox(key=side)" in text, path.name
        for use in re.findall(r'(?:stream|philox)\("(\w+)"', text):
            assert use in USES, f"{path.name}: {use}"


def test_every_use_is_used():
    text = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "lrfr").rglob("*.py"))
    assert all(re.search(rf'(?:stream|philox)\(\s*"{use}"', text) for use in USES)
