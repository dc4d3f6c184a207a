"""Embed the held-out people of every fold with every model at every resolution: all that the evaluation reads.

Students see exactly the kind of views that they were trained on, from the same file. The teacher is fed with upsampled
low-resolution faces, the hard direct-feed baseline. Two floors need no training: raw pixels, and a network of random weights.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from lrfr.config import Study
from lrfr.data.degrade import degrade
from lrfr.data.files import atomic_folder
from lrfr.data.loading import view_index
from lrfr.models.state import insert_state, read_state
from lrfr.models.student import StudentNet, build_student, normalise
from lrfr.models.teachers import TEACHERS
from lrfr.parallel import parallel_map
from lrfr.train.faces import Fold, read_fold, teacher_input
from lrfr.train.teacher import load_trained

BATCH = 100  # images a forward pass; no influence on the numbers beyond float sums
RANDOM_SEED = 10_000  # of the untrained network: no student is initialised with it
SETTINGS = ("pretrained", "head", "last_stage")
COMPARED = ("hr", "16", "8")  # resolutions of tables/teacher.csv


def views_at(study: Study, fold: Fold, resolution: str) -> np.ndarray:
    """uint8 (n, S, S, 3): the held-out faces, not mirrored, as the student sees them."""
    side = np.array(0 if resolution == "hr" else int(resolution))
    return fold.views[fold.held_out, 0, int(view_index(side, study.views.smallest, study.views.largest))]


def embed_views(net: StudentNet, views: np.ndarray) -> np.ndarray:
    """Float32 (n, D)."""
    with torch.inference_mode():
        return torch.cat(
            [net(normalise(torch.from_numpy(views[i : i + BATCH]))).embedding for i in range(0, len(views), BATCH)]
        ).numpy()


def load_student(study: Study, name: str, number: int, seed: int) -> StudentNet:
    """A trained student in eval mode."""
    path = study.runs / "students" / name / f"fold{number}-seed{seed}.safetensors"
    net = build_student(study.student, study.models[name].student, study.views.size, seed)
    insert_state(net, read_state(path), path)
    return net.eval()


def student_embeddings(study: Study, name: str, folder: Path) -> None:
    arrays = {}
    for number in study.folds_of(name):
        fold = read_fold(study, number)
        for seed in study.train.seeds:
            net = load_student(study, name, number, seed)
            for resolution in study.resolutions:
                arrays[f"fold{number}/seed{seed}/{resolution}"] = embed_views(net, views_at(study, fold, resolution))
    save_arrays(folder / f"{name}.npz", arrays)


def floor_embeddings(study: Study, folder: Path) -> None:
    seed, random, pixels = study.train.seeds[0], {}, {}
    net = build_student(study.student, "plain", study.views.size, RANDOM_SEED).eval()
    for number in study.faces.run_folds:
        fold = read_fold(study, number)
        for resolution in study.resolutions:
            key, views = f"fold{number}/seed{seed}/{resolution}", views_at(study, fold, resolution)
            random[key] = embed_views(net, views)
            flat = views.reshape(len(views), -1).astype(np.float32)
            pixels[key] = flat - flat.mean(1, keepdims=True)
    save_arrays(folder / "random_net.npz", random)
    save_arrays(folder / "raw_pixels.npz", pixels)


def teacher_maps(study: Study, resolution: str) -> np.ndarray:
    """What the frozen part of the teacher makes of every face at one resolution; all settings and folds share it."""
    fold = read_fold(study, study.faces.run_folds[0])
    net = load_trained(study, fold.number, "pretrained").net
    parts = []
    with torch.inference_mode():
        for start in range(0, len(fold.people), BATCH // 2):
            chips = torch.from_numpy(np.array(fold.chips[start : start + BATCH // 2]))  # a slice of the file is read-only
            seen = chips if resolution == "hr" else degrade(chips, int(resolution), chips.shape[1])
            parts.append(net.prefix(teacher_input(seen))[-1].numpy())
    return np.concatenate(parts)


def teacher_embeddings(study: Study, maps: dict[str, np.ndarray], folder: Path) -> None:
    """Embeddings of the study's teacher, and of all settings for tables/teacher.csv, from `teacher_maps` by resolution."""
    seed, chosen, settings = study.train.seeds[0], {}, {}
    for number in study.faces.run_folds:
        fold = read_fold(study, number)
        for setting in SETTINGS:
            trained = load_trained(study, number, setting)
            for resolution in study.resolutions:
                with torch.inference_mode():
                    embedding = trained.net.suffix(torch.from_numpy(maps[resolution][fold.held_out]))[1]
                compared = TEACHERS[study.teacher.name].comparable(embedding).numpy()
                if resolution in COMPARED:
                    settings[f"fold{number}/{setting}/{resolution}"] = compared
                if setting == study.teacher.setting:
                    chosen[f"fold{number}/seed{seed}/{resolution}"] = compared
                    if resolution == "hr":
                        chosen[f"fold{number}/seed{seed}/standardised"] = ((embedding - trained.mean) / trained.rms).numpy()
    save_arrays(folder / "teacher.npz", chosen)
    save_arrays(folder / "teacher_settings.npz", settings)


def save_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    # savez stamps its members with 1980: the same arrays give the same bytes
    with path.open("wb") as file:
        np.savez(file, **arrays)


def run(study: Study) -> None:
    """The `embed` stage."""
    with atomic_folder(study.runs / "embeddings") as folder:
        # processes are forked before this one computes anything with torch
        maps = parallel_map(teacher_maps, [(study, r) for r in study.resolutions], study.jobs, study.threads, "teacher")
        parallel_map(student_embeddings, [(study, name, folder) for name in study.models], study.jobs, study.threads, "students")
        floor_embeddings(study, folder)
        teacher_embeddings(study, dict(zip(study.resolutions, maps, strict=True)), folder)
