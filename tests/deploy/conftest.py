"""Real faces, without a detector; and a tiny study with two students that dvc.lock knows."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from torch import nn

from lrfr.config import Student, Study
from lrfr.data.degrade import degrade
from lrfr.data.splits import identity_folds
from lrfr.deploy import onnx_graph
from lrfr.deploy.release import dvc_md5
from lrfr.models.student import StudentNet, build_student, normalise
from lrfr.protocol import embed
from lrfr.train.checkpoint import save_tensors
from tests.deploy import students

SIZE = 32


@pytest.fixture(scope="session")
def chips() -> np.ndarray:
    """uint8 (24, 150, 150, 3): three photographs of each of eight people of ORL, cropped as `prepare` does without
    landmarks."""
    return students.orl_chips(range(1, 9), 3)


class Exported(NamedTuple):
    student: StudentNet
    paths: tuple[Path, Path]  # float32, int8
    calibration: np.ndarray


def exported(kind: str, folder: Path, chips: np.ndarray, spec: Student) -> Exported:
    """Graphs of a student whose batch norms have statistics of real faces, and weights that folding them could get
    wrong."""
    for package in onnx_graph.PACKAGES:
        pytest.importorskip(package)
    student, generator = build_student(spec, kind, SIZE, 0), torch.Generator().manual_seed(1)
    for module in student.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5, generator=generator)
            nn.init.uniform_(module.bias, -0.5, 0.5, generator=generator)
    views = np.concatenate([degrade(chips, side, SIZE) for side in (8, 16, 32)])
    student.train()
    with torch.no_grad():
        for _ in range(15):
            student(normalise(torch.from_numpy(views)))
    paths = folder / "float.onnx", folder / "int8.onnx"
    calibration = np.concatenate([degrade(chips[::2], side, SIZE) for side in (8, 16, 32)])
    onnx_graph.export_onnx(student.eval(), SIZE, paths[0])
    onnx_graph.quantise(*paths, calibration)
    return Exported(student, paths, calibration)


@pytest.fixture(scope="session")
def exported_plain(tmp_path_factory, composed: Callable[[str], dict], chips: np.ndarray) -> Exported:
    return exported("plain", tmp_path_factory.mktemp("export"), chips, Study(**composed("orl")).student)


@pytest.fixture(scope="session")
def exported_se(tmp_path_factory, composed: Callable[[str], dict], chips: np.ndarray) -> Exported:
    return exported("se", tmp_path_factory.mktemp("export"), chips, Study(**composed("orl")).student)


def write_lock(study: Study, models: tuple[str, ...] = ("kd", "scratch")) -> None:
    """A dvc.lock that knows what is there now."""
    tables, folders = study.reports / "tables", [study.reports / "students" / name for name in models]
    known = [study.runs / "embeddings", tables / "tuning.csv", tables / "results.csv", *folders]
    outs = [{"path": path.as_posix(), "md5": dvc_md5(path)} for path in known]
    parameters = {"params.yaml": {"study": study.study, "train": {"epochs": 3, "learning_rate": 0.002}}}
    lock = {"schema": "2.0", "stages": {"all": {"params": parameters, "outs": outs}}}
    Path("dvc.lock").write_text(yaml.safe_dump(lock), encoding="utf-8")


@pytest.fixture
def study(tiny: Study, changed: Callable[..., Study]) -> Study:
    """The tiny study with two people in each role: untrained students, their embeddings, what a card reads, and a
    dvc.lock."""
    study = changed(tiny, {"faces.folds": 3, "evaluate.far": (0.5, 0.01)})  # of 36 impostor pairs 0.01 allows none
    identity_folds(study.faces.people, 3, 2, study.seed).to_csv(study.runs / "folds.csv", index=False)
    tables, embeddings = study.reports / "tables", study.runs / "embeddings"
    tables.mkdir(parents=True)
    embeddings.mkdir()
    Path("params.yaml").write_text(yaml.safe_dump(json.loads(study.model_dump_json())), encoding="utf-8")
    (seen := Path("seen")).mkdir()
    embed.held_out_views(study, seen)
    for seed, name in enumerate(("kd", "scratch")):
        state = build_student(study.student, "plain", study.views.size, seed).state_dict()
        halves = {key: tensor.half() if tensor.is_floating_point() else tensor for key, tensor in state.items()}
        folder = study.reports / "students" / name
        save_tensors(folder / "fold0-seed0.safetensors", halves)
        (folder / "log.csv").write_text("fold,seed,epoch,term,value\n0,0,0,face,1\n", encoding="utf-8")
        embed.student_embeddings(study, name, seen, embeddings)
    rows = [("kd", "weight", "1", "validation_eer@16", 0.2, 1)]
    rows += [("ranking", "model", name, "validation_eer@16", 0.1, int(name == "kd")) for name in ("kd", "scratch")]
    columns = ["method", "weight", "candidate", "metric", "value", "chosen"]
    pd.DataFrame(rows, columns=columns).to_csv(tables / "tuning.csv", index=False)
    results = [
        (protocol, name, "lr_lr", side, metric, 0.2, 0.1, None if side == "hr" else 0.3)
        for name in ("kd", "scratch")
        for side in ("16", "8", "12", "hr")  # 12 is in no card
        for protocol, metric in (("dense", "eer"), ("dense", "auc"), ("official", "accuracy"))
    ]
    columns = ["protocol", "model", "pairing", "resolution", "metric", "value", "low", "high"]
    pd.DataFrame(results, columns=columns).assign(seeds=1).to_csv(tables / "results.csv", index=False)
    write_lock(study)
    return study
