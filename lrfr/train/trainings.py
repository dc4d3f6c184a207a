"""Which trainings a study consists of, and everything that shapes each: folds, seeds, recipe, arm.

A `Training` has all parameters that one student's training reads and nothing else. The stage `plan` writes it, with a
hash of the code, to runs/<study>/plan/<name>.json; that file is what the stage `distill` reads, what DVC watches, and
what names the state of an interrupted training. So a training is done again if, and only if, its file has changed.
"""

from itertools import product
from pathlib import Path
from typing import Any

from lrfr.config import Block, Faces, Grid, Model, Student, Study, Targets, Teacher, Train, Variant, Views


class Training(Block):
    """Parameters of one training: `name` of its folder, `model` block; its students are `train.seeds` x `folds`."""

    name: str
    study: str
    model: Model
    train: Train
    folds: tuple[int, ...]
    faces: Faces
    views: Views
    student: Student
    teacher: Teacher
    targets: Targets
    seed: int
    threads: int
    accelerator: str

    @property
    def runs(self) -> Path:
        """As `Study.runs`."""
        return Path("runs") / self.study


class Trials(Block):
    """A model's tuning: one short training for each point of the grid; `training` is that of the first point."""

    training: Training
    grid: Grid


def arm(study: Study, variant: Variant) -> Model:
    """The block of an arm: its model's with the arm's changes (options are merged, the rest is replaced)."""
    base, changes = study.models[variant.like].model_dump(), variant.changes
    return Model(**{**base, **changes, "options": {**base["options"], **changes.get("options", {})}})


def all_models(study: Study) -> dict[str, Model]:
    """Blocks of the models and of the arms that are trained, by name."""
    return {**study.models, **{name: arm(study, study.variants[name]) for name in study.run_arms}}


def with_arms(study: Study) -> Study:
    """This study with the arms that are trained as further models."""
    return study.model_copy(update={"models": all_models(study)})


def folds_of(study: Study, name: str) -> tuple[int, ...]:
    """The folds for which a model or an arm is trained."""
    return study.faces.run_folds if all_models(study)[name].folds == "all" else study.faces.run_folds[:1]


def seeds_of(study: Study, name: str) -> tuple[int, ...]:
    """Seeds of a model or an arm: those of all models, then its own."""
    return (*study.train.seeds, *(v.seed for v in study.variants.values() if v.like == name and v.seed is not None))


def train_of(study: Study, model: Model) -> Train:
    """`train` as the model's recipe asks for it."""
    changes: dict[str, Any] = {name: value for name, value in (model.recipe or {}).items()}
    return Train(**(study.train.model_dump() | changes))


def training(study: Study, name: str) -> Training:
    """All parameters of one training: of a model, an arm or a further seed."""
    variant, of = study.variants.get(name), name
    update: dict[str, tuple[int, ...]] = {}
    if variant is not None and variant.seed is not None:
        of, update = variant.like, {"seeds": (variant.seed,)}
    model = all_models(study)[of]
    return Training(
        name=name,
        study=study.study,
        model=model,
        train=train_of(study, model).model_copy(update=update),
        folds=folds_of(study, of),
        faces=study.faces,
        views=study.views,
        student=study.student,
        teacher=study.teacher,
        targets=study.targets,
        seed=study.seed,
        threads=model.tuned.threads if model.tuned else study.threads,
        accelerator=study.accelerator,
    )


def points(grid: Grid) -> dict[str, dict[str, float]]:
    """What a grid tries, a trial each, by name.

    >>> points({"weight": (1, 3), "train.margin": (0.2,)})
    {'1, 0.2': {'weight': 1, 'train.margin': 0.2}, '3, 0.2': {'weight': 3, 'train.margin': 0.2}}
    """
    every = product(*grid.values())
    return {", ".join(f"{v:g}" for v in values): dict(zip(grid, values, strict=True)) for values in every}


def candidate(base: Training, point: dict[str, float]) -> Training:
    """A training with one point of a grid: values of the method's options, or of `train.<name>`."""
    recipe = {name.removeprefix("train."): value for name, value in point.items() if name.startswith("train.")}
    options = base.model.options | {name: value for name, value in point.items() if not name.startswith("train.")}
    model, train = base.model.model_copy(update={"options": options}), base.train.model_copy(update=recipe)
    return base.model_copy(update={"model": model, "train": train})


def trials(study: Study, name: str) -> Trials:
    """A model's tuning: first fold, first seed, and the epochs of tuning.

    Among the model's options stands the chosen value; here the grid's first, or a choice would ask for another trial.
    """
    grid, whole = study.tuning.grid[name], training(study, name)
    short = whole.train.model_copy(update={"epochs": study.tuning.epochs, "seeds": whole.train.seeds[:1]})
    one = whole.model_copy(update={"train": short, "folds": whole.folds[:1]})
    return Trials(training=candidate(one, next(iter(points(grid).values()))), grid=grid)


def plan_file(study: Study | Training, name: str) -> Path:
    """Where the stage `plan` writes what shapes a stage or a training."""
    return study.runs / "plan" / f"{name}.json"
