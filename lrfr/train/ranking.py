"""The models in the order of the validation people's errors, written down before a student sees any test face.

tables/tuning.csv holds all trials of `lrfr.train.tuning`, then this ranking, whose first place is the study's headline.
"""

import pandas as pd

from lrfr.config import Study
from lrfr.errors import UserError
from lrfr.formats import page, write_table

COLUMNS = ["method", "weight", "candidate", "metric", "value", "chosen"]  # of tables/tuning.csv
RANKED_AT = 16  # pixels: the middle of what surveillance cameras give, and the resolution of the study's headline


def metric_of(study: Study) -> str:
    """By what the models are ordered: the term of a training's log. Of faces as a camera makes them, where the study
    has such: the last of `views.kinds`.
    """
    kind = study.views.kinds[-1]
    return f"validation_eer_{RANKED_AT}" if kind == "area" else f"validation_eer_{kind}_{RANKED_AT}"


def validation_error(study: Study, name: str) -> float:
    """A trained model's last `metric_of` the study, mean over folds and seeds."""
    path = study.reports / "students" / name / "log.csv"
    if not path.is_file():
        raise UserError(f"{path.as_posix()}: not there; run `dvc repro` again.")
    log = pd.read_csv(path)
    log = log[log.term == metric_of(study)]
    return float(log[log.epoch == log.epoch.max()].value.mean())


def ranking(study: Study) -> pd.DataFrame:
    """All trained models, the best first. Chosen is one that a frozen teacher taught: no reference, no control."""
    errors = {name: validation_error(study, name) for name in study.models}
    ranked = [n for n, m in study.models.items() if m.teacher in ("plain", "se") and m.method != "scratch"]
    best = min(ranked, key=lambda name: errors[name], default=None)
    metric = metric_of(study).replace(f"_{RANKED_AT}", f"@{RANKED_AT}")
    found = sorted(errors.items(), key=lambda item: item[1])
    rows = [("ranking", "model", name, metric, error, int(name == best)) for name, error in found]
    return pd.DataFrame(rows, columns=COLUMNS)


def text(table: pd.DataFrame) -> str:
    """tuning.csv for people."""
    lead = "Equal error rates in per cent; * marks what was chosen. "
    lead += "Trials are short trainings; the ranking is of the study's own students, before they saw any test face."
    cells = (100 * table.value).map("{:.2f}".format) + table.chosen.map({0: "", 1: "*"})
    grouped = table.assign(cell=cells).groupby(["method", "weight", "metric"], sort=False)
    parts = {f"{k[0]}: {k[1]}": rows[["candidate", "cell"]].rename(columns={"cell": k[2]}) for k, rows in grouped}
    return page("Tuning and ranking by the validation people", lead, parts)


def run(study: Study) -> None:
    """The `rank` stage: tables/tuning.csv and tuning.md."""
    paths = (study.reports / "students" / "tuning" / f"{name}.csv" for name in study.tuning.grid)
    trials = [pd.read_csv(path, dtype={"candidate": str}) for path in paths]
    table = pd.concat([*trials, ranking(study)])
    write_table(study.reports / "tables", "tuning", table, text(table))
