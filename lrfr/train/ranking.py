"""The models in the order of the validation people's errors, written down before any test face is embedded.

tables/tuning.csv holds all trials of `lrfr.train.tuning`, then this ranking, whose first place is the study's headline.
"""

import pandas as pd

from lrfr.config import Study
from lrfr.errors import UserError
from lrfr.formats import write_table

COLUMNS = ["method", "weight", "candidate", "metric", "value", "chosen"]  # of tables/tuning.csv
RANKED_AT = 16  # pixels: the middle of what surveillance cameras give, and the resolution of the study's headline


def validation_error(study: Study, name: str) -> float:
    """A trained model's last validation EER at `RANKED_AT` pixels, mean over folds and seeds."""
    path = study.reports / "students" / name / "log.csv"
    if not path.is_file():
        raise UserError(f"{path.as_posix()}: not there; run `dvc repro` again.")
    log = pd.read_csv(path)
    log = log[log.term == f"validation_eer_{RANKED_AT}"]
    return float(log[log.epoch == log.epoch.max()].value.mean())


def ranking(study: Study) -> pd.DataFrame:
    """All trained models, the best first. Chosen is one that learns from a frozen teacher: no reference, no control,
    and more than the head's start (`scratch_centres`).
    """
    errors = {name: validation_error(study, name) for name in study.models}
    ranked = [n for n, m in study.models.items() if m.teacher in ("plain", "se") and m.method != "scratch"]
    best, metric = min(ranked, key=lambda name: errors[name], default=None), f"validation_eer@{RANKED_AT}"
    found = sorted(errors.items(), key=lambda item: item[1])
    rows = [("ranking", "model", name, metric, error, int(name == best)) for name, error in found]
    return pd.DataFrame(rows, columns=COLUMNS)


def page(table: pd.DataFrame) -> str:
    """tuning.csv for people."""
    text = "# Tuning and ranking by the validation people\n\nEqual error rates in per cent; * marks what was chosen. "
    text += "Trials are short trainings; the ranking is of the study's own students, before any test face was read.\n"
    for (method, weight), rows in table.groupby(["method", "weight"], sort=False):
        text += f"\n## {method}: {weight}\n\n| candidate | {rows.metric.iloc[0]} |\n| --- | --- |\n"
        for candidate, value, chosen in zip(rows.candidate, rows.value, rows.chosen, strict=True):
            text += f"| {candidate} | {100 * value:.2f}{'*' if chosen else ''} |\n"
    return text


def run(study: Study) -> None:
    """The `rank` stage: tables/tuning.csv and tuning.md."""
    paths = (study.reports / "students" / "tuning" / f"{name}.csv" for name in study.tuning.grid)
    trials = [pd.read_csv(path, dtype={"candidate": str}) for path in paths]
    table = pd.concat([*trials, ranking(study)])
    write_table(study.reports / "tables", "tuning", table, page(table))
