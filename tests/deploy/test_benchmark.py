"""Costs that can be counted are exact; costs in seconds are only there."""

from __future__ import annotations

import json
import math
from collections.abc import Callable

import pandas as pd
import pytest
import torch
from torch import nn

from lrfr.config import Study
from lrfr.deploy import benchmark


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
    cost = benchmark.network_cost(net.train(), torch.zeros(1, 3, side, side), 1)
    assert (cost["params"], cost["macs"], cost["bytes"]) == (params, macs, 4 * params)
    assert cost["latency_ms"] > 0 and cost["throughput"] > 0
    assert not net.training  # measured as it is deployed


def test_buffers_are_bytes_and_no_parameters():
    cost = benchmark.network_cost(nn.BatchNorm2d(3), torch.zeros(1, 3, 4, 4), 1)
    assert (cost["params"], cost["macs"], cost["bytes"]) == (6, 0, 4 * 12 + 8)  # mean, variance, and an int64 counter


def test_the_environment_holds_versions_and_nothing_private(tiny: Study):
    found = json.loads(json.dumps(benchmark.environment(tiny)))
    assert set(found) == {"python", "system", "processor", "cores", "threads", "packages"}
    assert set(found["packages"]) == set(benchmark.PACKAGES) and found["threads"] == tiny.threads
    assert "/" not in "".join(found["packages"].values())


def test_whole_schemes_add_up(tiny: Study, monkeypatch: pytest.MonkeyPatch, tmp_path):
    """With a clock that gives one second to everything, the arithmetic shows."""
    monkeypatch.setattr(benchmark, "seconds", lambda function, *arguments: 1.0)
    log = tiny.runs / "students" / "kd_tuned_teacher" / "log.csv"
    log.parent.mkdir(parents=True)
    rows = [(0, 0, epoch, "teacher_face", 1.0) for epoch in (1, 2, 3)] + [(0, 0, 0, "teacher_validation_eer", 0.5)]
    pd.DataFrame(rows, columns=["fold", "seed", "epoch", "term", "value"]).to_csv(log, index=False)
    cost = pd.DataFrame({"model": ["kd"], "epoch_seconds": [0.5]})
    table = benchmark.schemes(tiny, cost, {"kd_lr_online": 4.0, "kd_online": 2.0}, tmp_path / "targets").set_index("scheme")
    epochs = tiny.train.epochs
    assert table.total_seconds.tolist() == [3 + 4.0 * epochs, 2.0 * epochs, 1 + 0.5 * epochs]
    assert table.teacher_epochs.tolist() == [3, 0, 0]
    assert table.speedup.tolist() == pytest.approx([1, (3 + 12) / 6, (3 + 12) / 2.5])


def test_the_stage_writes_its_tables_and_nothing_else(
    tiny: Study, changed: Callable[..., Study], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(benchmark, "THROUGHPUT_BATCH", 2)
    models = {name: tiny.models[name].model_dump() for name in ("scratch", "kd", "se_dfd", "kd_tuned_teacher")}
    study = changed(tiny, {"models": models, "arms": {}, "train.epochs": 1})
    log = study.runs / "students" / "kd_tuned_teacher" / "log.csv"
    log.parent.mkdir(parents=True)
    pd.DataFrame([(0, 0, 1, "teacher_face", 1.0)], columns=["fold", "seed", "epoch", "term", "value"]).to_csv(log, index=False)
    benchmark.run(study)
    assert sorted(path.relative_to(study.reports).as_posix() for path in study.reports.rglob("*.*")) == [
        *("environment.json", "tables/cost.csv", "tables/cost.md", "tables/schemes.csv", "tables/schemes.md")
    ]
    cost = pd.read_csv(study.reports / "tables" / "cost.csv").set_index("model")
    assert set(cost.index) == {*models, "teacher"}
    columns = ["params", "macs", "bytes", "latency_ms", "throughput", "epoch_seconds", "epoch_ratio", "online_epoch_ratio"]
    assert list(cost.columns) == columns
    assert cost.epoch_ratio["scratch"] == 1 and math.isnan(cost.epoch_seconds["teacher"])
    assert cost.online_epoch_ratio[["kd", "se_dfd"]].notna().all() and math.isnan(cost.online_epoch_ratio["scratch"])
    assert cost.params["teacher"] > 5e6 > cost.params["kd"] == cost.params["scratch"] != cost.params["se_dfd"]
    assert len(pd.read_csv(study.reports / "tables" / "schemes.csv")) == 3
