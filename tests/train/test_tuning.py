"""Short trainings, one or two numbers changed, one trial chosen by people who are neither trained on nor tested."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd
import pytest

from lrfr.config import Study
from lrfr.train import tuning
from lrfr.train.distill import Trainer
from lrfr.train.fold import read_fold
from lrfr.train.ranking import COLUMNS
from lrfr.train.trainings import candidate, points, trials


def grid(model: str, **values: list[float]) -> dict[str, object]:
    """A tuning of two epochs; `train_scale` stands for the number train.scale."""
    return {"epochs": 2, "grid": {model: {name.replace("train_", "train."): v for name, v in values.items()}}}


def table(study: Study, name: str = "feature") -> pd.DataFrame:
    return pd.read_csv(study.reports / "students" / "tuning" / f"{name}.csv")


def test_a_trial_differs_in_one_option_and_in_the_length_of_training(tiny: Study, changed: Callable[..., Study]):
    study = changed(tiny, {"tuning": grid("feature", weight=[1, 2, 4])})
    short = trials(study, "feature")
    assert points(short.grid) == {"1": {"weight": 1}, "2": {"weight": 2}, "4": {"weight": 4}}
    tried = candidate(short.training, {"weight": 4.0})
    assert tried.model == study.models["feature"].model_copy(update={"options": {"weight": 4.0}})
    assert tried.train.model_dump() == {**study.train.model_dump(), "epochs": 2, "seeds": (0,)}
    assert short.training.model.options == {"weight": 1}  # whatever has been chosen: a choice asks for no new trial
    assert study.models["feature"].options == tiny.models["feature"].options and study.train.epochs == 3


def test_an_option_of_the_recipe_changes_the_recipe(tiny: Study, changed: Callable[..., Study]):
    study = changed(tiny, {"tuning": grid("feature", train_scale=[4, 8, 16])})
    short = trials(study, "feature")
    tried = candidate(short.training, {"train.scale": 16.0})
    assert tried.model == study.models["feature"]
    assert tried.train.model_dump() == {**study.train.model_dump(), "epochs": 2, "scale": 16.0, "seeds": (0,)}


def test_two_numbers_are_tried_together(tiny: Study, changed: Callable[..., Study]):
    """Each value of one with each of the other, of the method and of the recipe alike."""
    study = changed(tiny, {"tuning": grid("kd", temperature=[2, 4], train_margin=[0.1, 0.2])})
    short = trials(study, "kd")
    tried = [candidate(short.training, point) for point in points(short.grid).values()]
    found = [(one.model.options, one.train.margin) for one in tried]
    weight = study.models["kd"].options["weight"]
    assert found == [({"weight": weight, "temperature": t}, m) for t in (2, 4) for m in (0.1, 0.2)]
    assert short.training == tried[0]


def test_the_stage(tiny: Study, changed: Callable[..., Study]):
    """Of a model that needs no teacher, which takes most of the time of such a short training."""
    study = changed(tiny, {"tuning": grid("scratch", train_scale=[0.5, 10, 200])})
    tuning.run(study, "scratch")
    found = table(study, "scratch")
    assert list(found.columns) == COLUMNS
    assert found.method.tolist() == ["scratch"] * 3 and found.weight.tolist() == ["train.scale"] * 3
    assert found.candidate.tolist() == [0.5, 10, 200] and set(found.metric) == {"validation_eer"}
    assert found.chosen.sum() == 1 and found.value[found.chosen.idxmax()] == found.value.min()
    assert [path.name for path in (study.reports / "students").iterdir()] == ["tuning"]  # and no student is kept
    # the first candidate by hand
    short = candidate(trials(study, "scratch").training, {"train.scale": 0.5})
    trainer = Trainer(short, read_fold(short, 0), study.train.seeds[0])
    trainer.epoch(0), trainer.epoch(1)
    errors = [trainer.validation_error(resolution, "area") for resolution in (8, 12, 16)]
    assert found.value[0] == pytest.approx(sum(errors) / 3, rel=1e-5)
    # two processes write the same bytes
    path = study.reports / "students" / "tuning" / "scratch.csv"
    before = path.read_bytes()
    tuning.run(changed(study, {"jobs": 2}), "scratch")
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("errors", "chosen"), [([0.3, 0.2, 0.4, 0.3], 1), ([0.2, 0.4, 0.1, 0.1], 2), ([0.1, 0.1, 0.1, 0.1], 0)]
)
def test_one_value_is_chosen_even_if_several_are_equally_good(
    tiny: Study, monkeypatch: pytest.MonkeyPatch, errors: list[float], chosen: int
):
    """Of smoke's own grid, two numbers."""
    script = {
        (point["weight"], point["train.margin"]): e
        for point, e in zip(points(tiny.tuning.grid["feature"]).values(), errors, strict=True)
    }
    monkeypatch.setattr(tuning, "trial", lambda one: script[one.model.options["weight"], one.train.margin])
    tuning.run(tiny, "feature")
    found = table(tiny)
    assert found.chosen.tolist() == [int(row == chosen) for row in range(4)] and set(found.weight) == {
        "weight, train.margin"
    }
    assert found.candidate.tolist() == ["5, 0.1", "5, 0.3", "20, 0.1", "20, 0.3"]
