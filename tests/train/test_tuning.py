"""Three short trainings, one number changed, one value chosen by people who are neither trained on nor tested."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd
import pytest

from lrfr.config import Study
from lrfr.train import tuning
from lrfr.train.distill import Trainer
from lrfr.train.fold import read_fold
from lrfr.train.ranking import COLUMNS
from lrfr.train.trainings import candidate, trials


def grid(option: str, *values: float, model: str = "feature") -> dict[str, object]:
    return {"epochs": 2, "grid": {model: {"option": option, "values": values}}}


def table(study: Study, name: str = "feature") -> pd.DataFrame:
    return pd.read_csv(study.reports / "students" / "tuning" / f"{name}.csv")


def test_a_trial_differs_in_one_option_and_in_the_length_of_training(tiny: Study, changed: Callable[..., Study]):
    study = changed(tiny, {"tuning": grid("weight", 1, 2, 4)})
    short = trials(study, "feature")
    tried = candidate(short.training, short.grid.option, 4.0)
    assert tried.model == study.models["feature"].model_copy(update={"options": {"weight": 4.0}})
    assert tried.train.model_dump() == {**study.train.model_dump(), "epochs": 2, "seeds": (0,)}
    assert short.training.model.options == {"weight": 1}  # whatever has been chosen: a choice asks for no new trial
    assert study.models["feature"].options == tiny.models["feature"].options and study.train.epochs == 3


def test_an_option_of_the_recipe_changes_the_recipe(tiny: Study, changed: Callable[..., Study]):
    study = changed(tiny, {"tuning": grid("train.scale", 4, 8, 16)})
    short = trials(study, "feature")
    tried = candidate(short.training, short.grid.option, 16.0)
    assert tried.model == study.models["feature"]
    assert tried.train.model_dump() == {**study.train.model_dump(), "epochs": 2, "scale": 16.0, "seeds": (0,)}


def test_the_stage(tiny: Study, changed: Callable[..., Study]):
    """Of a model that needs no teacher, which takes most of the time of such a short training."""
    study = changed(tiny, {"tuning": grid("train.scale", 0.5, 10, 200, model="scratch")})
    tuning.run(study, "scratch")
    found = table(study, "scratch")
    assert list(found.columns) == COLUMNS
    assert found.method.tolist() == ["scratch"] * 3 and found.weight.tolist() == ["train.scale"] * 3
    assert found.candidate.tolist() == [0.5, 10, 200] and set(found.metric) == {"validation_eer"}
    assert found.chosen.sum() == 1 and found.value[found.chosen.idxmax()] == found.value.min()
    assert [path.name for path in (study.reports / "students").iterdir()] == ["tuning"]  # and no student is kept
    # the first candidate by hand
    short = candidate(trials(study, "scratch").training, "train.scale", 0.5)
    trainer = Trainer(short, read_fold(short, 0), study.train.seeds[0])
    trainer.epoch(0), trainer.epoch(1)
    errors = [trainer.validation_error(resolution) for resolution in (8, 12, 16)]
    assert found.value[0] == pytest.approx(sum(errors) / 3, rel=1e-5)
    # two processes write the same bytes
    path = study.reports / "students" / "tuning" / "scratch.csv"
    before = path.read_bytes()
    tuning.run(changed(study, {"jobs": 2}), "scratch")
    assert path.read_bytes() == before


@pytest.mark.parametrize(("errors", "chosen"), [([0.3, 0.2, 0.4], 1), ([0.2, 0.1, 0.1], 1), ([0.1, 0.1, 0.1], 0)])
def test_one_value_is_chosen_even_if_several_are_equally_good(
    tiny: Study, monkeypatch: pytest.MonkeyPatch, errors: list[float], chosen: int
):
    script = dict(zip(tiny.tuning.grid["feature"].values, errors, strict=True))
    monkeypatch.setattr(tuning, "trial", lambda training: script[training.model.options["weight"]])
    tuning.run(tiny, "feature")
    assert table(tiny).chosen.tolist() == [int(row == chosen) for row in range(3)]
