"""The path of a researcher with licensed sets, on miniatures of ORL faces: `lrfr study paper`, `dvc repro`, tables."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml

from lrfr.benchmarks import miniatures
from lrfr.models.teachers import build_teacher
from tests.study.clone import Clone

PEOPLE, PHOTOGRAPHS = 10, 4  # of the training set
MODELS = ("scratch", "kd", "se_dfd", "icd_face")
SETS = {"tinyface": ["identification"], "survface": ["verification", "identification"], "scface": ["all subjects"]}


def shrink(path: Path) -> None:
    """What a user with little time changes in params.yaml: few models, epochs and resolutions."""
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    values["models"] = {name: values["models"][name] for name in MODELS}
    values |= {"threads": 1, "jobs": 2, "accelerator": "cpu", "arms": {}, "notebooks": []}
    values["faces"] |= {"people": PEOPLE, "validation_people": 2, "validation_images": PHOTOGRAPHS}
    values["views"] |= {"largest": 16}
    values["train"] |= {"seeds": [0], "epochs": 2, "batch": 16, "people_per_batch": 2}
    values["tuning"]["grid"] = {}
    values["teacher"] |= {"head": {"epochs": 1, "batch": 8, "learning_rate": 1e-4}}
    values["teacher"] |= {"last_stage": {"epochs": 0, "batch": 8, "learning_rate": 1e-4}}
    values["evaluate"] |= {"resolutions": [8, 16], "draws": 100, "dense_images": PHOTOGRAPHS, "impostors": None}
    values["evaluate"]["misaligned"] = None
    path.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")


@pytest.fixture(scope="module")
def brought(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a researcher brings: a training set, three benchmark sets, and the teacher's weights (random ones)."""
    folder = tmp_path_factory.mktemp("brought")
    miniatures.write_records(folder / "training", PEOPLE, PHOTOGRAPHS)
    for name in SETS:
        getattr(miniatures, f"write_{name}")(folder / name)
    (next(folder.glob("tinyface/**/Probe")) / "1_3.jpg").write_bytes(b"no image: a failed acquisition")
    torch.save(build_teacher("inception_resnet_v1", "random").net.state_dict(), folder / "weights.pt")
    return folder


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory, brought: Path) -> Clone:
    clone = Clone(tmp_path_factory.mktemp("clone"), "paper")
    options = [part for name in SETS for part in (f"--{name}", str(brought / name))]
    command = (
        "study",
        "paper",
        "--root",
        str(brought / "training"),
        "--weights",
        str(brought / "weights.pt"),
        *options,
    )
    clone.said = clone.run("python", "-m", "lrfr", *command)
    shrink(clone.folder / "params.yaml")
    clone.targets = ["summary@paper", *(f"sets@paper-{name}" for name in SETS)]
    clone.executed = clone.repro(*clone.targets)
    clone.commit()
    return clone


def test_the_tables_have_every_model_and_the_teacher(clone: Clone):
    assert {f"distill@paper-{name}" for name in MODELS} <= clone.executed
    results = pd.read_csv(clone.folder / "reports" / "paper" / "tables" / "results.csv")
    assert set(results.model) == {"teacher", *MODELS, "random_net", "raw_pixels"}
    assert results.value.between(0, 1).all()


@pytest.mark.parametrize("name", SETS)
def test_every_set_has_all_students_and_the_teacher_fed_directly(clone: Clone, name: str):
    tables = clone.folder / "reports" / "paper" / "tables"
    table = pd.read_csv(tables / f"set-{name}.csv")
    assert set(SETS[name]) <= set(table.protocol)
    for _, rows in table.groupby("protocol"):
        assert set(rows.model) == {"teacher", *MODELS}
        assert rows.groupby("model").metric.apply(set).map(len).nunique() == 1
    assert table.value.between(0, 1).all()
    pairs = pd.read_csv(tables / f"set-{name}-comparisons.csv").set_index("question").loc["teacher"]
    assert set(pairs.a) == set(MODELS) and set(pairs.b) == {"teacher"}
    value = table.set_index(["protocol", "model", "metric"]).value
    for row in pairs.itertuples():
        own, other = (value[row.protocol, model, row.metric] for model in (row.a, row.b))
        assert abs(row.diff - (own - other)) < 1e-5
    page = (tables / f"set-{name}.md").read_text(encoding="utf-8")
    assert all(f"| {model} |" in page for model in ("teacher", *MODELS))


def test_places_are_in_no_parameter_and_no_lock(clone: Clone, brought: Path):
    written = [
        *(clone.folder / "reports" / "paper" / "tables").iterdir(),
        *(clone.folder / n for n in ("params.yaml", "dvc.lock")),
    ]
    for path in written:
        assert str(brought.parent) not in path.read_text(encoding="utf-8"), path.name
    assert clone.run("git", "status", "--porcelain") == ""


def test_a_second_run_does_nothing(clone: Clone):
    assert clone.repro(*clone.targets) == set()
