"""Choose one number of each model by the validation people, at the same cost for every model.

Short trainings with three values each: enough to tell a weight that is wrong by a factor, not to find the best. What is chosen is
copied into `conf/` by hand; a test compares the two.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from lrfr.config import Study
from lrfr.parallel import parallel_map
from lrfr.parameters import Model
from lrfr.train.distill import VALIDATED
from lrfr.train.fold import read_fold
from lrfr.train.ranking import COLUMNS, write
from lrfr.train.trainer import Trainer

RECIPE = "train."  # an option that is no method's but the common recipe's


def candidate(study: Study, name: str, value: float) -> tuple[Study, Model]:
    """The study and the model's block with one value tried, and training as short as tuning is."""
    option, model = study.tuning.grid[name].option, study.models[name]
    recipe: dict[str, float] = {"epochs": study.tuning.epochs}
    if option.startswith(RECIPE):
        recipe[option.removeprefix(RECIPE)] = value
    else:
        model = model.model_copy(update={"options": {**model.options, option: value}})
    return study.model_copy(update={"train": study.train.model_copy(update=recipe)}), model


def trial(study: Study, name: str, value: float) -> float:
    """Mean EER of the validation people over `VALIDATED` pixels after a short training, first fold and seed."""
    shorter, model = candidate(study, name, value)
    trainer = Trainer(shorter, model, read_fold(shorter, study.faces.run_folds[0]), study.train.seeds[0])
    for epoch in range(study.tuning.epochs):
        trainer.epoch(epoch)
    return float(np.mean([trainer.validation_error(resolution) for resolution in VALIDATED]))


def run(study: Study, name: str) -> None:
    """The `tune` stage of one model: reports/<study>/students/tuning/<model>.csv."""
    grid = study.tuning.grid[name]
    errors = parallel_map(
        trial, [(study, name, value) for value in grid.values], study.jobs, study.threads, f"tune {name}"
    )
    best = errors.index(min(errors))  # the first of equals: one value is chosen
    found = enumerate(zip(grid.values, errors, strict=True))
    rows = [(name, grid.option, value, "validation_eer", error, int(k == best)) for k, (value, error) in found]
    table = pd.DataFrame(rows, columns=COLUMNS)
    path = study.reports / "students" / "tuning" / f"{name}.csv"
    write(path, table.to_csv(index=False, float_format="%.6g", lineterminator="\n"))
