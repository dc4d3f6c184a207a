"""Releases: only what dvc.lock knows leaves, with a card whose hashes can be recomputed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lrfr.config import Study
from lrfr.deploy import release
from lrfr.deploy.release import LEAST, threshold_at_far, validation_thresholds
from lrfr.errors import UserError
from lrfr.evaluate.verification import tar_at_far
from lrfr.models.student import build_student
from tests.deploy import students
from tests.deploy.conftest import write_lock

ROOT = Path(__file__).resolve().parents[2]
RELEASED = sorted((ROOT / release.WEIGHTS).glob("*.safetensors"))
CARDS = sorted((ROOT / release.WEIGHTS).glob("*.json"))
START = "celeba-hr_student"  # what students of `orl` start from: no recogniser, so it has no card


def test_the_first_of_the_ranking_and_scratch_are_released_with_cards(study):
    paths = release.release(study, study.study)
    assert [path.name for path in paths] == [f"{study.study}-kd.safetensors", f"{study.study}-scratch.safetensors"]
    assert paths[0].read_bytes() == (study.reports / "students" / "kd" / "fold0-seed0.safetensors").read_bytes()
    card = students.check_release(paths[0])
    assert (card["method"], card["embedding"], card["input"]["size"]) == ("kd", 32, study.views.size)
    assert card["validation"] == {"metric": "validation_eer@16", "value": 0.1, "rank": 1, "of": 2}
    net = build_student(study.student, "plain", study.views.size, 0)
    assert card["parameters"] == sum(p.numel() for p in net.parameters())
    assert card["run"]["md5"].endswith(".dir") and card["teacher"].startswith("dlib")
    numbers = {"seeds": 1, "value": 0.2, "low": 0.1}
    assert card["measured"] == [
        {"protocol": protocol, "metric": metric, "resolution": side, **numbers, "high": high}
        for protocol, metric in (("dense", "eer"), ("official", "accuracy"))
        for side, high in (("8", 0.3), ("16", 0.3), ("hr", None))
    ]
    assert [(row["resolution"], row["far"]) for row in card["thresholds"]] == [(r, 0.5) for r in study.resolutions]
    assert all(-1 < row["similarity"] < 1 and row["impostor"] == 36 for row in card["thresholds"])
    assert "2 validation people of fold 0" in card["thresholds_from"]
    assert students.check_release(paths[1].with_suffix(".json"))["teacher"] == "none"


def test_a_second_release_writes_the_same_bytes_and_removes_what_is_no_longer_chosen(study):
    def bytes_of(paths: list[Path]) -> list[bytes]:
        return [path.with_suffix(end).read_bytes() for path in paths for end in (".safetensors", ".json")]

    first = bytes_of(release.release(study, study.study))
    old, other = release.WEIGHTS / f"{study.study}-old.safetensors", release.WEIGHTS / "other-kd.safetensors"
    for path in (old, other):
        path.write_bytes(b"weights")
    again = bytes_of(release.release(study, study.study))
    assert first == again and not old.exists() and other.exists()


def refused(study, match: str) -> None:
    with pytest.raises((UserError, FileNotFoundError), match=match):  # the second ends as a sentence, in `cli.main`
        release.release(study, study.study)
    assert not list(release.WEIGHTS.glob("*"))


def test_another_study_or_teacher_is_refused(study, changed):
    with pytest.raises(UserError, match="run `lrfr study lfw`"):
        release.release(study, "lfw")
    refused(changed(study, {"teacher.name": "inception_resnet_v1"}), "not released")
    other = changed(study, {"faces.source": "recordio", "manifests": "data/recordio.csv"})
    refused(other, "of the faces 'recordio' are not")


def test_missing_results_are_refused(study):
    (study.reports / "tables" / "results.csv").unlink()
    refused(study, "results.csv")


def test_a_student_that_dvc_does_not_know_is_refused(study):
    write_lock(study, ("kd",))
    refused(study, "students/scratch: differs from dvc.lock")


def test_a_changed_student_is_refused(study):
    with (study.reports / "students" / "kd" / "log.csv").open("a", encoding="utf-8") as file:
        file.write("0,0,1,face,1\n")
    refused(study, "students/kd: differs from dvc.lock")


def test_other_embeddings_than_dvc_knows_are_refused(study):
    (study.runs / "embeddings" / "more.npz").write_bytes(b"more")
    refused(study, "embeddings: differs from dvc.lock")


def test_a_missing_lock_and_a_missing_training_are_refused(study):
    for path in (study.reports / "students" / "kd").glob("*.safetensors"):
        path.unlink()
    refused(study, "students/kd: differs from dvc.lock")
    Path("dvc.lock").unlink()
    refused(study, "dvc.lock: missing")


def test_check_release_sees_changed_weights_cards_and_students(study):
    path = release.release(study, study.study)[0]
    data, student = path.read_bytes(), study.reports / "students" / "kd" / "fold0-seed0.safetensors"
    changed = data[:-1] + bytes([data[-1] ^ 1])
    path.write_bytes(changed)
    with pytest.raises(UserError, match="not the model of its card"):
        students.check_release(path)
    path.write_bytes(data)
    student.write_bytes(changed)
    with pytest.raises(UserError, match="not the student reports/tiny/students/kd/fold0"):
        students.check_release(path)
    student.unlink()
    students.check_release(path)  # outside of a clone the card alone is checked
    path.with_suffix(".json").write_text("{}", encoding="utf-8")
    with pytest.raises(UserError, match="cannot be read as the card of a student"):
        students.check_release(path)


def test_the_folder_hash_is_dvcs(tmp_path):
    from dvc.repo import Repo

    folder = tmp_path / "made"
    (folder / "a").mkdir(parents=True)
    for name in ("a/z", "a-b", "b.csv"):
        (folder / name).write_text(name, encoding="utf-8")
    with Repo.init(tmp_path, no_scm=True) as repo:
        assert release.dvc_md5(folder) == repo.add(str(folder))[0].outs[0].hash_info.value


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
def seven(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, composed) -> Study:
    """Seven people with four photographs each, three of them for validation (48 impostor pairs); the test runs in its
    folder."""
    values = composed("smoke")
    values["faces"] |= {"people": 8, "validation_images": IMAGES}
    values["evaluate"] |= {"far": [0.25, 0.01]}
    study = Study(**values)
    monkeypatch.chdir(tmp_path)
    (study.runs / "embeddings").mkdir(parents=True)
    person = np.repeat(np.arange(7), IMAGES)
    role = ["train", "train", "test", "test", *["validation"] * 3]
    index = pd.DataFrame({"image": range(len(person)), "person": person, "set": "orl", "name": "x"})
    index = index.assign(fallback=0, removed=0)
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


def test_thresholds_are_of_the_validation_people_alone(seven: Study):
    found = validation_thresholds(seven, "kd", 0, 0)
    assert [(row["resolution"], row["far"]) for row in found["thresholds"]] == [
        (name, 0.25) for name in seven.resolutions
    ]
    people = np.repeat([2, 3, *VALIDATION], IMAGES)
    with np.load(seven.runs / "embeddings" / "kd.npz") as archive:
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
def test_a_rate_that_allows_too_few_errors_has_no_threshold(seven: Study, changed, far: float, given: bool):
    found = validation_thresholds(changed(seven, {"evaluate.far": (far,)}), "kd", 0, 0)["thresholds"]
    assert bool(found) == given


def test_a_network_that_tells_no_faces_apart_has_no_threshold(seven: Study):
    with np.load(seven.runs / "embeddings" / "kd.npz") as archive:
        arrays = {key: np.ones_like(archive[key]) for key in archive.files}
    np.savez(seven.runs / "embeddings" / "kd.npz", **arrays)
    assert validation_thresholds(seven, "kd", 0, 0)["thresholds"] == []


def test_missing_embeddings_are_named(seven: Study):
    with pytest.raises(FileNotFoundError, match="scratch.npz"):
        validation_thresholds(seven, "scratch", 0, 0)
    with pytest.raises(UserError, match="holds no 'fold0/seed1/8'"):
        validation_thresholds(seven, "kd", 0, 1)


def test_what_the_first_study_starts_from_is_committed_where_it_was_trained():
    study, model = START.split("-")
    trained = ROOT / "reports" / study / "students" / model / "fold0-seed0.safetensors"
    assert (ROOT / "lrfr" / "weights" / f"{START}.safetensors").read_bytes() == trained.read_bytes()


@pytest.mark.skipif(not (RELEASED or CARDS), reason="no weights are released")
@pytest.mark.parametrize(
    "path",
    sorted({path.with_suffix("") for path in RELEASED + CARDS if path.stem != START}),
    ids=lambda path: path.name,
)
def test_released_weights_are_those_of_the_committed_study(path):
    card = students.check_release(path.with_name(path.name + ".safetensors"), ROOT)
    assert json.loads(path.with_name(path.name + ".json").read_text(encoding="utf-8")) == card
