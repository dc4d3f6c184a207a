"""Embed the held-out people of every fold with every model at every resolution: all that the evaluation reads.

Students see the kind of views that they were trained on, with the float16 weights that are published; the teacher sees
upsampled low-resolution faces. Two floors need no training: raw pixels, and a network of random weights.

Protocol `misaligned` asks what misplaced landmarks do. Each of the five points of a face is moved by noise, and the
chip is warped by the transform that would then have aligned the face; beyond its border its edge pixels are repeated.

Arrays are float32 (rows, D), rows as in `lrfr.protocol.folds`. Keys are fold<k>/seed<s>/<resolution>, with
`misaligned-` before the resolution for faces with moved landmarks; teacher.npz has fold<k>/seed<s>/standardised as
well, and teacher_settings.npz fold<k>/<setting>/<resolution> and, where there are official pairs, `view2` with the
rows' image numbers in `view2_images`.
"""

import tempfile
from itertools import product
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from lrfr.config import Study
from lrfr.data import align
from lrfr.data.degrade import degrade, hr_view
from lrfr.data.draws import view_index
from lrfr.files import atomic_folder
from lrfr.gate.state import insert_state, read_state
from lrfr.models.student import StudentNet, build_student, normalise
from lrfr.models.teachers import TEACHERS
from lrfr.parallel import parallel_map
from lrfr.protocol.folds import MISALIGNED, VIEW2, official_images
from lrfr.streams import stream
from lrfr.train.fold import Fold, read_fold, teacher_input
from lrfr.train.teacher import load_trained
from lrfr.train.trainings import folds_of, seeds_of, with_arms

BATCH, CHUNK = 50, 200  # images a forward pass, faces a task that warps
RANDOM_SEED = 10_000  # of the untrained network: no student is initialised with it
SETTINGS = ("pretrained", "head", "last_stage")
COMPARED = ("hr", "16", "8")  # resolutions of tables/teacher.csv


def held_out_images(study: Study) -> np.ndarray:
    """Images of the embedding files of all folds of the run together, ascending."""
    return np.unique(np.concatenate([read_fold(study, number).held_out for number in study.faces.run_folds]))


def misalign(chip: np.ndarray, spread: float, seed: int, image: int) -> np.ndarray:
    """A chip uint8 (S, S, 3) had its landmarks been moved by noise of (seed, image); spread: in sides of the chip."""
    rng = stream("misaligned", seed, image)
    points = align.TEMPLATE + rng.normal(0, spread * align.CHIP, align.TEMPLATE.shape)
    return align.warp(Image.fromarray(chip), align.inverse(align.similarity(points, align.TEMPLATE)), chip.shape[0])


def misalign_chunk(study: Study, first: int, images: np.ndarray, folder: Path) -> None:
    """Fill rows first, first + 1, ... of both files of `misalign_faces`; no other process writes these."""
    source = align.inner(np.load(study.runs / "chips.npy", mmap_mode="r"))
    moved = np.stack([misalign(source[image], study.evaluate.misaligned, study.seed, int(image)) for image in images])
    views = np.stack([degrade(moved, int(resolution), study.views.size) for resolution in MISALIGNED], axis=1)
    for name, rows in (("chips", moved), ("views", views)):
        array = np.load(folder / f"{name}.npy", mmap_mode="r+")
        array[first : first + len(rows)] = rows
        array.flush()


def misalign_faces(study: Study, folder: Path) -> Path | None:
    """Write the faces with moved landmarks to `folder`, and return it; None where the study asks for none.

    chips.npy: uint8 (n, 150, 150, 3). views.npy: uint8 (n, len(MISALIGNED), S, S, 3). Rows as `held_out_images`.
    """
    if study.evaluate.misaligned is None:
        return None
    images, size = held_out_images(study), study.views.size
    for name, shape in (("chips", (align.CHIP, align.CHIP, 3)), ("views", (len(MISALIGNED), size, size, 3))):
        np.lib.format.open_memmap(folder / f"{name}.npy", "w+", np.uint8, (len(images), *shape)).flush()
    tasks = [(study, first, images[first : first + CHUNK], folder) for first in range(0, len(images), CHUNK)]
    parallel_map(misalign_chunk, tasks, study.jobs, study.threads, "misaligned faces")
    return folder


def views_at(study: Study, fold: Fold, resolution: str) -> np.ndarray:
    """uint8 (n, S, S, 3): the held-out faces, not mirrored, as the student sees them."""
    side, bank, images = 0 if resolution == "hr" else int(resolution), fold.views["area"], fold.held_out
    stored = images[images < len(bank)]
    parts = [bank[stored, int(view_index(np.array(side), study.views.smallest, study.views.largest))]]
    for start in range(len(stored), len(images), BATCH):  # faces of test sources
        chips = fold.chips[images[start : start + BATCH]]
        parts.append(degrade(chips, side, study.views.size) if side else hr_view(chips, study.views.size))
    return np.concatenate(parts)


def all_views(study: Study, fold: Fold, moved: Path | None) -> dict[str, np.ndarray]:
    """`views_at` every resolution, and the misaligned faces, by the last part of their keys."""
    views = {resolution: views_at(study, fold, resolution) for resolution in study.resolutions}
    if moved is not None:
        rows, bank = np.searchsorted(held_out_images(study), fold.held_out), np.load(moved / "views.npy", mmap_mode="r")
        views |= {f"misaligned-{resolution}": bank[rows, k] for k, resolution in enumerate(MISALIGNED)}
    return views


def embed_views(net: StudentNet, views: np.ndarray) -> np.ndarray:
    """Float32 (n, D) of views uint8 (n, S, S, 3)."""
    starts = range(0, len(views), BATCH)
    with torch.inference_mode():
        return torch.cat([net(normalise(torch.from_numpy(views[i : i + BATCH]))).embedding for i in starts]).numpy()


def load_student(study: Study, name: str, number: int, seed: int) -> StudentNet:
    """A trained student in eval mode: float32, with the values of the file, which is in float16."""
    folder = name if seed in study.train.seeds else f"{name}-seed{seed}"
    path = study.reports / "students" / folder / f"fold{number}-seed{seed}.safetensors"
    net = build_student(study.student, study.models[name].student, study.views.size, seed)
    state = {key: t.float() if t.dtype == torch.float16 else t for key, t in read_state(path).items()}
    insert_state(net, state, path)
    return net.eval()


def student_embeddings(study: Study, name: str, moved: Path | None, folder: Path) -> None:
    """Write the file of one student."""
    arrays = {}
    for number in folds_of(study, name):
        views = all_views(study, read_fold(study, number), moved)
        for seed in seeds_of(study, name):
            net = load_student(study, name, number, seed)
            arrays |= {f"fold{number}/seed{seed}/{key}": embed_views(net, pixels) for key, pixels in views.items()}
    np.savez(folder / f"{name}.npz", **arrays)


def floor_embeddings(study: Study, moved: Path | None, folder: Path) -> None:
    """Write the files of the two floors."""
    seed, random, pixels = study.train.seeds[0], {}, {}
    net = build_student(study.student, "plain", study.views.size, RANDOM_SEED).eval()
    for number in study.faces.run_folds:
        for name, views in all_views(study, read_fold(study, number), moved).items():
            key = f"fold{number}/seed{seed}/{name}"
            random[key] = embed_views(net, views)
            flat = views.reshape(len(views), -1).astype(np.float32)
            pixels[key] = flat - flat.mean(1, keepdims=True)
    np.savez(folder / "random_net.npz", **random)
    np.savez(folder / "raw_pixels.npz", **pixels)


def teacher_embeddings(study: Study, name: str, moved: Path | None) -> dict[tuple[int, str], np.ndarray]:
    """Raw embeddings (n, D) of a fold's held-out faces at one resolution, by fold and setting.

    Settings: all at COMPARED resolutions, else the study's. name: the resolution; or VIEW2, all photographs of the
    official pairs at high resolution, as if they were the first fold's. The frozen part of the teacher is computed once
    for all settings and folds, a batch at a time: all maps would take gigabytes.
    """
    members = {number: read_fold(study, number).held_out for number in study.faces.run_folds}
    wanted = SETTINGS if moved is None and name in COMPARED else (study.teacher.setting,)
    if name == VIEW2:
        members, wanted = {study.faces.run_folds[0]: official_images(study)}, ("pretrained",)
    images = np.unique(np.concatenate(list(members.values())))
    source = align.inner(np.load((moved or study.runs) / "chips.npy", mmap_mode="r"))
    rows = images if moved is None else np.arange(len(images))
    nets = {(number, setting): load_trained(study, number, setting).net for number in members for setting in wanted}
    frozen = next(iter(nets.values()))
    parts: dict[tuple[int, str], list[np.ndarray]] = {key: [] for key in nets}
    with torch.inference_mode():
        for start in range(0, len(images), BATCH):
            chips = torch.from_numpy(source[rows[start : start + BATCH]])
            seen = chips if name in ("hr", VIEW2) else degrade(chips, int(name), chips.shape[1])
            maps = frozen.prefix(teacher_input(seen))[-1]
            for (number, setting), net in nets.items():
                chosen = np.isin(images[start : start + BATCH], members[number])
                if chosen.any():
                    parts[number, setting].append(net.head(net.pooled(maps[torch.from_numpy(chosen)])[1]).numpy())
    return {key: np.concatenate(arrays) for key, arrays in parts.items()}


def save_teacher(study: Study, outcomes: dict[str, dict[tuple[int, str], np.ndarray]], folder: Path) -> None:
    """teacher.npz, and teacher_settings.npz for tables/teacher.csv, from what `teacher_embeddings` returned, by key."""
    seed, chosen, settings = study.train.seeds[0], {}, {}
    comparable, view2 = TEACHERS[study.teacher.name].comparable, outcomes.pop(VIEW2, {})
    for number, setting in product(study.faces.run_folds, SETTINGS):
        for key in (name for name, outcome in outcomes.items() if (number, setting) in outcome):
            raw = torch.from_numpy(outcomes[key][number, setting])
            if key in COMPARED:
                settings[f"fold{number}/{setting}/{key}"] = comparable(raw).numpy()
            if setting == study.teacher.setting:
                chosen[f"fold{number}/seed{seed}/{key}"] = comparable(raw).numpy()
                if key == "hr":
                    trained = load_trained(study, number, setting)
                    chosen[f"fold{number}/seed{seed}/standardised"] = ((raw - trained.mean) / trained.rms).numpy()
    for raw in view2.values():
        settings |= {VIEW2: comparable(torch.from_numpy(raw)).numpy(), f"{VIEW2}_images": official_images(study)}
    np.savez(folder / "teacher.npz", **chosen)
    np.savez(folder / "teacher_settings.npz", **settings)


def run(study: Study) -> None:
    """The `embed` stage."""
    with atomic_folder(study.runs / "embeddings") as folder, tempfile.TemporaryDirectory(dir=study.runs) as temporary:
        moved = misalign_faces(study, Path(temporary))  # processes are forked before this one computes with torch
        names = [VIEW2, *study.resolutions] if study.evaluate.official else study.resolutions
        tasks = {name: (study, name, None) for name in names}
        tasks |= {f"misaligned-{name}": (study, name, moved) for name in MISALIGNED if moved is not None}
        outcomes = parallel_map(teacher_embeddings, list(tasks.values()), study.jobs, study.threads, "teacher")
        armed = with_arms(study)
        students = [(armed, name, moved, folder) for name in armed.models]
        parallel_map(student_embeddings, students, study.jobs, study.threads, "students")
        floor_embeddings(study, moved, folder)
        save_teacher(study, dict(zip(tasks, outcomes, strict=True)), folder)
