"""The `status` stage: STATUS.md, which says what of a study has run and what has not.

A study may stop short of what its parameters could ask for: few folds, one seed, no ablation arms. A reader must not have to
guess which, so every part is listed, also those that nobody has run.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from lrfr.config import Model, Study
from lrfr.errors import UserError
from lrfr.files import atomic_file
from lrfr.formats import markdown, order
from lrfr.train.trainings import arm, folds_of

Cells = dict[tuple[int, int], int]  # (fold, seed) -> epochs


def read_csv(path: Path, columns: set[str]) -> pd.DataFrame | None:
    """A table with at least these columns; None where there is no file.

    Raises
    ------
    UserError
        if the file is no such table.
    """
    if not path.is_file():
        return None
    try:
        table = pd.read_csv(path)
    except (ValueError, OSError):  # pandas' own errors are ValueErrors
        table = pd.DataFrame()
    if not columns <= set(table.columns):
        raise UserError(f"{path.as_posix()}: not a table with {', '.join(sorted(columns))}; run `dvc repro` again.")
    return table


def trained(folder: Path) -> Cells:
    """Epochs of every training in a model's folder of which both the log and the student are there."""
    log = read_csv(folder / "log.csv", {"fold", "seed", "epoch", "term"})
    if log is None:
        return {}
    last = log[log.term == "face"].groupby(["fold", "seed"]).epoch.max()
    found = {(int(fold), int(seed)): int(epoch) + 1 for (fold, seed), epoch in last.items()}
    return {key: n for key, n in found.items() if (folder / f"fold{key[0]}-seed{key[1]}.safetensors").is_file()}


def planned(study: Study, folds: str) -> list[tuple[int, int]]:
    """(fold, seed) of every training that the parameters ask for; folds: "all" or "first", as in a model's block."""
    numbers = study.faces.run_folds if folds == "all" else study.faces.run_folds[:1]
    return [(number, seed) for number in numbers for seed in study.train.seeds]


def state(done: int, asked: int) -> str:
    return "not run" if done == 0 else "run" if done == asked else f"{done} of {asked} run"


def row(study: Study, folder: Path, model: Model) -> tuple[str, str, str]:
    """Trainings done of those planned, epochs of those planned, and the state, as text."""
    cells, asked = trained(folder), planned(study, model.folds)
    done = [cells[key] for key in asked if key in cells]
    epochs = " to ".join(str(n) for n in sorted({min(done), max(done)})) if done else "0"
    schedule = (model.recipe or {}).get("epochs", study.train.epochs)
    return f"{len(done)} of {len(asked)}", f"{epochs} of {schedule}", state(len(done), len(asked))


def models_table(study: Study) -> pd.DataFrame:
    """Every model: its folds, trainings and epochs."""
    rows = []
    for name in order(study.models):
        folds = " ".join(map(str, folds_of(study, name)))
        rows.append((name, folds, *row(study, study.reports / "students" / name, study.models[name])))
    return pd.DataFrame(rows, columns=["model", "folds", "trainings", "epochs", "state"])


def tuning_table(study: Study) -> pd.DataFrame:
    """Every model with a grid: what was tried, and what the validation people chose."""
    rows = []
    for name in order(study.tuning.grid):
        grid = study.tuning.grid[name]
        trials = read_csv(study.reports / "students" / "tuning" / f"{name}.csv", {"candidate", "chosen"})
        tried = [] if trials is None else [f"{value:g}" for value in trials.candidate]
        asked = [f"{value:g}" for value in grid.values]
        chosen = "" if trials is None else " ".join(f"{value:g}" for value in trials.candidate[trials.chosen == 1])
        rows.append((name, grid.option, ", ".join(asked), state(len(set(asked) & set(tried)), len(set(asked))), chosen))
    return pd.DataFrame(rows, columns=["model", "number", "values", "state", "chosen"])


def arms_table(study: Study) -> pd.DataFrame:
    """Every arm, run or not."""
    rows = []
    for name, variant in {**study.arms, **study.variants}.items():
        if variant.seed is None:
            folder = study.reports / "students" / name
            rows.append((*name.split("-"), *row(study, folder, arm(study, variant))))
    return pd.DataFrame(rows, columns=["method", "arm", "trainings", "epochs", "state"])


def extent_table(study: Study, models: pd.DataFrame) -> pd.DataFrame:
    """Folds and seeds: what the whole would be, and how much of it was asked for and has run. models: of `models_table`."""
    folds, seeds = (" ".join(map(str, numbers)) for numbers in (study.faces.run_folds, study.train.seeds))
    asked = "run" if (models.state == "run").all() else "asked for, not finished; see the models below"
    whole = len(set(study.faces.run_folds)) == study.faces.folds
    several = f"{asked} (seeds {seeds})" if len(study.train.seeds) > 1 else "not run; their spread is not measured"
    if study.run_seeds:
        done = [name for name in study.run_seeds if trained(study.reports / "students" / name)]
        several = f"{state(len(done), len(study.run_seeds))}: {', '.join(study.run_seeds)}"
    rows = [
        (f"all {study.faces.folds} folds", asked if whole else f"not run; the folds asked for: {folds}"),
        ("additional seeds", several),
    ]
    return pd.DataFrame(rows, columns=["part", "state"])


def page(study: Study) -> str:
    """STATUS.md as text."""
    models, arms, tuning = models_table(study), arms_table(study), tuning_table(study)
    without = [name for name in order(study.models) if name not in study.tuning.grid]

    def count(table: pd.DataFrame) -> str:
        return f"{int((table.state == 'run').sum())} of {len(table)}"

    text = f"# What of the study `{study.study}` has run\n\n"
    text += f"Models: {count(models)}. Tuned models: {count(tuning)}. Arms: {count(arms)}.\n"
    text += f"\n## Folds and seeds\n\n{markdown(extent_table(study, models))}"
    text += f"\n## Models\n\nOne training a fold and seed.\n\n{markdown(models)}"
    text += (
        f"\n## Tuning\n\nThree short trainings a model, of {study.tuning.epochs} epochs each.\n\n"
        if len(tuning)
        else "\n## Tuning\n"
    )
    text += markdown(tuning) if len(tuning) else ""
    text += f"\nWithout a grid: {', '.join(f'`{name}`' for name in without)}.\n" if without else ""
    text += "\n## Arms\n\nAn arm changes a part of a method, or its schedule.\n\n" + (
        markdown(arms) if len(arms) else "The parameters name none.\n"
    )
    return text


def run(study: Study) -> None:
    """The `status` stage.

    Raises
    ------
    UserError
        if a log or a table of trials is damaged; what is merely missing is listed as not run.
    """
    text = page(study)
    with atomic_file(study.reports / "STATUS.md") as file:
        file.write_text(text, encoding="utf-8", newline="\n")
