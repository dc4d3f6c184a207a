"""The order of the models by the validation people's errors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from lrfr.config import Study
from lrfr.errors import UserError
from lrfr.train import ranking

ERRORS = {"scratch": 0.30, "kd": 0.25, "feature": 0.20, "se_dfd": 0.22, "shuffled": 0.10, "kd_tuned_teacher": 0.05}


def write_log(study: Study, name: str, *errors: float) -> None:
    """A log of two folds with seeds, one error at the end of each; earlier errors and other terms must not count."""
    rows = []
    for fold, error in enumerate(errors):
        rows += [(fold, 0, 4, "validation_eer_16", 0.9), (fold, 0, 9, "face", 0.01), (fold, 0, 11, "face", 0.01)]
        rows += [(fold, 0, 9, f"validation_eer_{size}", value) for size, value in ((8, 0.7), (12, 0.6), (16, error))]
    path = study.reports / "students" / name / "log.csv"
    path.parent.mkdir(parents=True)
    pd.DataFrame(rows, columns=["fold", "seed", "epoch", "term", "value"]).to_csv(path, index=False)


def write_trials(study: Study, name: str, chosen: int) -> None:
    grid = study.tuning.grid[name]
    [(option, values)] = grid.items()
    rows = [(name, option, value, "validation_eer", 0.3, int(k == chosen)) for k, value in enumerate(values)]
    path = study.reports / "students" / "tuning" / f"{name}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows, columns=ranking.COLUMNS).to_csv(path, index=False, float_format="%.6g")


@pytest.fixture
def ranked(tiny_values: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    """A study of six models whose students have been trained, two of them tuned; the test runs in its folder."""
    monkeypatch.chdir(tmp_path)
    grids = {
        "kd": {"temperature": (1, 2, 4)},
        "feature": {"weight": (0.5, 10, 100)},
    }
    models = {name: tiny_values["models"][name] for name in ERRORS}
    study = Study(**tiny_values | {"models": models, "arms": {}, "tuning": {"epochs": 1, "grid": grids}})
    for name, error in ERRORS.items():
        write_log(study, name, error - 0.02, error + 0.02)
    write_trials(study, "kd", 2), write_trials(study, "feature", 0)
    return study


def table(study: Study) -> pd.DataFrame:
    return pd.read_csv(study.reports / "tables" / "tuning.csv", dtype={"candidate": str})


def test_trials_come_first_and_then_all_models_the_best_first(ranked: Study):
    ranking.run(ranked)
    found = table(ranked)
    assert list(found.columns) == ranking.COLUMNS
    assert found.method.tolist() == ["kd"] * 3 + ["feature"] * 3 + ["ranking"] * 6
    assert found.candidate[:6].tolist() == ["1", "2", "4", "0.5", "10", "100"]
    models = found[found.method == "ranking"]
    assert models.candidate.tolist() == sorted(ERRORS, key=ERRORS.get) and set(models.weight) == {"model"}
    assert models.value.tolist() == pytest.approx(sorted(ERRORS.values())) and set(models.metric) == {
        "validation_eer@16"
    }
    assert found[found.chosen == 1].candidate.tolist() == ["4", "0.5", "feature"]  # no control, no reference


@pytest.mark.parametrize(("best", "teacher"), [("se_dfd", "se"), ("kd", "plain")])
def test_who_learns_from_a_frozen_teacher_can_be_chosen(ranked: Study, best: str, teacher: str):
    assert ranked.models[best].teacher == teacher
    path = ranked.reports / "students" / best / "log.csv"
    log = pd.read_csv(path)
    log.assign(value=log.value.where(log.term != "validation_eer_16", 0.15)).to_csv(path, index=False)
    found = ranking.ranking(ranked)
    assert found[found.chosen == 1].candidate.tolist() == [best]


def test_who_only_starts_from_the_teachers_centres_is_a_reference(ranked: Study, changed: Callable[..., Study]):
    block = ranked.models["scratch"].model_dump() | {"teacher": "plain"}
    study = changed(ranked, {"models.scratch_centres": block})
    write_log(study, "scratch_centres", 0.01)
    found = ranking.ranking(study)
    assert found.candidate[0] == "scratch_centres" and found[found.chosen == 1].candidate.tolist() == ["feature"]


def test_equal_errors_choose_one_model(ranked: Study):
    for name in ERRORS:
        path = ranked.reports / "students" / name / "log.csv"
        pd.read_csv(path).assign(value=0.2).to_csv(path, index=False)
    assert ranking.ranking(ranked).chosen.sum() == 1


def test_where_cameras_are_studied_their_faces_decide(ranked: Study, changed: Callable[..., Study]):
    study = changed(ranked, {"views.kinds": ("area", "camera")})
    for name in ERRORS:
        path = study.reports / "students" / name / "log.csv"
        log = pd.read_csv(path)
        value = 0.3 if name != "kd" else 0.1
        pd.concat(
            [log, log[log.term == "validation_eer_16"].assign(term="validation_eer_camera_16", value=value)]
        ).to_csv(path, index=False)
    found = ranking.ranking(study)
    assert found.candidate[0] == "kd" and set(found.metric) == {"validation_eer_camera@16"} and found.value[0] == 0.1


def test_without_such_a_model_nobody_is_chosen(ranked: Study, changed: Callable[..., Study]):
    models = {name: ranked.models[name].model_dump() for name in ("scratch", "shuffled")}
    study = changed(ranked, {"models": models, "tuning.grid": {}})
    found = ranking.ranking(study)
    assert found.candidate.tolist() == ["shuffled", "scratch"] and not found.chosen.any()


def test_a_study_without_tuning_is_only_ranked(ranked: Study, changed: Callable[..., Study]):
    ranking.run(changed(ranked, {"tuning.grid": {}}))
    assert set(table(ranked).method) == {"ranking"}


def test_a_missing_log_is_named(ranked: Study):
    path = ranked.reports / "students" / "se_dfd" / "log.csv"
    path.unlink()
    with pytest.raises(UserError, match="students/se_dfd/log.csv: not there; run `dvc repro`"):
        ranking.run(ranked)
    assert not (ranked.reports / "tables").exists()


def test_the_page_says_the_same(ranked: Study):
    ranking.run(ranked)
    text = (ranked.reports / "tables" / "tuning.md").read_text(encoding="utf-8")
    assert text.index("## kd: temperature") < text.index("## feature: weight") < text.index("## ranking: model")
    assert (
        "| 4 | 30.00* |" in text
        and "| 2 | 30.00 |" in text
        and "| feature | 20.00* |" in text
        and "| scratch | 30.00 |" in text
    )
    assert text.count("*") == 3 + 1  # and the one in the explanation
    ranking.run(ranked)
    assert (ranked.reports / "tables" / "tuning.md").read_text(encoding="utf-8") == text
