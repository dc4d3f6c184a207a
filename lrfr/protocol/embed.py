"""Embed the held-out people of every fold with every network at every resolution: all that the evaluation reads.

Two stages. `references` needs no trained student: what students will see of the held-out faces, the teacher and other
published networks fed with the small faces as they are, and two floors, raw pixels and a network of random weights.
`embed` is for the students, with the float16 weights that are published; all see the same faces under every condition,
whatever they were trained on. So a model more, or another training of one, costs the embedding of students alone.

Protocol `misaligned` asks what misplaced landmarks do. Each of the five points of a face is moved by noise, and the
chip is warped by the transform that would then have aligned the face; beyond its border its edge pixels are repeated.

Arrays are float32 (rows, D), rows as in `lrfr.protocol.folds`. Keys are fold<k>/seed<s>/<resolution>, with the
condition before the resolution, as in `camera-16` and `misaligned-16`; teacher.npz has fold<k>/seed<s>/standardised as
well, and teacher_settings.npz fold<k>/<setting>/<resolution> and, where there are official pairs, `view2` with the
rows' image numbers in `view2_images`.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lrfr.config import Study
from lrfr.data import align
from lrfr.data.degradations import DEGRADATIONS, small_images
from lrfr.files import atomic_folder
from lrfr.gate.state import insert_state, read_state
from lrfr.models.student import Pretrained, StudentNet, build_student, kind_of, normalise, student_view
from lrfr.parallel import parallel_map
from lrfr.protocol.folds import MISPLACED, conditions
from lrfr.streams import stream
from lrfr.train.fold import read_fold
from lrfr.train.trainings import folds_of, seeds_of, with_arms

BATCH, CHUNK = 50, 200  # images a forward pass, faces a task that warps
VIEWS = "views"  # folder beside the references' embeddings


def held_out_images(study: Study) -> np.ndarray:
    """Images of the embedding files of all folds of the run together, ascending."""
    return np.unique(np.concatenate([read_fold(study, number).held_out for number in study.faces.run_folds]))


def keys(study: Study) -> dict[str, tuple[str, str]]:
    """Last part of a key -> condition and resolution, as `lrfr.protocol.folds.conditions`."""
    pairs = ((condition, name) for condition, names in conditions(study).items() for name in names)
    return {f"{condition}-{name}" if condition else name: (condition, name) for condition, name in pairs}


def misalign(chip: np.ndarray, spread: float, seed: int, image: int) -> np.ndarray:
    """A chip uint8 (S, S, 3) had its landmarks been moved by noise of (seed, image); spread: in sides of 150 pixels."""
    rng, template = stream("misaligned", seed, image), align.TEMPLATE + (chip.shape[0] - align.CHIP) // 2
    points = template + rng.normal(0, spread * align.CHIP, template.shape)
    return align.warp(Image.fromarray(chip), align.inverse(align.similarity(points, template)), chip.shape[0])


def small_faces(study: Study, key: str, images: np.ndarray) -> tuple[Tensor, int]:
    """Faces as a camera stores them, uint8 (n, s, s, 3), and the side of the chip in their middle, in small pixels.

    images: int (n,).
    """
    condition, resolution = keys(study)[key]
    chips = np.load(study.runs / "chips.npy", mmap_mode="r")[images]
    if condition == MISPLACED:
        spread = study.evaluate.misaligned
        chips = np.stack([misalign(c, spread, study.seed, int(i)) for c, i in zip(chips, images, strict=True)])
    if resolution == "hr":
        return torch.from_numpy(chips), align.CHIP
    kind = condition if condition in DEGRADATIONS else "area"
    return small_images(kind, chips, int(resolution), study.seed, images), int(resolution)


def fill(study: Study, folder: Path, rows: slice, images: np.ndarray) -> None:
    """Fill some rows of the files of `held_out_views`; no other process writes these."""
    for key in keys(study):
        array = np.load(folder / f"{key}.npy", mmap_mode="r+")
        array[rows] = student_view(*small_faces(study, key, images), study.views.size).numpy()
        array.flush()


def held_out_views(study: Study, folder: Path) -> None:
    """What our own students see of the held-out faces: <key>.npy, uint8 (n, S, S, 3), rows as `held_out_images`."""
    images, size = held_out_images(study), study.views.size
    for name in keys(study):
        np.lib.format.open_memmap(folder / f"{name}.npy", "w+", np.uint8, (len(images), size, size, 3)).flush()
    parts = (slice(first, first + CHUNK) for first in range(0, len(images), CHUNK))
    tasks = [(study, folder, rows, images[rows]) for rows in parts]
    parallel_map(fill, tasks, study.jobs, study.threads, "held-out faces")


def batches(study: Study, key: str, images: np.ndarray) -> Iterator[tuple[np.ndarray, Tensor, int]]:
    """Images, a batch at a time, with their `small_faces`; images: int (n,)."""
    for start in range(0, len(images), BATCH):
        some = images[start : start + BATCH]
        yield some, *small_faces(study, key, some)


def seen(study: Study, student: str, key: str, images: np.ndarray, views: Path) -> Iterator[Tensor]:
    """What a kind of student sees of held-out faces, a batch at a time: uint8 (b, S, S, 3).

    student: `Model.student`. images: int (n,). Our own networks share the stored views.
    """
    if student == "adapted":
        see = kind_of(study.student, student, study.views.size).see
        yield from (see(faces, side) for _, faces, side in batches(study, key, images))
        return
    stored = np.load(views / f"{key}.npy", mmap_mode="r")
    rows = np.searchsorted(held_out_images(study), images)
    yield from (torch.from_numpy(stored[rows[i : i + BATCH]]) for i in range(0, len(rows), BATCH))


def embed_batches(net: StudentNet | Pretrained, views: Iterable[Tensor]) -> np.ndarray:
    """Float32 (n, D) of batches of views uint8 (b, S, S, 3)."""
    with torch.inference_mode():
        return torch.cat([net(normalise(some)).embedding for some in views]).numpy()


def embed_views(net: StudentNet | Pretrained, views: np.ndarray) -> np.ndarray:
    """Float32 (n, D) of views uint8 (n, S, S, 3)."""
    return embed_batches(net, (torch.from_numpy(views[i : i + BATCH]) for i in range(0, len(views), BATCH)))


def load_student(study: Study, name: str, number: int, seed: int) -> StudentNet:
    """A trained student in eval mode: float32, with the values of the file, which is in float16."""
    folder = name if seed in study.train.seeds else f"{name}-seed{seed}"
    path = study.reports / "students" / folder / f"fold{number}-seed{seed}.safetensors"
    net = build_student(study.student, study.models[name].student, study.views.size, seed)
    state = {key: t.float() if t.dtype == torch.float16 else t for key, t in read_state(path).items()}
    insert_state(net, state, path)
    return net.eval()


def student_embeddings(study: Study, name: str, views: Path, folder: Path) -> None:
    """Write the file of one student."""
    arrays, student = {}, study.models[name].student
    for number in folds_of(study, name):
        images = read_fold(study, number).held_out
        for seed in seeds_of(study, name):
            net = load_student(study, name, number, seed)
            for key in keys(study):
                arrays[f"fold{number}/seed{seed}/{key}"] = embed_batches(net, seen(study, student, key, images, views))
    np.savez(folder / f"{name}.npz", **arrays)


def run(study: Study) -> None:
    """The `embed` stage: <model>.npz of every trained model and arm."""
    armed, views = with_arms(study), study.runs / "references" / VIEWS
    with atomic_folder(study.runs / "embeddings") as folder:
        students = [(armed, name, views, folder) for name in armed.models]
        parallel_map(student_embeddings, students, study.jobs, study.threads, "students")
