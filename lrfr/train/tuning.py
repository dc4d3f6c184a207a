"""Choose one or two numbers of each model by the validation people, at the same cost for every model.

Short trainings, equally many for each, over the numbers that count: enough to tell a weight that is wrong by a factor,
not to find the best. What is chosen is copied into `conf/` by hand; a test compares the two.
"""

import json
from itertools import product

import numpy as np
import pandas as pd

from lrfr.config import Study
from lrfr.files import write_table
from lrfr.parallel import parallel_map
from lrfr.train.distill import VALIDATED, Trainer
from lrfr.train.fold import read_fold
from lrfr.train.ranking import COLUMNS
from lrfr.train.trainings import Training, Trials, candidate, plan_file, points


def trial(training: Training) -> float:
    """Mean EER of the validation people over `VALIDATED` pixels and kinds of small images after a short training."""
    trainer = Trainer(training, read_fold(training, training.folds[0]), training.train.seeds[0])
    for epoch in range(training.train.epochs):
        trainer.epoch(epoch)
    pairs = product(VALIDATED, training.views.kinds)
    return float(np.mean([trainer.validation_error(*pair) for pair in pairs]))


def run(study: Study, name: str) -> None:
    """The `tune` stage of one model: reports/<study>/students/tuning/<model>.csv."""
    plan = json.loads(plan_file(study, f"tune-{name}").read_text(encoding="utf-8"))
    training, grid = (trials := Trials(**plan["parameters"])).training, trials.grid
    tasks = [(candidate(training, point),) for point in points(grid).values()]
    errors = parallel_map(trial, tasks, study.jobs, training.threads, f"tune {name}")
    best = errors.index(min(errors))  # the first of equals: one point is chosen
    found = enumerate(zip(points(grid), errors, strict=True))
    rows = [(name, ", ".join(grid), tried, "validation_eer", error, int(k == best)) for k, (tried, error) in found]
    path = study.reports / "students" / "tuning" / f"{name}.csv"
    write_table(path, pd.DataFrame(rows, columns=COLUMNS), "%.6g")
