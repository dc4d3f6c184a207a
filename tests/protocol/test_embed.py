"""The embedding files: every model, fold, seed and resolution, in the order of the held-out images."""

from __future__ import annotations

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

RESOLUTIONS = ("8", "16", "hr")


@pytest.fixture
def students(tiny: Study, changed: Callable[..., Study]) -> Study:
    """Two models with two seeds each; their students are fresh ones."""
    models = {name: tiny.models[name].model_dump() for name in ("scratch", "se_dfd")}
    study = changed(tiny, {"models": models, "arms": {}, "tuning.grid": {}, "train.seeds": (0, 1)})
    for name, model in study.models.items():
        for seed in study.train.seeds:
            state = build_student(study.student, model.student, study.views.size, seed + 5).state_dict()
            half = {key: t.half() if t.is_floating_point() else t for key, t in state.items()}
            save_tensors(study.reports / "students" / name / f"fold0-seed{seed}.safetensors", half)
    return study


def arrays(study: Study, name: str) -> dict[str, np.ndarray]:
    with np.load(study.runs / "embeddings" / f"{name}.npz") as file:
        return dict(file)


def test_the_stage(students: Study, changed: Callable[..., Study]):
    study = students
    embed.run(study)
    folder, fold = study.runs / "embeddings", read_fold(study, 0)
    names = {path.stem for path in folder.iterdir()}
    assert names == {"scratch", "se_dfd", "teacher", "random_net", "raw_pixels", "teacher_settings"}
    for name in ("scratch", "se_dfd"):
        found = arrays(study, name)
        assert set(found) == {f"fold0/seed{seed}/{r}" for seed in (0, 1) for r in RESOLUTIONS}
        assert all(x.shape == (18, 32) and x.dtype == np.float32 and np.isfinite(x).all() for x in found.values())
    for name in ("random_net", "raw_pixels"):
        assert set(arrays(study, name)) == {f"fold0/seed0/{r}" for r in RESOLUTIONS}
    settings = arrays(study, "teacher_settings")
    assert set(settings) == {f"fold0/{s}/{r}" for s in ("pretrained", "head", "last_stage") for r in RESOLUTIONS}
    assert not any(path.is_dir() for path in folder.iterdir()) and not list(study.runs.glob("tmp*"))

    # rows: the student's own embedding of the fourth held-out face at 8 pixels
    net = embed.load_student(study, "scratch", 0, 1)
    row = embed.embed_views(net, fold.views[fold.held_out[3:4], 0])
    assert np.allclose(arrays(study, "scratch")["fold0/seed1/8"][3], row, atol=1e-5)
    # the teacher fed with the upsampled face, whole network in one pass
    trained = load_trained(study, 0, study.teacher.setting)
    found = arrays(study, "teacher")
    with torch.inference_mode():
        for resolution in RESOLUTIONS:
            chip = torch.from_numpy(fold.chips[fold.held_out[3:4]])
            seen = chip if resolution == "hr" else degrade(chip, int(resolution), 150)
            raw = trained.net(teacher_input(seen)).embedding
            assert np.allclose(found[f"fold0/seed0/{resolution}"][3], raw[0], atol=1e-5)
    standardised = (found["fold0/seed0/hr"] - trained.mean.numpy()) / trained.rms.numpy()
    assert np.allclose(found["fold0/seed0/standardised"], standardised, atol=1e-5)
    assert all(np.array_equal(settings[f"fold0/head/{r}"], found[f"fold0/seed0/{r}"]) for r in RESOLUTIONS)
    assert not np.array_equal(settings["fold0/pretrained/hr"], settings["fold0/last_stage/hr"])
    pixels = arrays(study, "raw_pixels")["fold0/seed0/hr"]
    expected = fold.views[fold.held_out, -1].reshape(18, -1).astype(np.float64)
    assert np.allclose(pixels, expected - expected.mean(1, keepdims=True), atol=1e-3)

    # two processes write the same bytes
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    embed.run(changed(study, {"jobs": 2}))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_views_are_those_of_the_held_out_people_unmirrored(tiny: Study):
    fold = read_fold(tiny, 0)
    for resolution, view in (("8", 0), ("16", 8), ("hr", 9)):
        assert np.array_equal(embed.views_at(tiny, fold, resolution), fold.views[fold.held_out, view])


def official(study: Study) -> pd.DataFrame:
    """Two official folds, as `prepare` writes them; pairs of photographs that the fold tests, and of others."""
    rows = [(0, fold, a, b, 1) for fold, a, b in ((0, 0, 35), (1, 7, 14), (0, 3, 8), (1, 20, 1))]
    table = pd.DataFrame(rows, columns=["fold", "official_fold", "image_a", "image_b", "same"])
    table.to_csv(study.runs / "official.csv", index=False)
    return table


def test_the_other_protocols(students: Study, changed: Callable[..., Study]):
    embed.run(students)
    plain = {
        name: arrays(students, name) for name in ("scratch", "teacher", "teacher_settings", "random_net", "raw_pixels")
    }
    study = changed(students, {"evaluate.misaligned": 0.03, "evaluate.official": True, "evaluate.resolutions": (8, 16)})
    used = np.unique(official(study)[["image_a", "image_b"]])
    embed.run(study)
    fold, moved = read_fold(study, 0), [f"fold0/seed0/misaligned-{r}" for r in ("8", "16", "32")]
    for name, before in plain.items():  # what was there stays as it was, bit for bit
        after = arrays(study, name)
        assert all(np.array_equal(after[key], array) for key, array in before.items())
        if name == "teacher_settings":
            assert set(after) - set(before) == {"view2", "view2_images"}
        else:
            assert {key for key in set(after) - set(before) if "seed0" in key} == set(moved)
            assert all(
                after[key].shape == after["fold0/seed0/hr"].shape and np.isfinite(after[key]).all() for key in moved
            )
    # one face by hand: moved, degraded, embedded
    row, image = 3, int(fold.held_out[3])
    chip = embed.misalign(fold.chips[image], 0.03, study.seed, image)
    student, teacher = arrays(study, "scratch"), arrays(study, "teacher")
    for resolution in (8, 16, 32):
        view = degrade(chip[None], resolution, study.views.size)
        expected = embed.embed_views(embed.load_student(study, "scratch", 0, 1), view)
        assert np.allclose(student[f"fold0/seed1/misaligned-{resolution}"][row], expected[0], atol=1e-5)
        flat = view.reshape(-1).astype(np.float64)
        assert np.allclose(
            arrays(study, "raw_pixels")[f"fold0/seed0/misaligned-{resolution}"][row], flat - flat.mean(), atol=1e-3
        )
    trained = load_trained(study, 0, study.teacher.setting)
    pretrained = load_trained(study, 0, "pretrained")
    settings = arrays(study, "teacher_settings")
    assert np.array_equal(settings["view2_images"], used) and settings["view2"].shape == (len(used), 128)
    with torch.inference_mode():
        seen = degrade(torch.from_numpy(chip[None]), 16, 150)
        raw = trained.net(teacher_input(seen)).embedding
        assert np.allclose(teacher["fold0/seed0/misaligned-16"][row], raw[0], atol=1e-5)
        raw = pretrained.net(teacher_input(torch.from_numpy(fold.chips[used[-1:]]))).embedding
        assert np.allclose(settings["view2"][-1], raw[0], atol=1e-5)
    # two processes write the same bytes
    folder = study.runs / "embeddings"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    embed.run(changed(study, {"jobs": 2}))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_settings_are_embedded_where_they_are_compared(students: Study, changed: Callable[..., Study]):
    study = changed(students, {"evaluate.resolutions": (8, 12, 16)})
    assert embed.settings_at(study, "8") == embed.SETTINGS and embed.settings_at(study, "12") == (
        study.teacher.setting,
    )
    assert set(embed.teacher_embeddings(study, "12", None)) == {(0, study.teacher.setting)}


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
    more, folder = changed(students, {"run_seeds": ("scratch-seed5",)}), students.reports / "students"
    save_tensors(
        folder / "scratch-seed5" / "fold0-seed5.safetensors", read_state(folder / "scratch" / "fold0-seed1.safetensors")
    )
    embed.run(more)
    found = arrays(more, "scratch")
    assert {key.split("/")[1] for key in found} == {"seed0", "seed1", "seed5"}
    assert all(np.array_equal(found[key], found[key.replace("seed5", "seed1")]) for key in found if "seed5" in key)
    assert {key.split("/")[1] for key in arrays(more, "se_dfd")} == {"seed0", "seed1"}


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


def test_the_same_arrays_give_the_same_bytes(tmp_path: Path):
    arrays = {"fold0/seed0/8": np.arange(6, dtype=np.float32).reshape(2, 3)}
    for name in ("a.npz", "b.npz"):
        embed.save_arrays(tmp_path / name, arrays)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    with np.load(tmp_path / "a.npz") as file:
        assert np.array_equal(file["fold0/seed0/8"], arrays["fold0/seed0/8"])
