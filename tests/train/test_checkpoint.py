"""Files that outlive a process: the same tensors are the same bytes; a training goes on bit for bit, or starts anew."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from lrfr.config import Study
from lrfr.data.splits import identity_folds
from lrfr.errors import UserError
from lrfr.train import distill
from lrfr.train.checkpoint import load_state, resume_folder, save_state, save_tensors
from lrfr.train.distill import Trainer
from lrfr.train.trainings import plan_file


def build(width: int = 33) -> tuple[dict[str, nn.Module], torch.optim.Optimizer]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        modules = {"student": nn.Sequential(nn.Conv2d(8, width, 3), nn.BatchNorm2d(width)), "head": nn.Linear(width, 2)}
    modules["student"].to(memory_format=torch.channels_last)
    parameters = [p for module in modules.values() for p in module.parameters()]
    groups = [{"params": parameters[:2], "weight_decay": 0.1}, {"params": parameters[2:], "weight_decay": 0.0}]
    return modules, torch.optim.AdamW(groups, lr=0.01)


def steps(modules: dict[str, nn.Module], optimizer: torch.optim.Optimizer, first: int, last: int) -> None:
    for step in range(first, last):
        for group in optimizer.param_groups:
            group["lr"] = 0.01 / (step + 1)
        x = torch.randn(4, 8, 6, 6, generator=torch.Generator().manual_seed(step))
        loss = modules["head"](modules["student"](x).mean((2, 3))).square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def everything(modules: dict[str, nn.Module], optimizer: torch.optim.Optimizer) -> list[Tensor]:
    moments = [state[name] for state in optimizer.state_dict()["state"].values() for name in sorted(state)]
    return [t for module in modules.values() for t in module.state_dict().values()] + moments


def test_training_goes_on_bit_for_bit(tmp_path: Path):
    straight = build()
    steps(*straight, 0, 6)
    first = build()
    steps(*first, 0, 3)
    save_state(tmp_path / "state", *first, {"epoch": 3, "log": [(0, "face", 0.1 + 0.2)]})
    second = build()
    progress = load_state(tmp_path / "state", *second)
    assert progress["epoch"] == 3 and progress["log"][0][2] == 0.1 + 0.2
    steps(*second, 3, 6)
    assert all(torch.equal(a, b) for a, b in zip(everything(*straight), everything(*second), strict=True))


def test_there_is_nothing_to_resume_at_first(tmp_path: Path):
    modules, optimizer = build()
    assert load_state(tmp_path / "absent", modules, optimizer) is None


def test_a_state_of_another_network_is_refused(tmp_path: Path):
    save_state(tmp_path / "state", *build(32), {"epoch": 1})
    with pytest.raises(UserError, match="another architecture: '0.weight' should be"):
        load_state(tmp_path / "state", *build(33))


def test_a_damaged_state_is_refused(tmp_path: Path):
    save_state(tmp_path / "state", *build(), {"epoch": 1})
    path = tmp_path / "state" / "state.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(UserError, match="state.safetensors"):
        load_state(tmp_path / "state", *build())


def test_a_state_replaces_the_one_before_and_a_failed_one_does_not(tmp_path: Path):
    modules, optimizer = build()
    save_state(tmp_path / "state", modules, optimizer, {"epoch": 1})
    save_state(tmp_path / "state", modules, optimizer, {"epoch": 2})
    with pytest.raises(TypeError):
        save_state(tmp_path / "state", modules, optimizer, {"epoch": object()})  # no JSON
    assert load_state(tmp_path / "state", modules, optimizer) == {"epoch": 2}
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


def test_the_same_tensors_give_the_same_bytes(tmp_path: Path):
    tensor = torch.arange(24.0).reshape(1, 2, 3, 4).to(memory_format=torch.channels_last).requires_grad_(True)
    save_tensors(tmp_path / "deep" / "a.safetensors", {"x": tensor, "y": torch.ones(2)})
    save_tensors(tmp_path / "b.safetensors", {"y": torch.ones(2), "x": tensor.detach().contiguous()})
    assert (tmp_path / "deep" / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    assert torch.equal(load_file(tmp_path / "b.safetensors")["x"], tensor)


def test_the_folder_is_a_hash_of_the_whole_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.delenv("LRFR_CACHE", raising=False)
    key = {"train": {"epochs": 3, "rate": 0.1}, "code": "abc", "seed": 0}
    assert resume_folder(key) == resume_folder({"seed": 0, "code": "abc", "train": {"rate": 0.1, "epochs": 3}})
    others = [
        key | {"seed": 1},
        key | {"code": "abd"},
        key | {"train": {"epochs": 3, "rate": 0.2}},
        {**key, "more": None},
    ]
    assert len({resume_folder(k) for k in (key, *others)}) == 5
    assert resume_folder(key).parts[0] == ".cache"
    monkeypatch.setenv("LRFR_CACHE", str(tmp_path))
    assert resume_folder(key).is_relative_to(tmp_path)


class Killed(Exception):
    pass


def outputs(study: Study, model: str) -> tuple[Path, Path]:
    return study.reports / "students" / model, study.runs / "heads" / model


def trained(study: Study, model: str) -> dict[str, bytes]:
    """Student, head, log and gradients of a whole stage."""
    distill.run(study, model)
    files = {path.as_posix(): path.read_bytes() for folder in outputs(study, model) for path in folder.iterdir()}
    for folder in outputs(study, model):
        shutil.rmtree(folder)
    assert len(files) == 4
    return files


class Watch:
    """The epochs that were really trained, and before which one the training is killed."""

    def __init__(self) -> None:
        self.trained: list[int] = []
        self.kill: int | None = None


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    """A state is saved after every epoch; the training can be killed."""
    watch, original = Watch(), Trainer.epoch

    def epoch(self: Trainer, number: int, measure: bool = False, most: int | None = None):
        if number == watch.kill:
            raise Killed
        watch.trained.append(number)
        return original(self, number, measure, most)

    monkeypatch.setattr(Trainer, "epoch", epoch)
    monkeypatch.setattr(distill, "SAVE_EVERY", 1)
    return watch


@pytest.mark.parametrize("model", ["scratch", "icd_face", "hkdd", "se_dfd"])
def test_an_interrupted_training_goes_on_bit_for_bit(
    tiny: Study,
    changed: Callable[..., Study],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    watch: Watch,
    model: str,
):
    study = changed(tiny, {"train.epochs": 2})
    monkeypatch.setenv("LRFR_CACHE", str(tmp_path / "straight"))
    straight = trained(study, model)
    assert watch.trained == [0, 1]
    monkeypatch.setenv("LRFR_CACHE", str(tmp_path / "interrupted"))
    watch.trained, watch.kill = [], 1
    with pytest.raises(Killed):
        trained(study, model)
    assert watch.trained == [0] and not any(folder.exists() for folder in outputs(study, model))
    watch.trained, watch.kill = [], None
    resumed = trained(study, model)
    assert watch.trained == [1] and resumed == straight
    assert not list((tmp_path / "interrupted").rglob("*.safetensors"))  # done: a forced rerun starts from the beginning


def state_folders(study: Study, model: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Where the trainings of this stage would look for their states: one a fold and seed."""
    found = []

    def spy(function: Callable, tasks: list[tuple], *rest: object) -> list[tuple[list, list]]:
        assert function is distill.train_one
        found.extend(task[3].name for task in tasks)
        return [([], []) for _ in tasks]

    with monkeypatch.context() as patch:
        patch.setattr(distill, "parallel_map", spy)
        distill.run(study, model)
    return found


def state_folder(study: Study, model: str, monkeypatch: pytest.MonkeyPatch) -> str:
    return state_folders(study, model, monkeypatch)[0]


@pytest.mark.parametrize(
    "change",
    [
        {"train.learning_rate": 0.001},
        {"train.epochs": 4},
        {"train.people_per_batch": 1},
        {"train.rotate": 3},
        {"views.hr_probability": 0.3},
        {"student.channels": (8, 8, 12, 17)},
        {"teacher.scale": 9.0},
        {"teacher.last_stage.epochs": 2},
        {"models.scratch.views": "hr"},
        {"models.scratch.student": "se"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_changed_parameter_never_picks_up_an_old_state(
    tiny: Study, changed: Callable[..., Study], monkeypatch: pytest.MonkeyPatch, change: dict[str, object]
):
    before = state_folder(tiny, "scratch", monkeypatch)
    assert state_folder(tiny, "scratch", monkeypatch) == before
    assert state_folder(changed(tiny, change), "scratch", monkeypatch) != before


def test_another_seed_code_or_model_has_another_state(
    tiny: Study, changed: Callable[..., Study], monkeypatch: pytest.MonkeyPatch
):
    study = changed(tiny, {"train.seeds": (0, 1)})
    places = [
        place
        for model in ("scratch", "hr_student", "feature", "shuffled")
        for place in state_folders(study, model, monkeypatch)
    ]
    path = plan_file(study, "scratch")
    path.write_text(path.read_text(encoding="utf-8").replace("0123456789abcdef", "1123456789abcdef"), encoding="utf-8")
    places += state_folders(study, "scratch", monkeypatch)
    assert len(set(places)) == len(places) == 10


def other_views(study: Study) -> None:
    path = study.runs / "views" / "area.npy"
    np.save(path, 255 - np.load(path))


def other_folds(study: Study) -> None:
    table = identity_folds(study.faces.people, study.faces.folds, study.faces.validation_people, study.seed)
    table.to_csv(study.runs / "folds.csv", index=False)


def other_targets(study: Study) -> None:
    path = study.runs / "targets" / "fold0" / "plain" / "embedding.npy"
    np.save(path, np.load(path) * np.float32(1.001))


@pytest.mark.parametrize(
    ("model", "change", "left_on_disk"),
    [
        ("scratch", {}, other_views),  # another manifest, or another version of the data stages
        ("scratch", {"faces.margin": 3}, other_views),
        ("scratch", {"seed": 1}, other_folds),
        ("feature", {}, other_targets),
    ],
    ids=["faces", "margin", "seed", "targets"],
)
def test_what_an_earlier_stage_wrote_anew_never_meets_an_old_state(
    tiny: Study,
    changed: Callable[..., Study],
    monkeypatch: pytest.MonkeyPatch,
    model: str,
    change: dict,
    left_on_disk: Callable,
):
    before = state_folder(tiny, model, monkeypatch)
    study = changed(tiny, change)
    left_on_disk(study)
    assert state_folder(study, model, monkeypatch) != before
