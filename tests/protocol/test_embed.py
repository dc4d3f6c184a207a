"""The embedding files: every model, fold, seed and resolution, in the order of the held-out images."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from lrfr.config import Study
from lrfr.data.degrade import degrade
from lrfr.errors import UserError
from lrfr.gate.state import read_state
from lrfr.models.student import build_student
from lrfr.protocol import embed
from lrfr.train.checkpoint import save_tensors
from lrfr.train.fold import read_fold, teacher_input
from lrfr.train.teacher import load_trained

RESOLUTIONS, MOVED = ("8", "16", "hr"), ("8", "16", "32")
OFFICIAL = [
    ("official", *row) for row in ((0, 0, 0, 35, 1), (0, 1, 7, 14, 1), (0, 0, 3, 8, 1), (0, 1, 20, 1, 1))
]  # tested by the fold, and others


def with_students(study: Study, **changes: object) -> Study:
    """Two models with two seeds each, and their students, which are fresh ones; below the current folder."""
    values = study.model_dump() | {"arms": {}} | changes
    values["models"] = {name: values["models"][name] for name in ("scratch", "se_dfd")}
    values["tuning"] |= {"grid": {}}
    values["train"] |= {"seeds": (0, 1)}
    study = Study(**values)
    for name, model in study.models.items():
        for seed in study.train.seeds:
            state = build_student(study.student, model.student, study.views.size, seed + 5).state_dict()
            half = {key: t.half() if t.is_floating_point() else t for key, t in state.items()}
            save_tensors(study.reports / "students" / name / f"fold0-seed{seed}.safetensors", half)
    return study


@pytest.fixture
def students(tiny: Study) -> Study:
    return with_students(tiny)


@pytest.fixture(scope="module")
def embedded(trained_study: tuple[Study, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, Path]:
    """After the stage, in one process and without the other protocols (folder `plain`), then in two and with them."""
    study, source = trained_study
    folder = tmp_path_factory.mktemp("embedded")
    shutil.copytree(source, folder, dirs_exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        embed.run(with_students(study))
        (study.runs / "embeddings").rename(study.runs / "plain")
        evaluate = study.evaluate.model_dump() | {"misaligned": 0.03, "official": True}
        study = with_students(study, evaluate=evaluate, jobs=2)
        columns = ["list", "fold", "official_fold", "image_a", "image_b", "same"]
        pd.DataFrame(OFFICIAL, columns=columns).to_csv(study.runs / "official.csv", index=False)
        embed.run(study)
    return study, folder


@pytest.fixture
def stage(embedded: tuple[Study, Path], monkeypatch: pytest.MonkeyPatch) -> Study:
    """For reading only; the test runs inside."""
    monkeypatch.chdir(embedded[1])
    return embedded[0]


def arrays(study: Study, name: str, folder: str = "embeddings") -> dict[str, np.ndarray]:
    with np.load(study.runs / folder / f"{name}.npz") as file:
        return dict(file)


def test_every_array_is_there(stage: Study):
    names = {path.stem for path in (stage.runs / "plain").iterdir()}
    assert names == {"scratch", "se_dfd", "teacher", "random_net", "raw_pixels", "teacher_settings"}
    for name in ("scratch", "se_dfd"):
        found = arrays(stage, name, "plain")
        assert set(found) == {f"fold0/seed{seed}/{r}" for seed in (0, 1) for r in RESOLUTIONS}
        assert all(x.shape == (18, 32) and x.dtype == np.float32 and np.isfinite(x).all() for x in found.values())
    for name in ("random_net", "raw_pixels"):
        assert set(arrays(stage, name, "plain")) == {f"fold0/seed0/{r}" for r in RESOLUTIONS}
    settings = arrays(stage, "teacher_settings", "plain")
    assert set(settings) == {f"fold0/{s}/{r}" for s in ("pretrained", "head", "last_stage") for r in RESOLUTIONS}
    assert not any(path.is_dir() for path in (stage.runs / "embeddings").iterdir())
    assert not list(stage.runs.glob("tmp*"))


def test_rows_are_the_held_out_faces(stage: Study):
    """The fourth held-out face, at every resolution, through whole networks in one pass."""
    fold = read_fold(stage, 0)
    net = embed.load_student(stage, "scratch", 0, 1)
    row = embed.embed_views(net, fold.views["area"][fold.held_out[3:4], 0])
    assert np.allclose(arrays(stage, "scratch")["fold0/seed1/8"][3], row, atol=1e-5)
    trained = load_trained(stage, 0, stage.teacher.setting)
    found, settings = arrays(stage, "teacher"), arrays(stage, "teacher_settings")
    with torch.inference_mode():
        for resolution in RESOLUTIONS:  # the teacher is fed with the upsampled face
            chip = torch.from_numpy(fold.chips[fold.held_out[3:4]])
            seen = chip if resolution == "hr" else degrade(chip, int(resolution), 150)
            raw = trained.net(teacher_input(seen)).embedding
            assert np.allclose(found[f"fold0/seed0/{resolution}"][3], raw[0], atol=1e-5)
    standardised = (found["fold0/seed0/hr"] - trained.mean.numpy()) / trained.rms.numpy()
    assert np.allclose(found["fold0/seed0/standardised"], standardised, atol=1e-5)
    assert all(np.array_equal(settings[f"fold0/head/{r}"], found[f"fold0/seed0/{r}"]) for r in RESOLUTIONS)
    assert not np.array_equal(settings["fold0/pretrained/hr"], settings["fold0/last_stage/hr"])
    pixels = arrays(stage, "raw_pixels")["fold0/seed0/hr"]
    expected = fold.views["area"][fold.held_out, -1].reshape(18, -1).astype(np.float64)
    assert np.allclose(pixels, expected - expected.mean(1, keepdims=True), atol=1e-3)


def test_processes_and_other_protocols_change_nothing(stage: Study):
    moved = {f"fold0/seed0/misaligned-{r}" for r in MOVED}
    for path in (stage.runs / "plain").iterdir():  # what was there stays as it was, bit for bit
        before, after = arrays(stage, path.stem, "plain"), arrays(stage, path.stem)
        assert all(np.array_equal(after[key], array) for key, array in before.items())
        if path.stem == "teacher_settings":
            assert set(after) - set(before) == {"view2", "view2_images"}
        else:
            assert {key for key in set(after) - set(before) if "seed0" in key} == moved
            assert all(after[key].shape == after["fold0/seed0/hr"].shape for key in moved)
            assert all(np.isfinite(after[key]).all() for key in moved)


def test_one_misaligned_face_by_hand(stage: Study):
    """Moved, degraded, embedded."""
    fold, row = read_fold(stage, 0), 3
    image = int(fold.held_out[row])
    chip = embed.misalign(fold.chips[image], 0.03, stage.seed, image)
    student, pixels = arrays(stage, "scratch"), arrays(stage, "raw_pixels")
    for resolution in MOVED:
        view = degrade(chip[None], int(resolution), stage.views.size)
        expected = embed.embed_views(embed.load_student(stage, "scratch", 0, 1), view)
        assert np.allclose(student[f"fold0/seed1/misaligned-{resolution}"][row], expected[0], atol=1e-5)
        flat = view.reshape(-1).astype(np.float64)
        assert np.allclose(pixels[f"fold0/seed0/misaligned-{resolution}"][row], flat - flat.mean(), atol=1e-3)
    trained = load_trained(stage, 0, stage.teacher.setting)
    with torch.inference_mode():
        seen = degrade(torch.from_numpy(chip[None]), 16, 150)
        raw = trained.net(teacher_input(seen)).embedding
    assert np.allclose(arrays(stage, "teacher")["fold0/seed0/misaligned-16"][row], raw[0], atol=1e-5)


def test_view_2_holds_the_photographs_of_the_official_pairs(stage: Study):
    settings, used = arrays(stage, "teacher_settings"), np.unique([row[3:5] for row in OFFICIAL])
    assert np.array_equal(settings["view2_images"], used) and settings["view2"].shape == (len(used), 128)
    pretrained = load_trained(stage, 0, "pretrained")
    with torch.inference_mode():
        raw = pretrained.net(teacher_input(torch.from_numpy(read_fold(stage, 0).chips[used[-1:]]))).embedding
    assert np.allclose(settings["view2"][-1], raw[0], atol=1e-5)


def test_views_are_those_of_the_held_out_people_unmirrored(tiny: Study):
    fold = read_fold(tiny, 0)
    for resolution, view in (("8", 0), ("16", 8), ("hr", 9)):
        expected = fold.views["area"][fold.held_out, view]
        assert np.array_equal(embed.views_at(tiny, fold.held_out, resolution), expected)


def test_settings_are_embedded_where_they_are_compared(students: Study, changed: Callable[..., Study]):
    study = changed(students, {"evaluate.resolutions": (8, 12, 16)})
    assert set(embed.teacher_embeddings(study, "12", None)) == {(0, study.teacher.setting)}
    assert set(embed.teacher_embeddings(study, "16", None)) == {(0, setting) for setting in embed.SETTINGS}


def test_misplaced_landmarks_move_a_face_by_about_their_noise():
    """The mean shift over faces of the chip's centre: the mean of five points' noise, 0.03 * 150 / sqrt(5) an axis."""
    ramp = np.tile(np.arange(150, dtype=np.uint8)[None, :, None], (150, 1, 3))  # grey is the column
    spread = 0.03
    shifts = [embed.misalign(ramp, spread, 0, image)[75, 75, 0] - 75.0 for image in range(200)]
    assert np.std(shifts) == pytest.approx(spread * 150 / np.sqrt(5), rel=0.2) and abs(np.mean(shifts)) < 0.5
    same, other, seed = (embed.misalign(ramp, spread, s, image) for s, image in ((0, 3), (0, 4), (1, 3)))
    assert np.array_equal(same, embed.misalign(ramp, spread, 0, 3))
    assert not np.array_equal(same, other) and not np.array_equal(same, seed)
    assert np.abs(embed.misalign(ramp, 1e-9, 0, 3).astype(int) - ramp).max() <= 1


def test_a_student_computes_in_float32_with_the_values_of_its_file(students: Study):
    net = embed.load_student(students, "scratch", 0, 0)
    path = students.reports / "students" / "scratch" / "fold0-seed0.safetensors"
    for name, tensor in read_state(path).items():
        own = net.state_dict()[name]
        assert own.dtype == (torch.float32 if tensor.is_floating_point() else tensor.dtype)
        assert torch.equal(own, tensor.to(own.dtype)) and tensor.dtype in (torch.float16, torch.int64)


def test_a_further_seed_lies_in_a_folder_of_its_own(students: Study, changed: Callable[..., Study]):
    more, folder = (
        changed(students, {"variants": {"scratch-seed5": {"like": "scratch", "seed": 5}}}),
        students.reports / "students",
    )
    save_tensors(
        folder / "scratch-seed5" / "fold0-seed5.safetensors", read_state(folder / "scratch" / "fold0-seed1.safetensors")
    )
    (views := Path("seen")).mkdir()
    embed.held_out_views(more, views)
    for name in ("scratch", "se_dfd"):
        embed.student_embeddings(more, name, views, Path())
    found, other = dict(np.load("scratch.npz")), dict(np.load("se_dfd.npz"))
    assert {key.split("/")[1] for key in found} == {"seed0", "seed1", "seed5"}
    assert all(np.array_equal(found[key], found[key.replace("seed5", "seed1")]) for key in found if "seed5" in key)
    assert {key.split("/")[1] for key in other} == {"seed0", "seed1"}


def test_a_student_of_another_architecture_is_refused(students: Study):
    folder = students.reports / "students"
    (folder / "scratch" / "fold0-seed0.safetensors").write_bytes(
        (folder / "se_dfd" / "fold0-seed0.safetensors").read_bytes()
    )
    with pytest.raises(
        UserError, match="students/scratch/fold0-seed0.safetensors: a checkpoint of another architecture"
    ):
        embed.load_student(students, "scratch", 0, 0)
    with pytest.raises(UserError, match="fold0-seed7.safetensors"):
        embed.load_student(students, "scratch", 0, 7)
