"""STATUS.md: lists what ran and what did not, and tells an unfinished training from a finished one."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from lrfr.errors import UserError
from lrfr.report import status


@pytest.fixture
def study(project, changed):
    """Nothing of it has run."""
    shutil.rmtree(project.reports / "students")
    (project.reports / "STATUS.md").unlink(missing_ok=True)
    return changed(
        project,
        {
            "faces.run_folds": [0, 1],
            "train.seeds": [0],
            "variants": {},
            "train.epochs": 3,
            "tuning.grid": {
                "kd": {"weight": [0.5, 1, 2, 4]},
                "hkdd": {"hfd": [2, 5], "dkd": [1, 10]},
            },
        },
    )


def train(folder: Path, cells: dict[tuple[int, int], int], weights: bool = True) -> None:
    """Invent the log of a model's folder: (fold, seed) -> epochs."""
    folder.mkdir(parents=True)
    rows = [f"{k},{s},{epoch},face,1\n" for (k, s), epochs in cells.items() for epoch in range(epochs)]
    (folder / "log.csv").write_text(
        "fold,seed,epoch,term,value\n0,0,9,teacher_face,1\n" + "".join(rows), encoding="utf-8"
    )
    for fold, seed in cells if weights else ():
        (folder / f"fold{fold}-seed{seed}.safetensors").write_bytes(b"weights")


def line(text: str, start: str) -> str:
    return next(row for row in text.splitlines() if row.startswith(f"| {start} |"))


def test_every_model_is_listed_with_what_has_run(study):
    students = study.reports / "students"
    train(students / "kd", {(0, 0): 3, (1, 0): 3})
    train(students / "hkdd", {(0, 0): 3})
    train(students / "scratch", {(0, 0): 3, (1, 0): 3}, weights=False)  # a log without students
    status.run(study)
    text = (study.reports / "STATUS.md").read_text(encoding="utf-8")
    assert line(text, "kd") == "| kd | 0 1 | 2 of 2 | 3 of 3 | run |"
    assert line(text, "hkdd") == "| hkdd | 0 1 | 1 of 2 | 3 of 3 | 1 of 2 run |"
    assert line(text, "scratch") == "| scratch | 0 1 | 0 of 2 | 0 of 3 | not run |"
    assert f"Models: 1 of {len(study.models)}." in text
    for name in study.models:
        line(text, name)
    first = (study.reports / "STATUS.md").read_bytes()
    status.run(study)
    assert (study.reports / "STATUS.md").read_bytes() == first


def test_tuning_tells_tried_from_not_tried_and_names_models_without_a_grid(study):
    folder = study.reports / "students" / "tuning"
    folder.mkdir(parents=True)
    rows = "".join(f"kd,weight,{value},validation_eer,0.1,{int(value == 1)}\n" for value in (0.5, 1, 2, 4))
    (folder / "kd.csv").write_text(f"method,weight,candidate,metric,value,chosen\n{rows}", encoding="utf-8")
    text = status.text(study)
    assert "| kd | weight | 0.5, 1, 2, 4 | run | 1 |" in text
    assert "| hkdd | hfd, dkd | 2, 5 x 1, 10 | not run |  |" in text
    rows = "".join(f'hkdd,"hfd, dkd","{pair}",validation_eer,0.1,{k}\n' for k, pair in enumerate(("2, 1", "2, 10")))
    (folder / "hkdd.csv").write_text(f"method,weight,candidate,metric,value,chosen\n{rows}", encoding="utf-8")
    assert "| hkdd | hfd, dkd | 2, 5 x 1, 10 | 2 of 4 run | 2, 10 |" in status.text(study)
    without = next(row for row in text.splitlines() if row.startswith("Without a grid:"))
    assert "`scratch`" in without and "`kd`" not in without


def test_every_arm_is_listed_run_or_not(study):
    train(study.reports / "students" / "hkdd-no_hfd", {(0, 0): 3, (1, 0): 3})
    text = status.text(study)
    assert "| hkdd | no_hfd | 2 of 2 | 3 of 3 | run |" in text
    total = len(study.arms)
    assert text.count("| not run |") >= total - 1 and f"Arms: 1 of {total}." in text


def test_an_arm_with_another_schedule_is_held_against_that(study, changed):
    longer = changed(study, {"variants": {"kd-long": {"like": "kd", "recipe": {"epochs": 7}}}})
    train(longer.reports / "students" / "kd-long", {(0, 0): 7, (1, 0): 7})
    assert "| kd | long | 2 of 2 | 7 of 7 | run |" in status.text(longer)


def test_folds_and_seeds_that_nobody_asked_for_are_named(study, changed):
    part = changed(study, {"faces.run_folds": [1]})
    text = status.text(part)
    assert f"| all {study.faces.folds} folds | not run; the folds asked for: 1 |" in text
    assert "| additional seeds | not run;" in text
    more = changed(study, {"variants": {f"kd-seed{seed}": {"like": "kd", "seed": seed} for seed in (1, 2)}})
    train(more.reports / "students" / "kd-seed2", {(0, 2): 3})
    status.run(more)
    text = (study.reports / "STATUS.md").read_text(encoding="utf-8")
    assert "| additional seeds | 1 of 2 run: kd-seed1, kd-seed2 |" in text
    whole = changed(study, {"train.seeds": [0, 1]})
    assert set(whole.faces.run_folds) == set(range(whole.faces.folds))
    text = status.text(whole)
    assert f"| all {study.faces.folds} folds | asked for, not finished" in text and "(seeds 0 1) |" in text
    for name in whole.models:
        train(whole.reports / "students" / name, {(fold, seed): 3 for fold in (0, 1) for seed in (0, 1)})
    text = status.text(whole)
    assert f"| all {study.faces.folds} folds | run |" in text and "| additional seeds | run (seeds 0 1) |" in text


@pytest.mark.parametrize("content", ["", "fold,seed\n0,0\n", "a\n1,2,3\n4\n\x00"])
def test_a_damaged_log_is_one_sentence(study, content):
    folder = study.reports / "students" / "kd"
    folder.mkdir(parents=True)
    (folder / "log.csv").write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match="log.csv: not a table"):
        status.run(study)
    assert not (study.reports / "STATUS.md").exists()
