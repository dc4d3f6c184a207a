"""Releases: only what dvc.lock knows leaves, with a card whose hashes can be recomputed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lrfr.deploy import release
from lrfr.errors import UserError
from lrfr.models.student import build_student
from tests.deploy.conftest import write_lock

ROOT = Path(__file__).resolve().parents[2]
RELEASED = sorted((ROOT / release.WEIGHTS).glob("*.safetensors"))
CARDS = sorted((ROOT / release.WEIGHTS).glob("*.json"))


def test_the_first_of_the_ranking_and_scratch_are_released_with_cards(study):
    paths = release.release(study, study.study)
    assert [path.name for path in paths] == [f"{study.study}-kd.safetensors", f"{study.study}-scratch.safetensors"]
    assert paths[0].read_bytes() == (study.reports / "students" / "kd" / "fold0-seed0.safetensors").read_bytes()
    card = release.check_release(paths[0])
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
    assert release.check_release(paths[1].with_suffix(".json"))["teacher"] == "none"


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
    with pytest.raises(UserError, match=match):
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
    refused(study, "results.csv: not there")


def test_a_student_that_dvc_does_not_know_is_refused(study):
    write_lock(study, ("kd",))
    refused(study, "students/scratch: unknown to dvc.lock")


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
    refused(study, "safetensors: not there")
    Path("dvc.lock").unlink()
    refused(study, "dvc.lock: missing")


def test_check_release_sees_changed_weights_cards_and_locks(study):
    path = release.release(study, study.study)[0]
    data, text = path.read_bytes(), Path("dvc.lock").read_text(encoding="utf-8")
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(UserError, match="not the model of its card"):
        release.check_release(path)
    path.write_bytes(data)
    Path("dvc.lock").write_text(text.replace("learning_rate: 0.002", "learning_rate: 0.003"), encoding="utf-8")
    with pytest.raises(UserError, match="knows another training"):
        release.check_release(path)
    Path("dvc.lock").unlink()
    release.check_release(path)  # outside of a clone the card alone is checked
    path.with_suffix(".json").write_text("{}", encoding="utf-8")
    with pytest.raises(UserError, match="not the card of a student, or damaged"):
        release.check_release(path)


def test_the_folder_hash_is_dvcs(tmp_path):
    from dvc.repo import Repo

    folder = tmp_path / "made"
    (folder / "a").mkdir(parents=True)
    for name in ("a/z", "a-b", "b.csv"):
        (folder / name).write_text(name, encoding="utf-8")
    with Repo.init(tmp_path, no_scm=True) as repo:
        assert release.dvc_md5(folder) == repo.add(str(folder))[0].outs[0].hash_info.value


@pytest.mark.skipif(not (RELEASED or CARDS), reason="no weights are released")
@pytest.mark.parametrize(
    "path", sorted({path.with_suffix("") for path in RELEASED + CARDS}), ids=lambda path: path.name
)
def test_released_weights_are_those_of_the_committed_study(path):
    card = release.check_release(path.with_name(path.name + ".safetensors"), ROOT)
    assert json.loads(path.with_name(path.name + ".json").read_text(encoding="utf-8")) == card
