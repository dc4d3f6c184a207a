"""The `status` stage: STATUS.md, which lists every part of a study, also those that nobody has run."""

from itertools import product
from pathlib import Path

import pandas as pd

from lrfr.config import Study
from lrfr.errors import UserError
from lrfr.files import write_text
from lrfr.formats import order
from lrfr.report.pages import filled
from lrfr.train.trainings import points, training


def read_csv(path: Path, columns: list[str]) -> pd.DataFrame:
    """A table with at least these columns, empty where there is no file; UserError if the file is no such table."""
    try:
        table = pd.read_csv(path, dtype={"candidate": str}) if path.is_file() else pd.DataFrame(columns=columns)
    except (ValueError, OSError):  # pandas' own errors are ValueErrors
        table = pd.DataFrame()
    if not set(columns) <= set(table.columns):
        raise UserError(f"{path.as_posix()}: not a table with {', '.join(sorted(columns))}; run `dvc repro` again.")
    return table


def trained(study: Study, name: str) -> dict[tuple[int, int], int]:
    """(fold, seed) -> epochs of every training of a model of which both the log and the student are there."""
    folder = study.reports / "students" / name
    log = read_csv(folder / "log.csv", ["fold", "seed", "epoch", "term"])
    last = log[log.term == "face"].groupby(["fold", "seed"]).epoch.max() + 1
    there = {key: folder / "fold{}-seed{}.safetensors".format(*key) for key in last.index}
    return {key: int(last[key]) for key, file in there.items() if file.is_file()}


def state(done: int, asked: int) -> str:
    return "not run" if done == 0 else "run" if done == asked else f"{done} of {asked} run"


def progress(study: Study, name: str) -> dict[str, str]:
    """Of a model or an arm: trainings done of those planned, epochs of those planned, and the state."""
    one, cells = training(study, name), trained(study, name)
    asked = list(product(one.folds, one.train.seeds))
    done = [cells[key] for key in asked if key in cells]
    epochs = f"{' to '.join(str(n) for n in sorted({min(done), max(done)})) if done else 0} of {one.train.epochs}"
    trainings = f"{len(done)} of {len(asked)}"
    return {"trainings": trainings, "epochs": epochs, "state": state(len(done), len(asked))}


def tuned(study: Study, name: str) -> dict[str, str]:
    """Of a model with a grid: what was tried, and what the validation people chose."""
    grid = study.tuning.grid[name]
    trials = read_csv(study.reports / "students" / "tuning" / f"{name}.csv", ["candidate", "chosen"])
    asked, chosen = points(grid).keys(), " ".join(trials.candidate[trials.chosen == 1])
    values = " x ".join(", ".join(f"{value:g}" for value in values) for values in grid.values())
    return {
        "numbers": ", ".join(grid),
        "values": values,
        "state": state(len(asked & set(trials.candidate)), len(asked)),
        "chosen": chosen,
    }


def extent(study: Study, finished: bool) -> dict[str, str]:
    """Folds and seeds: what the whole would be, how much of it was asked for and has run."""
    folds, seeds = (" ".join(map(str, numbers)) for numbers in (study.faces.run_folds, study.train.seeds))
    asked = "run" if finished else "asked for, not finished; see the models below"
    several = f"{asked} (seeds {seeds})" if len(study.train.seeds) > 1 else "not run; their spread is not measured"
    if study.run_seeds:
        done = sum(bool(trained(study, name)) for name in study.run_seeds)
        several = f"{state(done, len(study.run_seeds))}: {', '.join(study.run_seeds)}"
    whole = len(set(study.faces.run_folds)) == study.faces.folds
    first = asked if whole else f"not run; the folds asked for: {folds}"
    return {f"all {study.faces.folds} folds": first, "additional seeds": several}


def text(study: Study) -> str:
    """STATUS.md."""
    models, described = order(study.models), study.model_copy(update={"variants": {**study.arms, **study.variants}})
    folds = {name: " ".join(map(str, training(study, name).folds)) for name in models}
    arms = {name: name.split("-") for name in described.run_arms}  # run or not
    tables = {
        "models": [{"model": name, "folds": folds[name], **progress(study, name)} for name in models],
        "tuning": [{"model": name, **tuned(study, name)} for name in order(study.tuning.grid)],
        "arms": [{"method": method, "arm": arm, **progress(described, name)} for name, (method, arm) in arms.items()],
    }
    finished = {name: [row["state"] == "run" for row in rows] for name, rows in tables.items()}
    return filled(
        "status.md.j2",
        study=study,
        finished=finished,
        extent=pd.DataFrame(extent(study, all(finished["models"])).items(), columns=["part", "state"]),
        tables={name: pd.DataFrame(rows) for name, rows in tables.items()},
        without=[name for name in models if name not in study.tuning.grid],
    )


def run(study: Study) -> None:
    """The `status` stage. UserError if a log or a table of trials is damaged; what is missing is listed as not run."""
    write_text(study.reports / "STATUS.md", text(study))
