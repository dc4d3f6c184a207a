"""Releases: only what dvc.lock knows leaves, with a card whose hashes can be recomputed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import yaml

from lrfr.deploy import release
from lrfr.errors import UserError
from lrfr.models.student import build_student
from lrfr.train.checkpoint import save_tensors

ROOT = Path(__file__).resolve().parents[2]
RELEASED = sorted((ROOT / release.WEIGHTS).glob("*.safetensors"))
CARDS = sorted((ROOT / release.WEIGHTS).glob("*.json"))


def lock(study, models: tuple[str, ...] = ("kd", "scratch")) -> None:
    """A dvc.lock that knows what is there now."""

    def out(path: Path) -> dict:
        return {"path": path.as_posix(), "hash": "md5", "md5": release.dvc_md5(path)}

    students, tables = study.reports / "students", study.reports / "tables"
    stages = {
        f"distill@{study.study}-{name}": {
            "params": {"params.yaml": {"study": study.study, "train": {"epochs": 3, "learning_rate": 0.002}}},
            "outs": [out(students / name)],
        }
        for name in models
    }
    stages["summary"] = {
        "outs": [out(tables / "results.csv"), out(tables / "tuning.csv"), out(study.runs / "embeddings")]
    }
    Path("dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": stages}), encoding="utf-8")


@pytest.fixture
def study(project, changed):
    """The invented study with two trained students, their embeddings, a ranking and a dvc.lock."""
    shutil.copy(project.runs / "embeddings" / "kd.npz", project.runs / "embeddings" / "scratch.npz")
    for seed, name in enumerate(("kd", "scratch")):
        net = build_student(project.student, "plain", project.views.size, seed)
        halves = {k: t.half() if t.is_floating_point() else t for k, t in net.state_dict().items()}
        folder = project.reports / "students" / name
        save_tensors(folder / f"fold{project.faces.run_folds[0]}-seed{project.train.seeds[0]}.safetensors", halves)
        (folder / "log.csv").write_text("fold,seed,epoch,term,value\n0,0,0,face,1\n", encoding="utf-8")
    metric = "validation_eer@16"
    rows = [
        ("kd", "weight", "1", metric, 0.2, 1),
        ("ranking", "model", "kd", metric, 0.1, 1),
        ("ranking", "model", "scratch", metric, 0.12, 0),
    ]
    names = ["method", "weight", "candidate", "metric", "value", "chosen"]
    pd.DataFrame(rows, columns=names).to_csv(project.reports / "tables" / "tuning.csv", index=False)
    results = pd.read_csv(project.reports / "tables" / "results.csv", dtype={"resolution": str})
    official = results[(results.metric == "accuracy")].assign(protocol="official")
    pd.concat([results.assign(protocol="dense"), official]).to_csv(
        project.reports / "tables" / "results.csv", index=False
    )
    lock(project)
    return changed(project, {"evaluate.far": (0.2, 0.01)})  # of 100 impostor pairs 0.01 allows one: too few


def test_the_first_of_the_ranking_and_scratch_are_released_with_cards(study):
    paths = release.run(study, study.study)
    assert [path.name for path in paths] == [f"{study.study}-kd.safetensors", f"{study.study}-scratch.safetensors"]
    source = (
        study.reports / "students" / "kd" / f"fold{study.faces.run_folds[0]}-seed{study.train.seeds[0]}.safetensors"
    )
    assert paths[0].read_bytes() == source.read_bytes()
    card = release.check_release(paths[0])
    assert (
        card["method"] == "kd"
        and card["embedding"] == study.student.embedding
        and card["input"]["size"] == study.views.size
    )
    assert card["validation"] == {"metric": "validation_eer@16", "value": 0.1, "rank": 1, "of": 2}
    net = build_student(study.student, "plain", study.views.size, 0)
    assert card["parameters"] == sum(p.numel() for p in net.parameters())
    assert card["run"]["md5"].endswith(".dir") and card["teacher"].startswith("dlib")
    dense = [row["resolution"] for row in card["measured"] if row["protocol"] == "dense"]
    assert dense == [r for r in study.resolutions if r in release.HEADLINE] and {
        "seeds",
        "value",
        "low",
        "high",
    } <= set(card["measured"][0])
    assert {row["metric"] for row in card["measured"] if row["protocol"] == "official"} == {"accuracy"}
    assert [(row["resolution"], row["far"]) for row in card["thresholds"]] == [(r, 0.2) for r in study.resolutions]
    assert all(-1 < row["similarity"] < 1 and row["impostor"] == 100 for row in card["thresholds"])
    assert "2 validation people of fold 0" in card["thresholds_from"]
    assert release.check_release(paths[1].with_suffix(".json"))["teacher"] == "none"


def test_a_second_release_writes_the_same_bytes_and_removes_what_is_no_longer_chosen(study):
    first = [
        path.with_suffix(end).read_bytes()
        for path in release.run(study, study.study)
        for end in (".safetensors", ".json")
    ]
    old, other = release.WEIGHTS / f"{study.study}-old.safetensors", release.WEIGHTS / "other-kd.safetensors"
    for path in (old, other):
        path.write_bytes(b"weights")
    again = [
        path.with_suffix(end).read_bytes()
        for path in release.run(study, study.study)
        for end in (".safetensors", ".json")
    ]
    assert first == again and not old.exists() and other.exists()


def refused(study, match: str) -> None:
    with pytest.raises(UserError, match=match):
        release.run(study, study.study)
    assert not list(release.WEIGHTS.glob("*"))


def test_another_study_or_teacher_is_refused(study, changed):
    with pytest.raises(UserError, match="run `lrfr study lfw`"):
        release.run(study, "lfw")
    refused(changed(study, {"teacher.name": "inception_resnet_v1"}), "not released")
    refused(
        changed(study, {"faces.source": "recordio", "manifests": "data/recordio.csv"}),
        "of the faces 'recordio' are not",
    )


def test_missing_results_are_refused(study):
    (study.reports / "tables" / "results.csv").unlink()
    refused(study, "results.csv: not there")


def test_a_student_that_dvc_does_not_know_is_refused(study):
    lock(study, ("kd",))
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
    path = release.run(study, study.study)[0]
    data, text = path.read_bytes(), Path("dvc.lock").read_text(encoding="utf-8")
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(UserError, match="not the weights of its card"):
        release.check_release(path)
    path.write_bytes(data)
    Path("dvc.lock").write_text(text.replace("learning_rate: 0.002", "learning_rate: 0.003"), encoding="utf-8")
    with pytest.raises(UserError, match="knows another training"):
        release.check_release(path)
    Path("dvc.lock").unlink()
    release.check_release(path)  # outside of a clone the card alone is checked
    path.with_suffix(".json").write_text("{}", encoding="utf-8")
    with pytest.raises(UserError, match="missing or damaged"):
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
