"""Who is compared with what: turns and ratios by an invented clock, and that a row's network is really the one it
names."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from lrfr.config import Study
from lrfr.data.degrade import degrade
from lrfr.deploy import cost as latency
from lrfr.models.student import StudentNet, build_student, normalise
from tests.deploy.conftest import SIZE, Exported

RUNS = ["protocol", "pairing", "metric", "fold", "seed", "model", "resolution", "value"]  # columns of runs.csv


@pytest.fixture
def values(tiny_values: dict) -> Study:
    """The tiny study's parameters, without its files."""
    return Study(**tiny_values | {"benchmark": {"rounds": 2, "batches": 1, "latency_runs": 3}})


def network(student: StudentNet, size: int, files: dict[str, Path], *key: str) -> tuple[dict, Callable]:
    """One of the compared: its row, and what makes a timed call for a size of a batch."""
    found = latency.runners(student, size, files, 1)
    return {(row["network"], row["runtime"]): (row, prepare) for row, prepare in found}[key]


def test_buffers_are_bytes_and_no_parameters():
    cost = latency.counts(nn.BatchNorm2d(3), torch.zeros(1, 3, 4, 4))
    assert (cost["params"], cost["macs"], cost["bytes"]) == (6, 0, 4 * 12 + 8)  # mean, variance, and an int64 counter


@pytest.fixture
def measured(values: Study, changed: Callable[..., Study], monkeypatch: pytest.MonkeyPatch) -> Callable:
    """`measure` of two invented networks, on a clock of one's own."""

    def of(call: Callable[[str, int], object], seconds: Callable, batch: int, rounds: int, runs: int) -> pd.DataFrame:
        found = [({"network": name}, lambda size, name=name: lambda: call(name, size)) for name in "ab"]
        monkeypatch.setattr(latency, "runners", lambda *arguments: found)
        monkeypatch.setattr(latency, "limit_threads", lambda threads: None)
        monkeypatch.setattr(latency, "seconds", seconds)
        study = changed(values, {"benchmark.rounds": rounds, "benchmark.latency_runs": runs})
        return latency.measure(study, "plain", {}, 1, (batch,))

    return of


def test_every_network_has_its_turn_in_every_round(measured: Callable):
    """The call of one face before a turn, and the first call of all, are not timed."""
    log: list[object] = []

    def seconds(call: Callable[[], object]) -> float:
        call()
        log[-1] = (*log[-1], "timed")
        return float(len(log))

    table = measured(lambda *call: log.append(call), seconds, 2, rounds=2, runs=5)
    turn = [[(name, 1), *[(name, 2, "timed")] * 2] for name in "ab"]
    assert log == [("a", 2), ("b", 2), *turn[0], *turn[1], *turn[0], *turn[1]]
    assert table.median_ms.tolist() == [1000 * (5 + 10) / 2, 1000 * (8 + 13) / 2]
    assert table.ratio.tolist() == [1, pytest.approx((7.5 / 4.5 + 13.5 / 10.5) / 2)]
    log.clear()
    measured(lambda *call: log.append(call), seconds, 64, rounds=1, runs=5)
    assert log.count(("a", 64, "timed")) == 1  # at least one batch


def test_a_slow_round_changes_no_ratio(measured: Callable):
    """Both sides of a ratio are of one round; milliseconds and faces per second are medians over all calls."""
    first = np.array([[1.0, 2.0, 3.0], [10.0, 20.0, 30.0], [1.0, 2.0, 3.0]]) / 1000

    def of(second: np.ndarray) -> pd.DataFrame:
        script = iter(np.stack([first, second], axis=1).ravel())  # round, network, call
        return measured(lambda *call: None, lambda call: next(script), 64, rounds=3, runs=3 * 64)

    table = of(4 * first)
    assert table.ratio.tolist() == [1, 4] and table.median_ms.tolist() == pytest.approx([3, 12])
    assert table.low_ms.tolist() == pytest.approx([2, 8]) and table.high_ms.tolist() == pytest.approx([10, 40])
    assert table.faces_per_second[0] == pytest.approx(64 / 0.003)
    # the second was slow in another round: 10, 1/10 and 1
    assert of(first[[1, 0, 2]]).ratio.tolist() == pytest.approx([1, 1])


def test_the_student_is_timed_from_small_faces_to_unit_vectors(values: Study):
    net = build_student(values.student, "plain", values.views.size, values.seed).eval()
    row, prepare = network(net, values.views.size, {}, "student", "torch")
    faces = latency.prepare(latency.FACE, np.asarray, np.asarray, 3)()
    assert faces.shape == (3, 16, 16, 3)
    with torch.inference_mode():
        found = prepare(3)()
        views = torch.from_numpy(degrade(faces, latency.FACE, values.views.size))
        expected = torch.nn.functional.normalize(net(normalise(views)).embedding)
    assert torch.allclose(found, expected, atol=1e-6)
    assert row["params"] == sum(p.numel() for p in net.parameters()) and row["input"] == "uint8 16 x 16"


def test_the_exported_student_does_the_same_work(exported_plain: Exported):
    path = exported_plain.paths[0]
    (eager, eager_call), (exported, exported_call) = (
        network(exported_plain.student, SIZE, {"onnx": path}, "student", runtime) for runtime in ("torch", "onnx")
    )
    for batch in (1, 5):
        with torch.inference_mode():
            assert np.allclose(exported_call(batch)(), eager_call(batch)().numpy(), atol=1e-5)
    assert exported == {**eager, "runtime": "onnx", "megabytes": path.stat().st_size / 1e6}


def test_dlibs_own_network_is_the_ported_one(exported_plain: Exported):
    pytest.importorskip("dlib")
    (ported, ported_call), (own, own_call) = (
        network(exported_plain.student, SIZE, {}, latency.DLIB, runtime) for runtime in ("torch", "dlib")
    )
    with torch.inference_mode():
        assert np.allclose(np.array(own_call(2)()), ported_call(2)().embedding.numpy(), atol=1e-4)
    assert (own["runtime"], own["input"], ported["input"]) == ("dlib", "uint8 150 x 150", "float 150 x 150")


def table() -> pd.DataFrame:
    names = [("student", "onnx"), ("student", "onnx int8"), ("student", "torch"), ("dlib_resnet", "torch")]
    names += [("dlib_resnet", "dlib"), ("inception_resnet_v1", "torch"), ("mobilefacenet", "torch")]
    return pd.DataFrame(names, columns=["network", "runtime"])


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple]:
    """What an executor was asked for, in place of processes; it answers with a table of ones."""
    asked = []

    class Executor:
        def __init__(self, workers: int, context: object) -> None:
            assert workers == 1 and context.get_start_method() == "spawn"

        def __enter__(self) -> Executor:
            return self

        def __exit__(self, *error: object) -> None:
            pass

        def submit(self, function: Callable, study: Study, *arguments: object) -> Executor:
            asked.append(arguments)
            return self

        def result(self) -> pd.DataFrame:
            return table().assign(**dict.fromkeys(latency.ORDER[2:], 1))

    monkeypatch.setattr(latency, "ProcessPoolExecutor", Executor)
    return asked


@pytest.mark.parametrize(
    ("teacher", "setting", "owners"),
    [
        ("dlib_resnet", "pretrained", ["kd", "", "kd", "teacher", "teacher", "", ""]),
        ("dlib_resnet", "head", ["kd", "", "kd", "", "", "", ""]),
        ("inception_resnet_v1", "pretrained", ["kd", "", "kd", "", "", "", ""]),
    ],
)
def test_errors_stand_only_where_the_weights_are_the_same(
    values: Study,
    changed: Callable[..., Study],
    monkeypatch: pytest.MonkeyPatch,
    asked: list,
    teacher: str,
    setting: str,
    owners: list[str],
):
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    error = {("kd", "16"): 0.1, ("kd", "hr"): 0.2, ("teacher", "16"): 0.3, ("scratch", "16"): 0.4}
    rows = [(protocol, pairing, metric, fold, seed, *cell, value) for protocol in ("dense", "official")
            for pairing in ("lr_lr", "hr_lr") for metric in ("eer", "auc") for fold, seed in ((0, 0), (0, 1), (1, 0))
            for cell, value in error.items()]  # fmt: skip
    runs = pd.DataFrame(rows, columns=RUNS)
    right = (
        (runs.protocol == "dense") & (runs.pairing == "lr_lr") & (runs.metric == "eer") & (runs.fold + runs.seed == 0)
    )
    runs.loc[~right, "value"] = 9.0
    study = changed(values, {"teacher.name": teacher, "teacher.setting": setting})
    found = latency.latency(study, "kd", runs).fillna(-1)
    assert found.eer_16.tolist() == [error.get((owner, "16"), -1) for owner in owners]
    assert found.eer_hr.tolist() == [error.get((owner, "hr"), -1) for owner in owners]


def test_exported_files_are_found_by_name_and_left_out_without_the_runtime(
    values: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: list
):
    def exported(model: str) -> dict[str, Path]:
        latency.latency(values, model, pd.DataFrame(columns=RUNS))
        return asked[-1][1]

    monkeypatch.chdir(tmp_path)
    folder = values.runs / "export"
    folder.mkdir(parents=True)
    for name in ("tiny-kd.onnx", "tiny-kd-int8.onnx", "tiny-scratch.onnx"):
        (folder / name).touch()
    monkeypatch.setattr(latency.importlib.util, "find_spec", lambda name: object())
    assert exported("kd") == {
        "onnx": folder / "tiny-kd.onnx",
        "onnx int8": folder / "tiny-kd-int8.onnx",
    }
    assert list(exported("scratch")) == ["onnx"] and exported("hkdd") == {}
    monkeypatch.setattr(latency.importlib.util, "find_spec", lambda name: None)
    assert exported("kd") == {}


def test_one_process_a_number_of_threads(values: Study, monkeypatch: pytest.MonkeyPatch):
    """The whole table, really measured on one thread; without exported files the eager student is the reference."""
    monkeypatch.setattr(latency, "BATCHES", (1, 2))
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    runs = pd.DataFrame([("dense", "lr_lr", "eer", 0, 0, "kd", "16", 0.25)])
    runs.columns = RUNS
    found = latency.latency(values, "kd", runs)
    rows = found.set_index(["network", "runtime", "threads", "batch"]).sort_index()
    assert rows.index.is_unique and set(found.threads) == {1} and set(found.batch) == {1, 2}
    assert set(found.network) == {"student", "dlib_resnet", "inception_resnet_v1", "mobilefacenet"}
    assert (rows.ratio["student", "torch"] == 1).all() and rows.eer_16["student", "torch", 1, 1] == 0.25
    measured = ["median_ms", "low_ms", "high_ms", "faces_per_second", "ratio", "megabytes", "params", "macs"]
    assert (found[measured] > 0).all(axis=None)
    assert np.allclose(found.faces_per_second, 1000 * found.batch / found.median_ms)
    assert (found.low_ms <= found.median_ms).all() and (found.median_ms <= found.high_ms).all()
    assert rows.params["inception_resnet_v1", "torch", 1, 1] > 23e6 > rows.params["dlib_resnet", "torch", 1, 1]
    assert rows.megabytes["mobilefacenet", "torch", 1, 1] == pytest.approx(4.9, abs=0.1)


@pytest.mark.parametrize(("cores", "threads"), [(8, [1, 8]), (1, [1]), (None, [1])])
def test_one_thread_and_all(
    values: Study, monkeypatch: pytest.MonkeyPatch, asked: list, cores: int | None, threads: list[int]
):
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    runs = pd.DataFrame(columns=RUNS)
    found = latency.latency(values, "se_dfd", runs)
    assert asked == [("se", {}, number, (1, 16)) for number in threads] and len(found) == 7 * len(threads)
