"""Embed the held-out people with networks that no training of the study has made: the stage `references`.

They are the teacher, the published networks of `references`, fed with the small faces as they are, and two floors: raw
pixels and a network of random weights. The views that students will see of the same faces are stored beside them, so
that a model more costs its own embedding alone.
"""

from itertools import product
from pathlib import Path

import numpy as np
import torch

from lrfr.config import Study
from lrfr.files import atomic_folder
from lrfr.models.student import build_student
from lrfr.models.teachers import TEACHERS, build_teacher
from lrfr.parallel import parallel_map
from lrfr.protocol.cells import START
from lrfr.protocol.embed import VIEWS, batches, embed_batches, held_out_views, keys, seen
from lrfr.protocol.folds import VIEW2, official_images
from lrfr.train.fold import read_fold, teacher_input
from lrfr.train.teacher import load_trained

RANDOM_SEED = 10_000  # of the untrained network: no student is initialised with it
SETTINGS = ("pretrained", "head", "last_stage")
COMPARED = ("hr", "16", "8")  # resolutions of tables/teacher.csv


def teacher_embeddings(study: Study, name: str) -> dict[tuple[int, str], np.ndarray]:
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
        for some, faces, side in batches(study, "hr" if name == VIEW2 else name, images):
            maps = frozen.prefix(teacher_input(see(faces, side)))[-1]
            for (number, setting), net in nets.items():
                chosen = np.isin(some, members[number])
                if chosen.any():
                    parts[number, setting].append(net.head(net.pooled(maps[torch.from_numpy(chosen)])[1]).numpy())
    return {key: np.concatenate(arrays) for key, arrays in parts.items()}


def reference_embeddings(study: Study, name: str, key: str) -> dict[str, np.ndarray]:
    """Embeddings (n, D) of the held-out faces of all folds by a network that is simply fed with what there is."""
    spec, found = study.references[name], {}
    net, seed = build_teacher(spec.name, spec.weights), study.train.seeds[0]
    see, comparable = TEACHERS[spec.name].see, TEACHERS[spec.name].comparable
    with torch.inference_mode():
        for number in study.faces.run_folds:
            small = batches(study, key, read_fold(study, number).held_out)
            parts = [net(teacher_input(see(faces, side))).embedding for _, faces, side in small]
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


def floor_embeddings(study: Study, views: Path, folder: Path) -> None:
    """Write the files of the two floors, and of the network that students start from, where there is one."""
    seed, size = study.train.seeds[0], study.views.size
    found: dict[str, dict[str, np.ndarray]] = {"random_net": {}, "raw_pixels": {}}
    random = study.student.model_copy(update={"start": None})
    nets = {"random_net": build_student(random, "plain", size, RANDOM_SEED).eval()}
    if study.student.start is not None:
        nets[START], found[START] = build_student(study.student, "plain", size, seed).eval(), {}
    for number, name in product(study.faces.run_folds, keys(study)):
        key, images = f"fold{number}/seed{seed}/{name}", read_fold(study, number).held_out
        for net_name, net in nets.items():
            found[net_name][key] = embed_batches(net, seen(study, "plain", name, images, views))
        flat = torch.cat([*seen(study, "plain", name, images, views)]).flatten(1).numpy().astype(np.float32)
        found["raw_pixels"][key] = flat - flat.mean(1, keepdims=True)
    for name, arrays in found.items():
        np.savez(folder / f"{name}.npz", **arrays)


def run(study: Study) -> None:
    """The `references` stage: views/<key>.npy and <network>.npz."""
    with atomic_folder(study.runs / "references") as folder:
        (views := folder / VIEWS).mkdir()
        held_out_views(study, views)  # processes are forked before this one computes with torch
        names = [VIEW2, *keys(study)] if study.evaluate.official and not study.faces.tests else [*keys(study)]
        tasks = [(study, name) for name in names]
        outcomes = parallel_map(teacher_embeddings, tasks, study.jobs, study.threads, "teacher")
        fed = [(study, name, key) for name in study.references for key in keys(study)]
        found = parallel_map(reference_embeddings, fed, study.jobs, study.threads, "references")
        floor_embeddings(study, views, folder)
        save_teacher(study, dict(zip(names, outcomes, strict=True)), folder)
        for name in study.references:
            own = (arrays for (_, owner, _), arrays in zip(fed, found, strict=True) if owner == name)
            np.savez(folder / f"{name}.npz", **{key: array for arrays in own for key, array in arrays.items()})
