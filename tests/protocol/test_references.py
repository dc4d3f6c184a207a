"""The files of networks that the study does not train, in the order of the held-out images, and what students see."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from lrfr.config import Study
from lrfr.data.degrade import degrade
from lrfr.models.student import student_view
from lrfr.protocol import embed, references
from lrfr.protocol.cells import embedding_file
from lrfr.train.fold import read_fold, teacher_input
from lrfr.train.teacher import load_trained
from tests.protocol.conftest import OFFICIAL, added, arrays

RESOLUTIONS, MOVED = ("8", "16", "hr"), ("8", "16", "32")
FLOORS = ("random_net", "raw_pixels")


def test_every_array_is_there(stage: Study):
    files = {path.stem for path in (stage.runs / "plain/references").glob("*.npz")}
    assert files == {"teacher", "teacher_settings", *FLOORS}
    keys = {f"fold0/seed0/{r}" for r in RESOLUTIONS}
    assert set(arrays(stage, "plain/references/teacher")) == keys | {"fold0/seed0/standardised"}
    for name in FLOORS:
        found = arrays(stage, f"plain/references/{name}")
        assert set(found) == keys and all(len(x) == 18 and x.dtype == np.float32 for x in found.values())
    settings = arrays(stage, "plain/references/teacher_settings")
    assert set(settings) == {f"fold0/{s}/{r}" for s in references.SETTINGS for r in RESOLUTIONS}
    for folder in ("references", "embeddings"):
        assert all(embedding_file(stage, path.stem) == path for path in (stage.runs / folder).glob("*.npz"))


def test_what_students_will_see_lies_beside(stage: Study):
    """All conditions, made by one process or two; and nothing else."""
    old, new = stage.runs / "plain/references/views", stage.runs / "references/views"
    plain, images = {f"{r}.npy" for r in RESOLUTIONS}, embed.held_out_images(stage)
    assert {path.name for path in old.iterdir()} == plain
    assert {path.name for path in new.iterdir()} == plain | {f"misaligned-{r}.npy" for r in MOVED}
    for path in new.iterdir():
        view = student_view(*embed.small_faces(stage, path.stem, images), stage.views.size)
        assert np.array_equal(np.load(path), view.numpy())
    assert all((old / name).read_bytes() == (new / name).read_bytes() for name in plain)


def test_rows_are_the_held_out_faces(stage: Study):
    """The fourth held-out face, at every resolution, through the whole teacher in one pass."""
    fold, trained = read_fold(stage, 0), load_trained(stage, 0, stage.teacher.setting)
    found, settings = arrays(stage, "references/teacher"), arrays(stage, "references/teacher_settings")
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
    pixels = arrays(stage, "references/raw_pixels")["fold0/seed0/hr"]
    expected = fold.views["area"][fold.held_out, -1].reshape(18, -1).astype(np.float64)
    assert np.allclose(pixels, expected - expected.mean(1, keepdims=True), atol=1e-3)


def test_processes_and_other_protocols_change_nothing(stage: Study):
    moved = {f"fold0/seed0/misaligned-{r}" for r in MOVED}
    for name in ("teacher", *FLOORS):
        more, shape = added(stage, f"references/{name}"), arrays(stage, f"references/{name}")["fold0/seed0/hr"].shape
        assert set(more) == moved and all(x.shape == shape and np.isfinite(x).all() for x in more.values())
    assert set(added(stage, "references/teacher_settings")) == {"view2", "view2_images"}


def test_one_misaligned_face_by_hand(stage: Study):
    """Moved, degraded, embedded."""
    fold, row = read_fold(stage, 0), 3
    image = int(fold.held_out[row])
    chip = embed.misalign(fold.chips[image], 0.03, stage.seed, image)
    pixels = arrays(stage, "references/raw_pixels")
    for resolution in MOVED:
        flat = degrade(chip[None], int(resolution), stage.views.size).reshape(-1).astype(np.float64)
        assert np.allclose(pixels[f"fold0/seed0/misaligned-{resolution}"][row], flat - flat.mean(), atol=1e-3)
    trained = load_trained(stage, 0, stage.teacher.setting)
    with torch.inference_mode():
        seen = degrade(torch.from_numpy(chip[None]), 16, 150)
        raw = trained.net(teacher_input(seen)).embedding
    assert np.allclose(arrays(stage, "references/teacher")["fold0/seed0/misaligned-16"][row], raw[0], atol=1e-5)


def test_view_2_holds_the_photographs_of_the_official_pairs(stage: Study):
    settings, used = arrays(stage, "references/teacher_settings"), np.unique([row[3:5] for row in OFFICIAL])
    assert np.array_equal(settings["view2_images"], used) and settings["view2"].shape == (len(used), 128)
    pretrained = load_trained(stage, 0, "pretrained")
    with torch.inference_mode():
        raw = pretrained.net(teacher_input(torch.from_numpy(read_fold(stage, 0).chips[used[-1:]]))).embedding
    assert np.allclose(settings["view2"][-1], raw[0], atol=1e-5)


def test_settings_are_embedded_where_they_are_compared(tiny: Study, changed: Callable[..., Study]):
    study = changed(tiny, {"evaluate.resolutions": (8, 12, 16)})
    assert set(references.teacher_embeddings(study, "12")) == {(0, study.teacher.setting)}
    assert set(references.teacher_embeddings(study, "16")) == {(0, setting) for setting in references.SETTINGS}
