"""The `status` stage: STATUS.md, which says what of a study has run and what has not.

A study may stop short of what its parameters could ask for: few folds, one seed, no ablation arms. A reader must not
have to guess which, so every part is listed, also those that nobody has run.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from lrfr.config import Model, Study
from lrfr.errors import UserError
from lrfr.files import atomic_file
from lrfr.formats import markdown, order
from lrfr.train.trainings import arm, folds_of


def read_csv(path: Path, columns: list[str]) -> pd.DataFrame:
    """A table with at least these columns, empty where there is no file; UserError if the file is no such table."""
    if not path.is_file():
        return pd.DataFrame(columns=columns)
    try:
        table = pd.read_csv(path)
    except (ValueError, OSError):  # pandas' own errors are ValueErrors
        table = pd.DataFrame()
    if not set(columns) <= set(table.columns):
        raise UserError(f"{path.as_posix()}: not a table with {', '.join(sorted(columns))}; run `dvc repro` again.")
    return table


def trained(study: Study, name: str) -> dict[tuple[int, int], int]:
    """(fold, seed) -> epochs of every training of a model of which both the log and the student are there."""
    folder = study.reports / "students" / name
    log = read_csv(folder / "log.csv", ["fold", "seed", "epoch", "term"])
    last = log[log.term == "face"].groupby(["fold", "seed"]).epoch.max()
    files = {(fold, seed): folder / f"fold{fold}-seed{seed}.safetensors" for fold, seed in last.index}
    return {key: int(last[key]) + 1 for key, file in files.items() if file.is_file()}


def state(done: int, asked: int) -> str:
    return "not run" if done == 0 else "run" if done == asked else f"{done} of {asked} run"


def progress(study: Study, name: str, model: Model) -> tuple[str, str, str]:
    """Of a model or an arm: trainings done of those planned, epochs of those planned, and the state, as text."""
    folds = study.faces.run_folds if model.folds == "all" else study.faces.run_folds[:1]
    asked, cells = [(fold, seed) for fold in folds for seed in study.train.seeds], trained(study, name)
    done = [cells[key] for key in asked if key in cells]
    epochs = " to ".join(str(n) for n in sorted({min(done), max(done)})) if done else "0"
    schedule = (model.recipe or {}).get("epochs", study.train.epochs)
    return f"{len(done)} of {len(asked)}", f"{epochs} of {schedule}", state(len(done), len(asked))


def models_table(study: Study) -> pd.DataFrame:
    """Every model: its folds, trainings and epochs."""
    folds = {name: " ".join(map(str, folds_of(study, name))) for name in order(study.models)}
    rows = [(name, own, *progress(study, name, study.models[name])) for name, own in folds.items()]
    return pd.DataFrame(rows, columns=["model", "folds", "trainings", "epochs", "state"])


def arms_table(study: Study) -> pd.DataFrame:
    """Every arm, run or not."""
    arms = {name: variant for name, variant in {**study.arms, **study.variants}.items() if variant.seed is None}
    rows = [(*name.split("-"), *progress(study, name, arm(study, variant))) for name, variant in arms.items()]
    return pd.DataFrame(rows, columns=["method", "arm", "trainings", "epochs", "state"])


def tuning_table(study: Study) -> pd.DataFrame:
    """Every model with a grid: what was tried, and what the validation people chose."""
    rows = []
    for name in order(study.tuning.grid):
        grid = study.tuning.grid[name]
        trials = read_csv(study.reports / "students" / "tuning" / f"{name}.csv", ["candidate", "chosen"])
        tried, asked = ([f"{value:g}" for value in values] for values in (trials.candidate, grid.values))
        chosen = " ".join(f"{value:g}" for value in trials.candidate[trials.chosen == 1])
        done = state(len(set(asked) & set(tried)), len(set(asked)))
        rows.append((name, grid.option, ", ".join(asked), done, chosen))
    return pd.DataFrame(rows, columns=["model", "number", "values", "state", "chosen"])


def extent_table(study: Study, models: pd.DataFrame) -> pd.DataFrame:
    """Folds and seeds: what the whole would be, how much of it was asked for and has run. models: of `models_table`."""
    folds, seeds = (" ".join(map(str, numbers)) for numbers in (study.faces.run_folds, study.train.seeds))
    asked = "run" if (models.state == "run").all() else "asked for, not finished; see the models below"
    whole = len(set(study.faces.run_folds)) == study.faces.folds
    several = f"{asked} (seeds {seeds})" if len(study.train.seeds) > 1 else "not run; their spread is not measured"
    if study.run_seeds:
        done = sum(bool(trained(study, name)) for name in study.run_seeds)
        several = f"{state(done, len(study.run_seeds))}: {', '.join(study.run_seeds)}"
    rows = [(f"all {study.faces.folds} folds", asked if whole else f"not run; the folds asked for: {folds}")]
    return pd.DataFrame([*rows, ("additional seeds", several)], columns=["part", "state"])


def text(study: Study) -> str:
    """STATUS.md."""
    models, arms, tuning = models_table(study), arms_table(study), tuning_table(study)
    done = {"Models": models, "Tuned models": tuning, "Arms": arms}
    counts = (f"{name}: {int((table.state == 'run').sum())} of {len(table)}." for name, table in done.items())
    tried = f"Three short trainings a model, of {study.tuning.epochs} epochs each.\n\n{markdown(tuning)}"
    without = ", ".join(f"`{name}`" for name in order(study.models) if name not in study.tuning.grid)
    about = "An arm changes a part of a method, or its schedule.\n\n"
    parts = {
        "Folds and seeds": markdown(extent_table(study, models)),
        "Models": f"One training a fold and seed.\n\n{markdown(models)}",
        "Tuning": "\n".join([tried] * bool(len(tuning)) + [f"Without a grid: {without}.\n"] * bool(without)),
        "Arms": about + (markdown(arms) if len(arms) else "The parameters name none.\n"),
    }
    sections = "".join(f"\n## {title}\n\n{part}" for title, part in parts.items())
    return f"# What of the study `{study.study}` has run\n\n{' '.join(counts)}\n{sections}"


def run(study: Study) -> None:
    """The `status` stage. UserError if a log or a table of trials is damaged; what is missing is listed as not run."""
    words = text(study)
    with atomic_file(study.reports / "STATUS.md") as file:
        file.write_text(words, encoding="utf-8", newline="\n")
