"""Embed the held-out people of every fold with every model at every resolution: all that the evaluation reads.

Students see the kind of views that they were trained on, with the float16 weights that are published; the teacher sees
upsampled low-resolution faces. Two floors need no training: raw pixels, and a network of random weights.

Protocol `misaligned` asks what misplaced landmarks do. Each of the five points of a face is moved by noise, and the
chip is warped by the transform that would then have aligned the face; beyond its border its edge pixels are repeated.

Arrays are float32 (rows, D), rows as in `lrfr.protocol.folds`. Keys are fold<k>/seed<s>/<resolution>, with the
condition before the resolution, as in `camera-16` and `misaligned-16`; teacher.npz has fold<k>/seed<s>/standardised as
well, and teacher_settings.npz fold<k>/<setting>/<resolution> and, where there are official pairs, `view2` with the
rows' image numbers in `view2_images`.
"""

import tempfile
from collections.abc import Iterator
from itertools import product
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
from lrfr.models.student import StudentNet, build_student, normalise, student_view
from lrfr.models.teachers import TEACHERS, build_teacher
from lrfr.parallel import parallel_map
from lrfr.protocol.folds import MISPLACED, VIEW2, conditions, official_images
from lrfr.streams import stream
from lrfr.train.fold import read_fold, teacher_input
from lrfr.train.teacher import load_trained
from lrfr.train.trainings import folds_of, seeds_of, with_arms

BATCH, CHUNK = 50, 200  # images a forward pass, faces a task that warps
RANDOM_SEED = 10_000  # of the untrained network: no student is initialised with it
SETTINGS, MOVED = ("pretrained", "head", "last_stage"), "moved"
COMPARED = ("hr", "16", "8")  # resolutions of tables/teacher.csv


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


def small_faces(study: Study, key: str, images: np.ndarray, moved: np.ndarray | None) -> tuple[Tensor, int]:
    """Faces as a camera stores them, uint8 (n, s, s, 3), and the side of the chip in their middle, in small pixels.

    images: int (n,). moved: their chips with moved landmarks, for keys that ask for them.
    """
    condition, resolution = keys(study)[key]
    chips = moved if condition == MISPLACED else np.load(study.runs / "chips.npy", mmap_mode="r")[images]
    if resolution == "hr":
        return torch.from_numpy(chips), align.CHIP
    kind = condition if condition in DEGRADATIONS else "area"
    return small_images(kind, chips, int(resolution), study.seed, images), int(resolution)


def fill(study: Study, folder: Path, rows: slice, images: np.ndarray) -> None:
    """Fill some rows of the files of `held_out_views`; no other process writes these."""
    files = {path.stem: np.load(path, mmap_mode="r+") for path in folder.glob("*.npy")}
    if moved := MOVED in files:
        chips = np.load(study.runs / "chips.npy", mmap_mode="r")
        files[MOVED][rows] = [misalign(chips[i], study.evaluate.misaligned, study.seed, int(i)) for i in images]
    for key in keys(study):
        faces = small_faces(study, key, images, files[MOVED][rows] if moved else None)
        files[key][rows] = student_view(*faces, study.views.size).numpy()
    for array in files.values():
        array.flush()


def held_out_views(study: Study, folder: Path) -> None:
    """What students see of the held-out faces: <key>.npy, uint8 (n, S, S, 3), a file a key, rows as `held_out_images`.

    moved.npy: chips with moved landmarks, where the study asks for them.
    """
    images, size = held_out_images(study), study.views.size
    shapes = dict.fromkeys(keys(study), (size, size, 3))
    if study.evaluate.misaligned is not None:
        shapes[MOVED] = np.load(study.runs / "chips.npy", mmap_mode="r").shape[1:]
    for name, shape in shapes.items():
        np.lib.format.open_memmap(folder / f"{name}.npy", "w+", np.uint8, (len(images), *shape)).flush()
    parts = (slice(first, first + CHUNK) for first in range(0, len(images), CHUNK))
    tasks = [(study, folder, rows, images[rows]) for rows in parts]
    parallel_map(fill, tasks, study.jobs, study.threads, "held-out faces")


def views_at(study: Study, images: np.ndarray, key: str) -> np.ndarray:
    """uint8 (n, S, S, 3): faces of some images (n,), not mirrored, as the student sees them; no key of moved ones."""
    return student_view(*small_faces(study, key, images, None), study.views.size).numpy()


def all_views(study: Study, number: int, folder: Path) -> dict[str, np.ndarray]:
    """The views of a fold's held-out faces, memory-mapped, by the last part of their keys."""
    rows = np.searchsorted(held_out_images(study), read_fold(study, number).held_out)
    return {key: np.load(folder / f"{key}.npy", mmap_mode="r")[rows] for key in keys(study)}


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


def student_embeddings(study: Study, name: str, views: Path, folder: Path) -> None:
    """Write the file of one student."""
    arrays = {}
    for number in folds_of(study, name):
        seen = all_views(study, number, views)
        for seed in seeds_of(study, name):
            net = load_student(study, name, number, seed)
            arrays |= {f"fold{number}/seed{seed}/{key}": embed_views(net, pixels) for key, pixels in seen.items()}
    np.savez(folder / f"{name}.npz", **arrays)


def floor_embeddings(study: Study, views: Path, folder: Path) -> None:
    """Write the files of the two floors."""
    seed, random, pixels = study.train.seeds[0], {}, {}
    net = build_student(study.student, "plain", study.views.size, RANDOM_SEED).eval()
    for number in study.faces.run_folds:
        for name, seen in all_views(study, number, views).items():
            key = f"fold{number}/seed{seed}/{name}"
            random[key] = embed_views(net, seen)
            flat = seen.reshape(len(seen), -1).astype(np.float32)
            pixels[key] = flat - flat.mean(1, keepdims=True)
    np.savez(folder / "random_net.npz", **random)
    np.savez(folder / "raw_pixels.npz", **pixels)


def batches(study: Study, key: str, images: np.ndarray, views: Path) -> Iterator[tuple[np.ndarray, Tensor, int]]:
    """Images, a batch at a time, with their `small_faces`; images: int (n,), held out where landmarks are moved."""
    moved = np.load(views / f"{MOVED}.npy", mmap_mode="r") if keys(study)[key][0] == MISPLACED else None
    rows = np.searchsorted(held_out_images(study), images)
    for start in range(0, len(images), BATCH):
        some = slice(start, start + BATCH)
        yield images[some], *small_faces(study, key, images[some], None if moved is None else moved[rows[some]])


def teacher_embeddings(study: Study, name: str, views: Path) -> dict[tuple[int, str], np.ndarray]:
    """Raw embeddings (n, D) of a fold's held-out faces under one key, by fold and setting.

    Settings: all at COMPARED resolutions, else the study's. name: the key; or VIEW2, all photographs of the official
    pairs at high resolution, as if they were the first fold's. The frozen part of the teacher is computed once for all
    settings and folds, a batch at a time: all maps would take gigabytes.
    """
    members = {number: read_fold(study, number).held_out for number in study.faces.run_folds}
    wanted, see = SETTINGS if name in COMPARED else (study.teacher.setting,), TEACHERS[study.teacher.name].see
    if name == VIEW2:
        members, wanted = {study.faces.run_folds[0]: official_images(study)}, ("pretrained",)
    images = np.unique(np.concatenate(list(members.values())))
    nets = {(number, setting): load_trained(study, number, setting).net for number in members for setting in wanted}
    frozen = next(iter(nets.values()))
    parts: dict[tuple[int, str], list[np.ndarray]] = {key: [] for key in nets}
    with torch.inference_mode():
        for some, faces, side in batches(study, "hr" if name == VIEW2 else name, images, views):
            maps = frozen.prefix(teacher_input(see(faces, side)))[-1]
            for (number, setting), net in nets.items():
                chosen = np.isin(some, members[number])
                if chosen.any():
                    parts[number, setting].append(net.head(net.pooled(maps[torch.from_numpy(chosen)])[1]).numpy())
    return {key: np.concatenate(arrays) for key, arrays in parts.items()}


def reference_embeddings(study: Study, name: str, key: str, views: Path) -> dict[str, np.ndarray]:
    """Embeddings (n, D) of the held-out faces of all folds by a network that is simply fed with what there is."""
    spec, found = study.references[name], {}
    net, seed = build_teacher(spec.name, spec.weights), study.train.seeds[0]
    see, comparable = TEACHERS[spec.name].see, TEACHERS[spec.name].comparable
    with torch.inference_mode():
        for number in study.faces.run_folds:
            seen = batches(study, key, read_fold(study, number).held_out, views)
            parts = [net(teacher_input(see(faces, side))).embedding for _, faces, side in seen]
            found[f"fold{number}/seed{seed}/{key}"] = comparable(torch.cat(parts)).numpy()
    return found


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
        views = Path(temporary)
        held_out_views(study, views)  # processes are forked before this one computes with torch
        names = [VIEW2, *keys(study)] if study.evaluate.official and not study.faces.tests else [*keys(study)]
        tasks = [(study, name, views) for name in names]
        outcomes = parallel_map(teacher_embeddings, tasks, study.jobs, study.threads, "teacher")
        fed = [(study, name, key, views) for name in study.references for key in keys(study)]
        found = parallel_map(reference_embeddings, fed, study.jobs, study.threads, "references")
        armed = with_arms(study)
        students = [(armed, name, views, folder) for name in armed.models]
        parallel_map(student_embeddings, students, study.jobs, study.threads, "students")
        floor_embeddings(study, views, folder)
        save_teacher(study, dict(zip(names, outcomes, strict=True)), folder)
        for name in study.references:
            own = (arrays for (_, owner, *_), arrays in zip(fed, found, strict=True) if owner == name)
            np.savez(folder / f"{name}.npz", **{key: array for arrays in own for key, array in arrays.items()})
