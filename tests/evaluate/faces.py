"""A tiny invented study on disk: embeddings of people whose noise grows as the resolution falls."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from lrfr import config
from lrfr.config import Study

ROOT = Path(__file__).resolve().parents[2]
MODELS = ("scratch", "kd", "feature", "hkdd", "se_dfd", "kd_tuned_teacher")
PEOPLE, IMAGES, SIZE = 12, 4, 8  # two folds: five test people, three to validate, four to train
SEEDS = (0, 1)
NOISE = {"8": 1.2, "16": 0.8, "hr": 0.4}


def tiny_study(jobs: int = 1, run_folds: tuple[int, ...] = (0, 1)) -> Study:
    """The committed parameters, smaller."""
    values = config.load(ROOT / "params.yaml").model_dump()
    values |= {"study": "tiny", "jobs": jobs, "arms": {}}
    values["faces"] |= {"people": PEOPLE, "folds": 2, "run_folds": run_folds, "validation_people": 3}
    values["train"] |= {"seeds": SEEDS}
    values["evaluate"] |= {"resolutions": (8, 16), "draws": 200}
    values["models"] = {name: values["models"][name] for name in MODELS}
    return Study(**values)


def write_faces(study: Study) -> None:
    """index.csv, folds.csv and embeddings/ below the current folder; kd and hkdd are the same model."""
    rng = np.random.default_rng(0)
    person = np.repeat(np.arange(PEOPLE), IMAGES)
    (study.runs / "embeddings").mkdir(parents=True)
    index = pd.DataFrame({"image": np.arange(len(person)), "person": person, "name": "x.pgm", "fallback": 0})
    index.loc[index.image == 1, "fallback"] = 1
    index.sample(frac=1, random_state=0).to_csv(study.runs / "index.csv", index=False)
    roles = {0: ["test"] * 5 + ["validation"] * 3 + ["train"] * 4, 1: ["train"] * 4 + ["validation"] * 3 + ["test"] * 5}
    rows = [(fold, p, role) for fold, people in roles.items() for p, role in enumerate(people)]
    pd.DataFrame(rows, columns=["fold", "person", "role"]).to_csv(study.runs / "folds.csv", index=False)
    centres = rng.normal(size=(PEOPLE, SIZE))
    first = study.train.seeds[0]
    files: dict[str, dict] = {}
    for name in ("teacher", "random_net", "raw_pixels", *study.models):
        seeds = study.train.seeds if name in study.models else [first]
        quality = {"teacher": 0.7, "random_net": 4.0, "raw_pixels": 2.0, "scratch": 1.3}.get(name, 1.0)
        files[name] = {}
        for fold in study.folds_of(name) if name in study.models else (0, 1):
            held_out = person[np.isin(person, [p for p, role in enumerate(roles[fold]) if role != "train"])]
            for seed in seeds:
                for resolution, noise in NOISE.items():
                    array = centres[held_out] + quality * noise * rng.normal(size=(len(held_out), SIZE))
                    files[name][f"fold{fold}/seed{seed}/{resolution}"] = array.astype(np.float32)
                if name == "teacher":
                    files[name][f"fold{fold}/seed{seed}/standardised"] = files[name][f"fold{fold}/seed{seed}/hr"] * np.float32(
                        0.5
                    )
    files["hkdd"] = files["kd"]
    files["teacher_settings"] = {}
    for fold in (0, 1):
        for resolution in NOISE:
            array = files["teacher"][f"fold{fold}/seed{first}/{resolution}"]
            for setting, change in (("pretrained", 0.0), ("head", 0.0), ("last_stage", 0.3)):
                noisy = array + change * rng.normal(size=array.shape)
                files["teacher_settings"][f"fold{fold}/{setting}/{resolution}"] = noisy.astype(np.float32)
    for name in study.models:  # scratch has no term beside the face loss
        keys = [(fold, seed) for fold in study.folds_of(name) for seed in study.train.seeds] if name != "scratch" else []
        rows = [(*key, when, 0.1, name, 3, float(n)) for n, key in enumerate(keys) for when in ("start", "early", "end")]
        (study.runs / "students" / name).mkdir(parents=True)
        table = pd.DataFrame(rows, columns=["fold", "seed", "when", "progress", "term", "stage", "ratio"])
        table.to_csv(study.runs / "students" / name / "gradients.csv", index=False)
    for name, arrays in files.items():
        np.savez(study.runs / "embeddings" / f"{name}.npz", **arrays)
