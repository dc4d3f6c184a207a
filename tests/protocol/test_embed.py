"""The embedding files: every student, fold, seed and resolution, in the order of the held-out images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from lrfr.config import Study
from lrfr.data.degradations import small_images
from lrfr.data.degrade import degrade
from lrfr.errors import UserError
from lrfr.gate.state import read_state
from lrfr.models.student import normalise, student_view
from lrfr.models.teachers import TEACHERS
from lrfr.protocol import embed
from lrfr.train.checkpoint import save_tensors
from lrfr.train.fold import read_fold
from tests.protocol.conftest import added, arrays, with_students

RESOLUTIONS, MOVED = ("8", "16", "hr"), ("8", "16", "32")


def test_every_array_is_there(stage: Study):
    for folder in ("embeddings", "plain/embeddings"):
        assert {path.name for path in (stage.runs / folder).iterdir()} == {"scratch.npz", "se_dfd.npz"}
    for name in ("scratch", "se_dfd"):
        found = arrays(stage, f"plain/embeddings/{name}")
        assert set(found) == {f"fold0/seed{seed}/{r}" for seed in (0, 1) for r in RESOLUTIONS}
        assert all(x.shape == (18, 32) and x.dtype == np.float32 and np.isfinite(x).all() for x in found.values())
    assert not [path for path in stage.runs.iterdir() if path.name.startswith((".", "tmp"))]


def test_rows_are_the_held_out_faces(stage: Study):
    """The fourth held-out face, through the whole network in one pass."""
    fold, net = read_fold(stage, 0), embed.load_student(stage, "scratch", 0, 1)
    row = embed.embed_views(net, fold.views["area"][fold.held_out[3:4], 0])
    assert np.allclose(arrays(stage, "embeddings/scratch")["fold0/seed1/8"][3], row, atol=1e-5)


def test_processes_and_other_protocols_change_nothing(stage: Study):
    for name in ("scratch", "se_dfd"):
        more = added(stage, f"embeddings/{name}")
        assert set(more) == {f"fold0/seed{seed}/misaligned-{r}" for seed in (0, 1) for r in MOVED}
        assert all(x.shape == (18, 32) and np.isfinite(x).all() for x in more.values())


def test_one_misaligned_face_by_hand(stage: Study):
    """Moved, degraded, embedded."""
    fold, row, student = read_fold(stage, 0), 3, arrays(stage, "embeddings/scratch")
    image = int(fold.held_out[row])
    chip = embed.misalign(fold.chips[image], 0.03, stage.seed, image)
    for resolution in MOVED:
        view = degrade(chip[None], int(resolution), stage.views.size)
        expected = embed.embed_views(embed.load_student(stage, "scratch", 0, 1), view)
        assert np.allclose(student[f"fold0/seed1/misaligned-{resolution}"][row], expected[0], atol=1e-5)


def test_a_published_network_as_a_student_sees_faces_its_own_way(tiny: Study):
    """A student of kind `adapted` is not fed with the stored views of our own networks: there are none here."""
    student = tiny.student.model_dump() | {"pretrained": {"name": "edgeface_xxs", "weights": "random"}}
    models = tiny.model_dump()["models"]
    models["scratch"] |= {"student": "adapted"}
    study = with_students(tiny, student=student, models=models)
    embed.student_embeddings(study, "scratch", Path("none"), Path())
    found, fold, net = dict(np.load("scratch.npz")), read_fold(study, 0), embed.load_student(study, "scratch", 0, 1)
    assert {key: x.shape for key, x in found.items() if "seed1" in key} == {
        f"fold0/seed1/{r}": (18, 512) for r in RESOLUTIONS
    }
    image = fold.held_out[3:4]
    sharp, small = torch.from_numpy(fold.chips[image]), small_images("area", fold.chips[image], 16, study.seed, image)
    for key, faces, side in (("hr", sharp, 150), ("16", small, 16)):
        view = TEACHERS["edgeface_xxs"].see(faces, side)
        with torch.inference_mode():
            expected = net(normalise(view)).embedding[0].numpy()
        assert view.shape == (1, 112, 112, 3)
        assert np.allclose(found[f"fold0/seed1/{key}"][3], expected, rtol=1e-4, atol=1e-4)


def test_views_are_those_of_the_held_out_people_unmirrored(tiny: Study):
    fold = read_fold(tiny, 0)
    for resolution, view in (("8", 0), ("16", 8), ("hr", 9)):
        expected = fold.views["area"][fold.held_out, view]
        assert np.array_equal(
            student_view(*embed.small_faces(tiny, resolution, fold.held_out), tiny.views.size).numpy(), expected
        )


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
