"""`params.yaml` -> one frozen, validated `Study`.

Every number of a study stands in `params.yaml`; this file has no defaults and computes nothing, it only refuses what cannot
be run. That is why the code fingerprints of the stages (`lrfr.fingerprint`) may leave it out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from lrfr.errors import UserError
from lrfr.parameters import (
    ARM,
    NAME,
    SEED,
    Benchmark,
    Block,
    Detect,
    Evaluate,
    Faces,
    Model,
    Student,
    Targets,
    Teacher,
    Train,
    Tuning,
    Views,
)


def further_seed(name: str) -> tuple[str, int]:
    """Model and seed of a name in `run_seeds`."""
    model, seed = name.split("-seed")
    return model, int(seed)


class Study(Block):
    study: str = Field(pattern=NAME)
    seed: int = Field(ge=0)
    threads: int = Field(ge=1)  # per process: the order of float sums depends on it
    jobs: int = Field(ge=1)  # processes: changes the time, never a number
    accelerator: Literal["cpu", "cuda", "mps", "auto"]  # of the student's training, as Lightning Fabric names it
    manifests: Literal["data/manifests", "data/recordio.csv"]  # of known sources, of a user's set
    faces: Faces
    detect: Detect
    views: Views
    teacher: Teacher
    targets: Targets
    student: Student
    train: Train
    tuning: Tuning
    models: dict[Annotated[str, Field(pattern=NAME)], Model]
    arms: dict[str, dict[str, dict[str, Any]]]  # method -> arm -> what it changes in the method's block of `models`
    run_arms: tuple[Annotated[str, Field(pattern=ARM)], ...]  # the arms that are trained, each named <method>-<arm>
    run_seeds: tuple[
        Annotated[str, Field(pattern=SEED)], ...
    ]  # further seeds of single models, each named <model>-seed<number>
    evaluate: Evaluate
    benchmark: Benchmark
    benchmark_sets: tuple[Annotated[str, Field(pattern=NAME)], ...]  # the user's, named to `lrfr study`
    result_notebooks: tuple[str, ...]  # read nothing that is measured in seconds
    cost_notebooks: tuple[str, ...]

    @model_validator(mode="after")
    def manifest_is_the_sources(self) -> Study:
        expected = "data/recordio.csv" if self.faces.source == "recordio" else "data/manifests"
        if self.manifests != expected:
            raise ValueError(
                f"manifests: those of faces.source '{self.faces.source}' are in {expected}; set it to that"
            )
        if len(set(self.benchmark_sets)) < len(self.benchmark_sets):
            raise ValueError("benchmark_sets: names a set twice; remove one")
        return self

    @model_validator(mode="after")
    def resolutions_are_views(self) -> Study:
        for resolution in self.evaluate.resolutions:
            if not self.views.smallest <= resolution <= self.views.largest:
                raise ValueError(
                    f"evaluate.resolutions: {resolution} px is outside views {self.views.smallest} ... {self.views.largest}"
                )
        for name in self.run_arms:
            method, arm = name.split("-")
            if arm not in self.arms.get(method, {}):
                raise ValueError(
                    f"run_arms: there is no arm '{arm}' of '{method}' in arms; correct the name or remove it"
                )
            try:
                self.arm(method, arm)
            except ValidationError as error:
                raise ValueError(sentence(error, f"arms.{method}.{arm}").removesuffix(".")) from None
        for name in self.run_seeds:
            model, seed = further_seed(name)
            if model not in self.models:
                raise ValueError(
                    f"run_seeds: there is no model '{model}' in models; correct the name '{name}' or remove it"
                )
            if seed in self.train.seeds or self.run_seeds.count(name) > 1:
                raise ValueError(
                    f"run_seeds: '{name}' is trained already (train.seeds holds every model's seeds); remove it"
                )
        for name, model in self.with_arms().models.items():
            try:
                self.train_of(model)
            except ValidationError as error:
                raise ValueError(sentence(error, f"models.{name}.recipe").removesuffix(".")) from None
        for name in self.tuning.grid:
            if name not in self.models:
                raise ValueError(f"tuning.grid.{name} belongs to no model; add a block models.{name} or remove it")
        return self

    @property
    def runs(self) -> Path:
        """Intermediate results, cached by DVC, ignored by git."""
        return Path("runs") / self.study

    @property
    def reports(self) -> Path:
        """Tables, figures and pages, tracked by git."""
        return Path("reports") / self.study

    @property
    def notebooks(self) -> tuple[str, ...]:
        """All notebooks, in the order of their numbers."""
        return tuple(sorted(self.result_notebooks + self.cost_notebooks))

    @property
    def resolutions(self) -> tuple[str, ...]:
        """Resolutions by name: '8' ... '32', then 'hr'."""
        return (*(str(r) for r in self.evaluate.resolutions), "hr")

    def folds_of(self, model: str) -> tuple[int, ...]:
        return self.faces.run_folds if self.models[model].folds == "all" else self.faces.run_folds[:1]

    def arm(self, method: str, arm: str) -> Model:
        """The method's block with the arm's changes (options are merged, the rest replaced)."""
        base, change = self.models[method].model_dump(), self.arms[method][arm]
        return Model(**{**base, **change, "options": {**base["options"], **change.get("options", {})}})

    def seeds_of(self, model: str) -> tuple[int, ...]:
        """Seeds of a model: those of all models, then its own."""
        return (*self.train.seeds, *(seed for name, seed in map(further_seed, self.run_seeds) if name == model))

    def with_arms(self) -> Study:
        """This study with the arms that are trained as further models, named <method>-<arm>."""
        arms = {name: self.arm(*name.split("-")) for name in self.run_arms}
        return self.model_copy(update={"models": {**self.models, **arms}})

    def train_of(self, model: Model) -> Train:
        """`train` as the model's recipe asks for it."""
        return Train(**{**self.train.model_dump(), **(model.recipe or {})})

    def for_training(self, name: str) -> Study:
        """This study as one training needs it (of a model, an arm, a further seed): its name among `models`, its own `train`."""
        models = self.with_arms().models
        model, seed = further_seed(name) if name in self.run_seeds else (name, None)
        train = self.train_of(models[model])
        if seed is not None:
            train = train.model_copy(update={"seeds": (seed,)})
        return self.model_copy(update={"models": models | {name: models[model]}, "train": train})


def sentence(error: ValidationError, file: str) -> str:
    """The first problem of a validation error, as one sentence."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"]) or "the file"
    if first["type"] == "extra_forbidden":
        return f"{file}: unknown parameter '{key}'; remove it or correct its spelling."
    if first["type"] == "missing":
        return f"{file}: parameter '{key}' is missing; compare with the files in conf/."
    return f"{file}: {key}: {first['msg'].removeprefix('Value error, ')}."


def load(path: str | Path = "params.yaml") -> Study:
    """Read and validate a parameter file.

    Raises
    ------
    UserError
        if the file is missing, is not YAML, or has an unknown, missing or impossible value.
    """
    path = Path(path)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError:
        raise UserError(f"{path}: no such file; run lrfr in the top folder of a clone.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path}: not valid YAML ({' '.join(str(error).split())}); mend it or run `git restore {path}`."
        ) from None
    return validated(values, str(path))


def validated(values: Any, file: str) -> Study:
    """The parameters in `values`, read from `file`; UserError for an unknown, missing or impossible one."""
    try:
        return Study.model_validate(values)
    except ValidationError as error:
        raise UserError(sentence(error, file)) from None
