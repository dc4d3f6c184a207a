"""The embedding files: every model, fold, seed and resolution, in the order of the held-out images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from lrfr.config import Study
from lrfr.data.degrade import degrade
from lrfr.errors import UserError
from lrfr.models.student import build_student
from lrfr.train import embed
from lrfr.train.checkpoint import save_tensors
from lrfr.train.faces import read_fold, teacher_input
from lrfr.train.teacher import load_trained

RESOLUTIONS = ("8", "16", "hr")


@pytest.fixture
def students(tiny: Study, changed: Callable[..., Study]) -> Study:
    """Two models with two seeds each; their students are fresh ones."""
    models = {name: tiny.models[name].model_dump() for name in ("scratch", "se_dfd")}
    study = changed(tiny, {"models": models, "arms": {}, "train.seeds": (0, 1)})
    for name, model in study.models.items():
        for seed in study.train.seeds:
            state = build_student(study.student, model.student, study.views.size, seed + 5).state_dict()
            save_tensors(study.runs / "students" / name / f"fold0-seed{seed}.safetensors", state)
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

    # rows: the student's own embedding of the fourth held-out face at 8 pixels
    net = embed.load_student(study, "scratch", 0, 1)
    row = embed.embed_views(net, fold.views[fold.held_out[3:4], 0, 0])
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
    expected = fold.views[fold.held_out, 0, -1].reshape(18, -1).astype(np.float64)
    assert np.allclose(pixels, expected - expected.mean(1, keepdims=True), atol=1e-3)

    # two processes write the same bytes
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    embed.run(changed(study, {"jobs": 2}))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_views_are_those_of_the_held_out_people_unmirrored(tiny: Study):
    fold = read_fold(tiny, 0)
    for resolution, view in (("8", 0), ("16", 8), ("hr", 9)):
        assert np.array_equal(embed.views_at(tiny, fold, resolution), fold.views[fold.held_out, 0, view])


def test_a_student_of_another_architecture_is_refused(students: Study):
    folder = students.runs / "students"
    (folder / "scratch" / "fold0-seed0.safetensors").write_bytes((folder / "se_dfd" / "fold0-seed0.safetensors").read_bytes())
    with pytest.raises(UserError, match="students/scratch/fold0-seed0.safetensors: a checkpoint of another architecture"):
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
