"""The stage: the same files for any number of processes, and a student exported alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from lrfr.config import Study
from lrfr.models.student import build_student
from lrfr.train import distill
from lrfr.train.distill import Trainer
from lrfr.train.fold import read_fold
from lrfr.train.trainings import training


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_two_processes_train_what_one_does(tiny: Study, changed: Callable[..., Study]):
    found = []
    for jobs in (1, 2):
        study = changed(tiny, {"jobs": jobs, "train.seeds": (0, 1)})
        distill.run(study, "feature")
        found.append(
            [contents(folder) for folder in (study.reports / "students" / "feature", study.runs / "heads" / "feature")]
        )
    assert found[0] == found[1]
    names = [f"fold0-seed{seed}.safetensors" for seed in (0, 1)]
    students, heads = found[0]
    assert set(students) == {*names, "log.csv", "gradients.csv"} and set(heads) == set(names)
    assert (
        students[names[0]] != students[names[1]] and heads[names[0]] != heads[names[1]]
    )  # another seed is another student


def test_the_logs_of_a_stage(tiny: Study):
    distill.run(tiny, "hkdd")
    folder = tiny.reports / "students" / "hkdd"
    log, gradients = pd.read_csv(folder / "log.csv"), pd.read_csv(folder / "gradients.csv")
    assert list(log.columns) == ["fold", "seed", "epoch", "term", "value"]
    counts = log.groupby("term").size().to_dict()
    validated = {f"validation_eer_{resolution}" for resolution in (8, 12, 16)}
    assert counts["face"] == tiny.train.epochs and all(counts[term] == 1 for term in validated)  # after the last epoch
    assert set(counts) == {"face", "hfd", "dkd", *validated}
    assert log[log.term.isin(validated)].value.between(0, 1).all() and np.isfinite(log.value).all()
    assert list(gradients.columns) == ["fold", "seed", "when", "progress", "term", "stage", "ratio"]
    assert list(gradients.when.unique()) == ["start", "early", "end"]
    assert set(gradients.term) == {"hfd", "dkd"} and (gradients.ratio > 0).all()
    assert (gradients.groupby(["term", "when"]).stage.agg(list).map(len) == 4).all()  # both reach all four
    assert np.allclose(sorted(set(gradients.progress)), [1 / 3, 2 / 3, 1])


@pytest.mark.parametrize("model", ["hkdd", "fitnet", "icd_face", "acs_review", "se_dfd"])
def test_the_exported_student_holds_nothing_but_the_student(tiny: Study, changed: Callable[..., Study], model: str):
    study = changed(tiny, {"train.epochs": 1})
    distill.run(study, model)
    own = build_student(study.student, study.models[model].student, study.views.size, 0).state_dict()
    student = load_file(study.reports / "students" / model / "fold0-seed0.safetensors")
    assert student.keys() == own.keys()
    for name, tensor in student.items():  # in half precision, but for what is counted
        assert (
            tensor.dtype == (torch.float16 if own[name].is_floating_point() else own[name].dtype)
            and tensor.isfinite().all()
        )
    head = load_file(study.runs / "heads" / model / "fold0-seed0.safetensors")
    assert head["weight"].shape == (3, study.student.embedding) and head["weight"].dtype == torch.float32
    assert any(name.startswith("method.") for name in head)


def test_a_stored_student_is_the_trained_one_rounded(tiny: Study, changed: Callable[..., Study]):
    study = changed(tiny, {"train.epochs": 1})
    distill.run(study, "scratch")
    trainer = Trainer(training(study, "scratch"), read_fold(study, 0), 0)
    trainer.epoch(0)
    stored = load_file(study.reports / "students" / "scratch" / "fold0-seed0.safetensors")
    for name, tensor in trainer.student.module.state_dict().items():
        assert torch.equal(stored[name], tensor.half() if tensor.is_floating_point() else tensor)
    head = load_file(study.runs / "heads" / "scratch" / "fold0-seed0.safetensors")
    assert torch.equal(head["weight"], trainer.head.weight)
