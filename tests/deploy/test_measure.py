"""Costs that can be counted are exact; costs in seconds are only there; the environment says what explains them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from lrfr.config import Study
from lrfr.deploy import measure


@pytest.mark.parametrize(
    ("net", "side", "params", "macs"),
    [
        (nn.Conv2d(3, 8, 3, padding=1, bias=False), 16, 8 * 3 * 9, 8 * 3 * 9 * 16 * 16),
        (nn.Conv2d(3, 8, 3, stride=2, padding=1), 16, 8 * 3 * 9 + 8, 8 * 3 * 9 * 8 * 8),
        (nn.Conv2d(3, 6, 3, groups=3, bias=False), 16, 6 * 9, 6 * 9 * 14 * 14),
        (nn.Sequential(nn.Flatten(), nn.Linear(3 * 16, 5)), 4, 3 * 16 * 5 + 5, 3 * 16 * 5),
    ],
    ids=["convolution", "strided", "grouped", "linear"],
)
def test_parameters_and_multiplications_are_counted_exactly(net: nn.Module, side: int, params: int, macs: int):
    cost = measure.network_cost(net.train(), torch.zeros(1, 3, side, side), 1)
    assert (cost["params"], cost["macs"], cost["bytes"]) == (params, macs, 4 * params)
    assert cost["latency_ms"] > 0 and cost["throughput"] > 0
    assert not net.training  # measured as it is deployed


def test_buffers_are_bytes_and_no_parameters():
    cost = measure.counts(nn.BatchNorm2d(3), torch.zeros(1, 3, 4, 4))
    assert (cost["params"], cost["macs"], cost["bytes"]) == (6, 0, 4 * 12 + 8)  # mean, variance, and an int64 counter


def test_the_environment_holds_versions_and_nothing_private(tiny: Study):
    found = json.loads(json.dumps(measure.environment(tiny)))
    assert set(found) == {"python", "system", "processor", "instructions", "cores", "threads", "packages"}
    assert set(measure.PACKAGES) <= set(found["packages"]) <= {*measure.PACKAGES, *measure.OPTIONAL}
    assert found["threads"] == tiny.threads and "/" not in "".join(found["packages"].values())


X86 = "processor\t: 0\nmodel name\t: Fast: 3 GHz\nflags\t\t: fpu avx2 avx512_vnni avx512_vnni_x\n\nprocessor\t: 1\nflags\t: fpu\n"
ARM = "processor\t: 0\nBogoMIPS\t: 50.00\nFeatures\t: fp asimd asimddp\n"


@pytest.mark.parametrize(
    ("text", "name", "instructions"),
    [(X86, "Fast: 3 GHz", ["avx2", "avx512_vnni"]), (ARM, "unnamed", ["asimd", "asimddp"]), ("", "unnamed", None)],
    ids=["x86", "arm", "silent"],
)
def test_instructions_are_those_of_the_first_core(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, name: str, instructions: list[str] | None
):
    (tmp_path / "cpuinfo").write_text(text, encoding="utf-8")
    monkeypatch.setattr(measure, "CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(measure.platform, "processor", lambda: "unnamed")
    assert measure.processor() == (name, instructions)
    monkeypatch.setattr(measure, "CPUINFO", tmp_path / "absent")
    assert measure.processor() == ("unnamed", None)
