"""Costs that can be counted are exact; costs in seconds are only there; the environment says what explains them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import nn

from lrfr.config import Study
from lrfr.deploy import cost as benchmark
from lrfr.train.distill import Trainer
from lrfr.train.fold import read_fold
from lrfr.train.trainings import training


def write_log(study: Study, epochs: int) -> None:
    """The log of a conventional scheme whose teacher was tuned for some epochs."""
    log = study.reports / "students" / "kd_tuned_teacher" / "log.csv"
    log.parent.mkdir(parents=True)
    rows = [(0, 0, epoch, "teacher_face", 1.0) for epoch in range(1, epochs + 1)] + [
        (0, 0, 0, "teacher_validation_eer", 0.5)
    ]
    pd.DataFrame(rows, columns=["fold", "seed", "epoch", "term", "value"]).to_csv(log, index=False)


def schemes(study: Study) -> pd.DataFrame:
    cost = pd.DataFrame({"model": ["kd"], "epoch_seconds": [0.5]})
    return benchmark.schemes(study, cost, {"kd_lr_online": 4.0, "kd_online": 2.0}).set_index("scheme")


@pytest.mark.parametrize(("batches", "tuning"), [(30, 1 + 1), (2, 1 + 1), (1, 2 + 1)])
def test_whole_schemes_add_up(
    tiny: Study, changed: Callable[..., Study], monkeypatch: pytest.MonkeyPatch, batches: int, tuning: int
):
    """With a clock that gives one second to everything, the arithmetic shows: an epoch of the teacher has two
    batches."""
    monkeypatch.setattr(benchmark, "seconds", lambda function, *arguments: 1.0)
    write_log(tiny, 3)
    table = schemes(changed(tiny, {"benchmark.batches": batches}))
    epochs, teacher = tiny.train.epochs, 3 * tuning
    assert table.total_seconds.tolist() == [teacher + 4.0 * epochs, 2.0 * epochs, 1 + 0.5 * epochs]
    assert table.teacher_epochs.tolist() == [3, 0, 0]
    assert table.speedup.tolist() == pytest.approx([1, (teacher + 12) / 6, (teacher + 12) / 2.5])


def test_a_teachers_epoch_counts_its_own_batches(
    tiny: Study, changed: Callable[..., Study], monkeypatch: pytest.MonkeyPatch
):
    """Of people with very many photographs an epoch holds a part, so that it has fewer batches than there are
    photographs."""
    monkeypatch.setattr(benchmark, "seconds", lambda function, *arguments: 1.0)
    monkeypatch.setattr(benchmark, "epoch_batches", lambda *arguments: [None] * 7)
    write_log(tiny, 1)
    study = changed(tiny, {"benchmark.batches": 2})
    assert schemes(study)[["teacher_epochs", "teacher_seconds"]].values.tolist()[0] == [1, 7 / 2 + 1]


def test_caching_is_timed_on_a_part_and_scaled(tiny: Study, monkeypatch: pytest.MonkeyPatch):
    seen = []

    def seconds(function: Callable[..., object], *arguments: object) -> float:
        if function is benchmark.fill:
            seen.append(arguments)
        return 2.0

    monkeypatch.setattr(benchmark, "seconds", seconds)
    write_log(tiny, 1)
    assert schemes(tiny).targets_seconds.tolist() == [0, 0, 2.0]  # the whole of a small fold
    monkeypatch.setattr(benchmark, "CACHED", 6)
    assert schemes(tiny).targets_seconds.tolist() == [0, 0, 2.0 * 18 / 6]
    assert [arguments[-2:] for arguments in seen] == [(0, 18), (0, 6)]
    assert not seen[0][3].exists()  # nothing is left on disk


@pytest.mark.parametrize("batches", [1, 30])
def test_epochs_are_timed_by_their_first_batches(
    tiny: Study, changed: Callable[..., Study], monkeypatch: pytest.MonkeyPatch, batches: int
):
    """Every batch takes a second of an invented clock, an epoch has two, and another model's takes twice as long."""
    names = ("scratch", "kd", "feature")
    models = {name: tiny.models[name].model_dump() for name in names}
    study = changed(
        tiny, {"models": models, "arms": {}, "tuning.grid": {}, "benchmark.batches": batches, "benchmark.rounds": 3}
    )
    clock, seen = [0.0], []

    def epoch(self: Trainer, number: int, measure: bool = False, most: int | None = None) -> None:
        seen.append((number, measure))
        online = self.source.online is not None and self.source.cached is None
        clock[0] += len(self.batches(number)[:most]) * (1 + (self.model.method == "feature") + 4 * online)

    def seconds(function: Callable[..., object], *arguments: object) -> float:
        start = clock[0]
        function(*arguments)
        return clock[0] - start

    monkeypatch.setattr(Trainer, "epoch", epoch)
    monkeypatch.setattr(benchmark, "seconds", seconds)
    table, extra = benchmark.epoch_costs(study)
    table = table.set_index("model")
    assert table.epoch_seconds.to_dict() == {"scratch": 2, "kd": 2, "feature": 4}
    assert table.epoch_ratio.to_dict() == {"scratch": 1, "kd": 1, "feature": 2}
    assert table.online_epoch_ratio[["kd", "feature"]].tolist() == [10 / 2, 12 / 2]
    assert extra == {"kd_online": 10, "kd_lr_online": 10} and set(seen) == {(study.train.epochs - 1, False)}


def test_throughput_counts_the_images_of_the_batches(
    tiny: Study, changed: Callable[..., Study], monkeypatch: pytest.MonkeyPatch
):
    """Seconds of an invented clock: the first round is a warm-up, and medians are taken."""
    study = changed(tiny, {"benchmark.batches": 1, "benchmark.rounds": 3})
    script = iter([9.0, 9.0, 9.0, 1.0, 2.0, 4.0, 1.0, 2.0, 4.0, 5.0, 8.0, 8.0])
    monkeypatch.setattr(benchmark, "seconds", lambda function, *arguments: next(script))
    table = benchmark.throughput(study)
    assert list(table.columns) == ["part", "images_per_second", "share"]
    assert table.part.tolist() == ["data path", "forward and backward", "whole loop"]
    images = len(Trainer(training(study, "scratch"), read_fold(study, 0), 0).batches(study.train.epochs - 1)[0][0])
    assert table.images_per_second.tolist() == [images / 1, images / 2, images / 4] and table.share.tolist() == [
        2,
        1,
        0.5,
    ]
    assert next(script, None) is None


def write_tables(study: Study) -> None:
    """What the validation people chose, and the error rates that stand beside the times."""
    folder = study.reports / "tables"
    folder.mkdir(parents=True)
    (folder / "tuning.csv").write_text("method,candidate,chosen\nranking,se_dfd,1\nranking,kd,0\n", encoding="utf-8")
    (folder / "runs.csv").write_text(
        "model,fold,seed,resolution,protocol,value\nse_dfd,0,0,16,dense,0.25\n", encoding="utf-8"
    )


def compared(study: Study, model: str, results: pd.DataFrame) -> pd.DataFrame:
    """In place of the comparison with other networks, which has tests of its own."""
    assert model == "se_dfd" and results.resolution.tolist() == ["16"]
    table = {"network": ["student", "mobilefacenet"], "threads": 1, "batch": 1, "median_ms": [1.23456, 2.5]}
    return pd.DataFrame(table).assign(eer_16=[results.value[0], math.nan])


def test_the_stage_writes_its_tables_and_nothing_else(
    tiny: Study, changed: Callable[..., Study], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(benchmark, "THROUGHPUT_BATCH", 2)
    monkeypatch.setattr(benchmark, "latency", compared)
    models = {name: tiny.models[name].model_dump() for name in ("scratch", "kd", "se_dfd", "kd_tuned_teacher")}
    study = changed(tiny, {"models": models, "arms": {}, "tuning.grid": {}, "train.epochs": 1, "benchmark.batches": 1})
    write_log(study, 1)
    write_tables(study)
    benchmark.run(study)
    written = {path.relative_to(study.reports).as_posix() for path in study.reports.rglob("*.*")}
    tables = {
        f"tables/{name}.{kind}" for name in ("cost", "schemes", "throughput", "latency") for kind in ("csv", "md")
    }
    read = {"students/kd_tuned_teacher/log.csv", "tables/runs.csv", "tables/tuning.csv"}
    assert written == {"environment.json", *read, *tables}
    beside = pd.read_csv(study.reports / "tables" / "latency.csv")
    assert beside.median_ms.tolist() == [1.235, 2.5] and beside.eer_16[0] == 0.25 and math.isnan(beside.eer_16[1])
    page = (study.reports / "tables" / "latency.md").read_text(encoding="utf-8")
    assert page.count("\n## ") == 1 and "## 1 thread, 1 face at a time" in page and "nan" not in page
    assert "that of `se_dfd`" in page and "| student | 1.235 | 0.25 |" in page and "| mobilefacenet | 2.5 |  |" in page
    cost = pd.read_csv(study.reports / "tables" / "cost.csv").set_index("model")
    assert set(cost.index) == {*models, "teacher"}
    columns = [
        "params",
        "macs",
        "bytes",
        "latency_ms",
        "throughput",
        "epoch_seconds",
        "epoch_ratio",
        "online_epoch_ratio",
    ]
    assert list(cost.columns) == columns
    assert (cost[["latency_ms", "throughput"]] > 0).all(axis=None)
    assert cost.epoch_ratio["scratch"] == 1 and math.isnan(cost.epoch_seconds["teacher"])
    assert cost.online_epoch_ratio[["kd", "se_dfd"]].notna().all() and math.isnan(cost.online_epoch_ratio["scratch"])
    assert cost.params["teacher"] > 5e6 > cost.params["kd"] == cost.params["scratch"] != cost.params["se_dfd"]
    assert len(pd.read_csv(study.reports / "tables" / "schemes.csv")) == 3
    rates = pd.read_csv(study.reports / "tables" / "throughput.csv").set_index("part")
    assert (rates > 0).all(axis=None) and rates.share["forward and backward"] == 1


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
    cost = benchmark.counts(net.train(), torch.zeros(1, 3, side, side))
    assert (cost["params"], cost["macs"], cost["bytes"]) == (params, macs, 4 * params)
    assert not net.training  # measured as it is deployed


def test_the_environment_holds_versions_and_nothing_private(tiny: Study):
    found = json.loads(json.dumps(benchmark.environment(tiny)))
    assert set(found) == {"python", "system", "processor", "instructions", "cores", "threads", "packages"}
    assert set(benchmark.PACKAGES[:7]) <= set(found["packages"]) <= set(benchmark.PACKAGES)
    assert found["threads"] == tiny.threads and "/" not in "".join(found["packages"].values())


X86 = "processor\t: 0\nmodel name\t: Fast: 3 GHz\nflags\t\t: fpu avx2 avx512_vnni avx512_vnni_x\n\n"
X86 += "processor\t: 1\nflags\t: fpu\n"
ARM = "processor\t: 0\nBogoMIPS\t: 50.00\nFeatures\t: fp asimd asimddp\n"


@pytest.mark.parametrize(
    ("text", "name", "instructions"),
    [(X86, "Fast: 3 GHz", ["avx2", "avx512_vnni"]), (ARM, "unnamed", ["asimd", "asimddp"]), ("", "unnamed", None)],
    ids=["x86", "arm", "silent"],
)
def test_instructions_are_those_of_the_first_core(
    tiny: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, name: str, instructions: list[str] | None
):
    (tmp_path / "cpuinfo").write_text(text, encoding="utf-8")
    monkeypatch.setattr(benchmark, "CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(benchmark.platform, "processor", lambda: "unnamed")
    found = benchmark.environment(tiny)
    assert (found["processor"], found["instructions"]) == (name, instructions)
    monkeypatch.setattr(benchmark, "CPUINFO", tmp_path / "absent")
    found = benchmark.environment(tiny)
    assert (found["processor"], found["instructions"]) == ("unnamed", None)
