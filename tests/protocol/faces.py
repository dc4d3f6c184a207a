"""Tiny invented studies on disk: embeddings of people whose noise grows as the resolution falls."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lrfr import config
from lrfr.config import Study
from lrfr.protocol import study as evaluation
from lrfr.protocol.cells import embedding_file
from lrfr.report import tables
from lrfr.train.trainings import folds_of

ROOT = Path(__file__).resolve().parents[2]
MODELS = ("scratch", "kd", "feature", "hkdd", "se_dfd", "kd_tuned_teacher")
PEOPLE, IMAGES, SIZE = 12, 4, 8  # two folds: five test people, three to validate, four to train
SEEDS = (0, 1)
NOISE = {"8": 1.2, "16": 0.8, "32": 0.5, "hr": 0.4}
LFW_MODELS = ("scratch", "kd", "feature", "hkdd", "kd_tuned_teacher")
LFW_PEOPLE, LFW_FOLDS, OFFICIAL_KIND = 60, 5, 6  # twelve test people a fold; pairs of each kind in an official fold
LFW_IMAGES = np.array([1, 2, 3, 6, 1])[np.arange(LFW_PEOPLE) % 5]


def tiny_study(jobs: int = 1, run_folds: tuple[int, ...] = (0, 1)) -> Study:
    """The committed parameters, smaller."""
    values = config.load(ROOT / "params.yaml").model_dump()
    values |= {"study": "tiny", "jobs": jobs, "arms": {}, "variants": {}}
    values["faces"] |= {"people": PEOPLE, "folds": 2, "run_folds": run_folds, "validation_people": 3}
    values["train"] |= {"seeds": SEEDS}
    values["evaluate"] |= {"resolutions": (8, 16), "draws": 200}
    values["models"] = {name: values["models"][name] for name in MODELS}
    values["tuning"] |= {"grid": {}}
    values["student"] |= {"start": None}
    return Study(**values)


def lfw_study(jobs: int = 1, run_folds: tuple[int, ...] = (0, 1)) -> Study:
    """Everything that a study of LFW evaluates, with people of one to six photographs."""
    values = tiny_study(jobs).model_dump() | {"study": "tiny_lfw"}
    values["faces"] |= {"source": "lfw", "people": LFW_PEOPLE, "folds": LFW_FOLDS, "run_folds": run_folds}
    values["faces"] |= {"validation_people": 5, "validation_images": 3}
    values["train"] |= {"seeds": (0,)}
    values["evaluate"] |= {"resolutions": (8, 16, 32), "far": (0.1, 0.01), "dense_images": 4, "impostors": 150}
    values["evaluate"] |= {"official": True, "misaligned": 0.03}
    values["models"] = {name: values["models"][name] for name in LFW_MODELS}
    return Study(**values)


def write_faces(study: Study) -> None:
    """index.csv, folds.csv, embeddings and gradients below the current folder; kd and hkdd are the same model."""
    person = np.repeat(np.arange(PEOPLE), IMAGES)
    roles = {0: ["test"] * 5 + ["validation"] * 3 + ["train"] * 4, 1: ["train"] * 4 + ["validation"] * 3 + ["test"] * 5}
    index = write_index(study, person, roles)
    index.loc[index["image"] == 1, "fallback"] = 1
    index.sample(frac=1, random_state=0).to_csv(study.runs / "index.csv", index=False)
    held_out = {fold: np.flatnonzero(np.array(role)[person] != "train") for fold, role in roles.items()}
    write_embeddings(study, person, held_out, np.random.default_rng(0))
    write_gradients(study)


def write_lfw(study: Study) -> None:
    """The same for `lfw_study`, with official.csv. A photograph of a test and of a validation person are removed."""
    rng = np.random.default_rng(1)
    person = np.repeat(np.arange(LFW_PEOPLE), LFW_IMAGES)
    first = np.concatenate([[0], np.cumsum(LFW_IMAGES)])
    roles, official = {}, []
    for fold in range(LFW_FOLDS):
        test = np.arange(12 * fold, 12 * fold + 12)
        rest = np.setdiff1d(np.arange(LFW_PEOPLE), test)
        validation = np.roll(rest, -7 * fold)[np.roll(LFW_IMAGES[rest], -7 * fold) > 1][:5]
        role = np.full(LFW_PEOPLE, "train", dtype=object)
        role[test], role[validation] = "test", "validation"
        roles[fold] = role.tolist()
        for half, people in enumerate((test[:6], test[6:])):
            several = people[LFW_IMAGES[people] > 1]
            for same in (1, 0):
                for _ in range(OFFICIAL_KIND):
                    a, b = np.repeat(rng.choice(several), 2) if same else rng.choice(people, 2, replace=False)
                    i, j = rng.choice(LFW_IMAGES[a], 2, replace=False) if same else rng.integers(LFW_IMAGES[[a, b]])
                    official.append(("official", fold, 2 * fold + half, first[a] + i, first[b] + j, same))
    index = write_index(study, person, roles)
    validated = np.flatnonzero((np.array(roles[0])[person] == "validation") & (np.arange(len(person)) > 0))
    index.loc[[first[3] + 1, validated[1]], "removed"] = 1
    index.loc[first[3], "fallback"] = 1
    index.to_csv(study.runs / "index.csv", index=False)
    table = pd.DataFrame(official, columns=["list", "fold", "official_fold", "image_a", "image_b", "same"])
    table.to_csv(study.runs / "official.csv", index=False)
    held_out = {fold: lfw_rows(index, roles[fold], study.faces.validation_images) for fold in study.faces.run_folds}
    write_embeddings(study, person, held_out, rng, misaligned=True)
    file = embedding_file(study, "teacher_settings")
    with np.load(file) as archive:
        arrays = dict(archive)
    images = np.unique(table[["image_a", "image_b"]])
    centres = np.random.default_rng(3).normal(size=(LFW_PEOPLE, SIZE))
    arrays["view2"] = (2 * centres[person[images]] + rng.normal(size=(len(images), SIZE))).astype(np.float32)
    np.savez(file, **arrays, view2_images=images)
    write_gradients(study)


def lfw_rows(index: pd.DataFrame, role: list[str], most: int) -> np.ndarray:
    """Image numbers of the rows of an embedding file, by a plain loop."""
    rows, seen = [], dict.fromkeys(range(LFW_PEOPLE), 0)
    for r in index.itertuples():
        if role[r.person] == "test":
            rows.append(r.image)
        elif role[r.person] == "validation" and not r.removed and seen[r.person] < most:
            seen[r.person] += 1
            rows.append(r.image)
    return np.array(rows)


def summarised(folder: Path, study: Study, write: Callable[[Study], None]) -> Path:
    """Write an invented study to `folder`, evaluate and summarise it; return its reports."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write(study)
        evaluation.run(study)
        tables.run(study)
    return folder / study.reports


def write_index(study: Study, person: np.ndarray, roles: dict[int, list[str]]) -> pd.DataFrame:
    """Write folds.csv and return index.csv."""
    for name in ("embeddings", "references"):
        (study.runs / name).mkdir(parents=True)
    rows = [(fold, p, role) for fold, people in roles.items() for p, role in enumerate(people)]
    pd.DataFrame(rows, columns=["fold", "person", "role"]).to_csv(study.runs / "folds.csv", index=False)
    return pd.DataFrame(
        {
            "image": np.arange(len(person)),
            "person": person,
            "name": "x.pgm",
            "set": study.faces.source,
            "fallback": 0,
            "removed": 0,
        }
    )


def write_embeddings(
    study: Study,
    person: np.ndarray,
    held_out: dict[int, np.ndarray],
    rng: np.random.Generator,
    misaligned: bool = False,
) -> None:
    """Every file of embeddings/ and references/; held_out: image numbers of the rows, by fold."""
    centres = rng.normal(size=(person.max() + 1, SIZE))
    first = study.train.seeds[0]
    noises = {resolution: NOISE[resolution] for resolution in study.resolutions}
    if misaligned:
        noises |= {f"misaligned-{r}": 1.5 * NOISE[r] for r in ("8", "16", "32")}
    files: dict[str, dict] = {}
    for name in ("teacher", "random_net", "raw_pixels", *study.models):
        seeds = study.train.seeds if name in study.models else [first]
        quality = {"teacher": 0.7, "random_net": 4.0, "raw_pixels": 2.0, "scratch": 1.3}.get(name, 1.0)
        files[name] = {}
        for fold in folds_of(study, name) if name in study.models else held_out:
            people = person[held_out[fold]]
            for seed in seeds:
                for resolution, noise in noises.items():
                    array = centres[people] + quality * noise * rng.normal(size=(len(people), SIZE))
                    files[name][f"fold{fold}/seed{seed}/{resolution}"] = array.astype(np.float32)
                if name == "teacher":
                    files[name][f"fold{fold}/seed{seed}/standardised"] = files[name][
                        f"fold{fold}/seed{seed}/hr"
                    ] * np.float32(0.5)
    files["hkdd"] = files["kd"]
    files["teacher_settings"] = {}
    for fold in held_out:
        for resolution in [r for r in ("8", "16", "hr") if r in study.resolutions]:
            array = files["teacher"][f"fold{fold}/seed{first}/{resolution}"]
            for setting, change in (("pretrained", 0.0), ("head", 0.0), ("last_stage", 0.3)):
                noisy = array + change * rng.normal(size=array.shape)
                files["teacher_settings"][f"fold{fold}/{setting}/{resolution}"] = noisy.astype(np.float32)
    for name, arrays in files.items():
        np.savez(embedding_file(study, name), **arrays)


def write_gradients(study: Study) -> None:
    for name in study.models:  # scratch has no term beside the face loss
        keys = (
            [(fold, seed) for fold in folds_of(study, name) for seed in study.train.seeds] if name != "scratch" else []
        )
        rows = [
            (*key, when, 0.1, name, 3, float(n)) for n, key in enumerate(keys) for when in ("start", "early", "end")
        ]
        folder = study.reports / "students" / name
        folder.mkdir(parents=True)
        table = pd.DataFrame(rows, columns=["fold", "seed", "when", "progress", "term", "stage", "ratio"])
        table.to_csv(folder / "gradients.csv", index=False)
