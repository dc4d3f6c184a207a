"""Thresholds for applications: the operating point of `tar_at_far`, of validation people alone, by slow loops."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lrfr.config import Study
from lrfr.deploy.thresholds import LEAST, threshold_at_far, validation_thresholds
from lrfr.errors import UserError
from lrfr.evaluate.verification import tar_at_far

VALIDATION, IMAGES = (4, 5, 6), 4  # of the invented people below


def slow_threshold(scores: list[float], same: list[bool], far: float) -> float:
    """The smallest score at which few enough impostor pairs are accepted; infinite if there is none."""
    best = float("inf")
    for threshold in scores:
        impostors = [s for s, genuine in zip(scores, same, strict=True) if not genuine]
        if sum(s >= threshold for s in impostors) / len(impostors) <= far:
            best = min(best, threshold)
    return best


@pytest.mark.parametrize("far", [0.01, 0.1, 0.25, 0.5])
@pytest.mark.parametrize("seed", range(5))
def test_a_threshold_is_the_operating_point_of_tar_at_far(seed: int, far: float):
    rng = np.random.Generator(np.random.Philox(key=seed))
    same = rng.random(60) < 0.4
    scores = np.round(rng.normal(size=60) + same, 1)  # with ties
    threshold, tar = threshold_at_far(scores, same, far)
    assert threshold == slow_threshold(scores.tolist(), same.tolist(), far)
    assert tar == tar_at_far(scores, same, far) == pytest.approx(np.mean(scores[same] >= threshold))


def test_known_thresholds():
    scores, same = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4]), np.array([True, False, True, False, True, False])
    assert threshold_at_far(scores, same, 0.1) == (0.9, pytest.approx(1 / 3))
    assert threshold_at_far(scores, same, 1 / 3) == (0.7, pytest.approx(2 / 3))
    assert threshold_at_far(np.array([1.0, 1.0]), np.array([True, False]), 0.5)[0] == np.inf


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, composed) -> Study:
    """Seven people with four photographs each, three of them for validation (48 impostor pairs); the test runs in its folder."""
    values = composed("smoke")
    values["faces"] |= {"people": 8, "validation_images": IMAGES}
    values["evaluate"] |= {"far": [0.25, 0.01]}
    study = Study(**values)
    monkeypatch.chdir(tmp_path)
    (study.runs / "embeddings").mkdir(parents=True)
    person = np.repeat(np.arange(7), IMAGES)
    role = ["train", "train", "test", "test", *["validation"] * 3]
    index = pd.DataFrame({"image": range(len(person)), "person": person, "name": "x", "fallback": 0, "removed": 0})
    index.to_csv(study.runs / "index.csv", index=False)
    pd.DataFrame({"fold": 0, "person": range(7), "role": role}).to_csv(study.runs / "folds.csv", index=False)
    rng = np.random.Generator(np.random.Philox(key=3))
    held_out = person[np.isin(person, [2, 3, *VALIDATION])]
    arrays = {
        f"fold0/seed0/{name}": (rng.normal(size=(7, 8))[held_out] + rng.normal(size=(len(held_out), 8))).astype(
            np.float32
        )
        for name in study.resolutions
    }
    np.savez(study.runs / "embeddings" / "kd.npz", **arrays)
    return study


def test_thresholds_are_of_the_validation_people_alone(study: Study):
    found = validation_thresholds(study, "kd", 0, 0)
    assert [(row["resolution"], row["far"]) for row in found["thresholds"]] == [
        (name, 0.25) for name in study.resolutions
    ]
    people = np.repeat([2, 3, *VALIDATION], IMAGES)
    with np.load(study.runs / "embeddings" / "kd.npz") as archive:
        for row in found["thresholds"]:
            x, scores, same = archive[f"fold0/seed0/{row['resolution']}"].astype(float), [], []
            for i in range(len(x)):
                for j in range(i):
                    if people[i] in VALIDATION and people[j] in VALIDATION:
                        scores.append(float(x[i] @ x[j] / np.sqrt((x[i] @ x[i]) * (x[j] @ x[j]))))
                        same.append(bool(people[i] == people[j]))
            assert row["similarity"] == pytest.approx(slow_threshold(scores, same, 0.25), abs=1e-12)
            assert (row["genuine"], row["impostor"]) == (sum(same), len(same) - sum(same)) == (18, 48)
    assert "3 validation people of fold 0" in found["thresholds_from"]


@pytest.mark.parametrize(("far", "given"), [((LEAST - 1) / 48, False), (LEAST / 48, True)])
def test_a_rate_that_allows_too_few_errors_has_no_threshold(study: Study, changed, far: float, given: bool):
    found = validation_thresholds(changed(study, {"evaluate.far": (far,)}), "kd", 0, 0)["thresholds"]
    assert bool(found) == given


def test_a_network_that_tells_no_faces_apart_has_no_threshold(study: Study):
    with np.load(study.runs / "embeddings" / "kd.npz") as archive:
        arrays = {key: np.ones_like(archive[key]) for key in archive.files}
    np.savez(study.runs / "embeddings" / "kd.npz", **arrays)
    assert validation_thresholds(study, "kd", 0, 0)["thresholds"] == []


def test_missing_embeddings_are_named(study: Study):
    with pytest.raises(UserError, match="scratch.npz: not there"):
        validation_thresholds(study, "scratch", 0, 0)
    with pytest.raises(UserError, match="holds no 'fold0/seed1/8'"):
        validation_thresholds(study, "kd", 0, 1)
