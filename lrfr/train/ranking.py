"""The models in the order of the validation people's errors, written down before any test face is embedded.

tables/tuning.csv holds all trials of `lrfr.train.tuning` first, then this ranking, whose first place is the study's headline.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from lrfr.config import Study
from lrfr.errors import UserError
from lrfr.files import atomic_file

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
    """All trained models, the best first. Chosen may be those that learn from a frozen teacher: no reference, no control."""
    errors = {name: validation_error(study, name) for name in study.models}
    ranked = [name for name, model in study.models.items() if model.teacher in ("plain", "se")]
    best = min(ranked, key=errors.get, default=None)
    metric = f"validation_eer@{RANKED_AT}"
    rows = [
        ("ranking", "model", name, metric, errors[name], int(name == best)) for name in sorted(errors, key=errors.get)
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def page(table: pd.DataFrame) -> str:
    """tuning.csv for people."""
    text = "# Tuning and ranking by the validation people\n\nEqual error rates in per cent; * marks what was chosen. "
    text += "Trials are short trainings; the ranking is of the study's own students, before any test face was read.\n"
    for (method, weight), rows in table.groupby(["method", "weight"], sort=False):
        text += f"\n## {method}: {weight}\n\n| candidate | {rows.metric.iloc[0]} |\n| --- | --- |\n"
        text += "".join(
            f"| {r.candidate} | {100 * r.value:.2f}{'*' if r.chosen else ''} |\n" for r in rows.itertuples()
        )
    return text


def write(path: Path, text: str) -> None:
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def run(study: Study) -> None:
    """The `rank` stage: tables/tuning.csv and tuning.md."""
    trials = [
        pd.read_csv(study.reports / "students" / "tuning" / f"{name}.csv", dtype={"candidate": str})
        for name in study.tuning.grid
    ]
    table = pd.concat([*trials, ranking(study)])
    write(study.reports / "tables" / "tuning.csv", table.to_csv(index=False, float_format="%.6g", lineterminator="\n"))
    write(study.reports / "tables" / "tuning.md", page(table))
