"""`params.yaml` -> one frozen, validated `Study`.

Every number of a study stands in `params.yaml`; this file has no defaults and computes nothing, it only refuses what cannot
be run. That is why the code fingerprints of the stages (`lrfr.fingerprint`) may leave it out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from lrfr.errors import UserError

NAME = r"^[a-z0-9_]+$"  # names end up in stage names and paths, where DVC allows little else


class Block(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Faces(Block):
    """Which faces, and how the people are divided."""

    source: Literal["orl"]
    people: int = Field(ge=4)  # the first n people of the manifest
    folds: int = Field(ge=2)  # identity folds: every person is tested once
    run_folds: tuple[int, ...] = Field(min_length=1)  # the folds that are trained and tested
    validation_people: int = Field(ge=2)  # per fold, never trained on, never tested

    @model_validator(mode="after")
    def people_suffice(self) -> Faces:
        test = -(-self.people // self.folds)
        if self.people - test - self.validation_people < 2:
            raise ValueError(
                f"{self.people} people in {self.folds} folds with {self.validation_people} for validation leave a fold "
                "without identities to train on; take more people or fewer validation_people"
            )
        if min(self.run_folds) < 0 or max(self.run_folds) >= self.folds:
            raise ValueError(f"run_folds must lie in 0 ... {self.folds - 1}")
        return self


class Detect(Block):
    """MTCNN's input: small grey photographs need enlargement and a border before the detector finds every face."""

    enlarge: int = Field(ge=1, le=8)
    border: int = Field(ge=0, le=500)  # replicated pixels on each side, before enlarging


class Views(Block):
    """The low-resolution views that the students see."""

    smallest: int = Field(ge=4)  # pixels, side of the aligned chip
    largest: int = Field(le=64)
    size: int = Field(ge=16, le=64, multiple_of=8)  # the student's input
    hr_probability: float = Field(ge=0, le=1)


class FineTune(Block):
    epochs: int = Field(ge=0)
    batch: int = Field(ge=2)
    learning_rate: float = Field(gt=0)


class Teacher(Block):
    name: str
    weights: str  # "embedded", a name that the network knows, or a path
    setting: Literal["pretrained", "head", "last_stage"]  # which of the trained teachers the students learn from
    scale: float = Field(gt=0)
    margin: float = Field(ge=0, lt=1)
    head: FineTune
    last_stage: FineTune
    se: FineTune | None  # null: no teacher with SE gates, for networks that have none


class Targets(Block):
    """What is cached of the teacher: exactly what the methods need (`Method.needs`), as far as it fits."""

    store: tuple[Literal["embedding", "logits", "maps", "attention"], ...]
    budget_mb: int = Field(ge=0)  # per fold; maps and attention beyond it are computed on line


class Student(Block):
    channels: tuple[int, int, int, int]
    se_channels: tuple[int, int, int, int]  # narrower, so that the SE student has as many parameters
    se_reduction: int = Field(ge=1)
    embedding: int = Field(ge=8)


class Train(Block):
    """One recipe for every student."""

    seeds: tuple[int, ...] = Field(min_length=1)
    epochs: int = Field(ge=1)
    batch: int = Field(ge=8)
    people_per_batch: int = Field(ge=1)  # of the balanced half: people x 4 images
    learning_rate: float = Field(gt=0)
    weight_decay: float = Field(ge=0)
    warmup: float = Field(ge=0, lt=1)  # fraction of training
    scale: float = Field(gt=0)
    margin: float = Field(ge=0, lt=1)
    jitter: float = Field(ge=0, lt=1)  # photometric: gain and bias drawn from +- this

    @model_validator(mode="after")
    def batch_has_two_parts(self) -> Train:
        if 4 * self.people_per_batch >= self.batch:
            raise ValueError(f"people_per_batch x 4 images must leave room in a batch of {self.batch}; lower people_per_batch")
        return self


class Tuned(Block):
    """The conventional scheme: fine-tune the teacher on low-resolution views until validation stops improving."""

    batch: int = Field(ge=2)
    learning_rate: float = Field(gt=0)
    patience: int = Field(ge=1)  # epochs without a better validation EER
    max_epochs: int = Field(ge=1)
    threads: int = Field(ge=1)


class Model(Block):
    """One row of the comparison: a method, its weights, and what its student and its teacher see."""

    method: str  # a key of lrfr.methods.METHODS
    student: Literal["plain", "se"]
    views: Literal["lr", "hr"]  # hr: the student never sees a low-resolution face
    teacher: Literal["none", "plain", "se", "shuffled", "tuned"]
    folds: Literal["all", "first"]
    options: dict[str, Any]  # the method's keyword arguments
    tuned: Tuned | None = None  # with teacher: tuned

    @model_validator(mode="after")
    def tuned_is_described(self) -> Model:
        if (self.teacher == "tuned") != (self.tuned is not None):
            raise ValueError("a block `tuned` and `teacher: tuned` belong together; add or remove one")
        return self


class Evaluate(Block):
    resolutions: tuple[int, ...] = Field(min_length=1)
    draws: int = Field(ge=100)
    level: float = Field(gt=0.5, lt=1)
    far: float = Field(gt=0, lt=1)


class Benchmark(Block):
    rounds: int = Field(ge=1)
    latency_runs: int = Field(ge=3)


class Study(Block):
    study: str = Field(pattern=NAME)
    seed: int = Field(ge=0)
    threads: int = Field(ge=1)  # per process: the order of float sums depends on it
    jobs: int = Field(ge=1)  # processes: changes the time, never a number
    accelerator: Literal["cpu", "cuda", "mps", "auto"]  # of the student's training, as Lightning Fabric names it
    faces: Faces
    detect: Detect
    views: Views
    teacher: Teacher
    targets: Targets
    student: Student
    train: Train
    models: dict[Annotated[str, Field(pattern=NAME)], Model]
    arms: dict[str, dict[str, dict[str, Any]]]  # method -> arm -> what it changes in the method's block of `models`
    evaluate: Evaluate
    benchmark: Benchmark
    result_notebooks: tuple[str, ...]  # read nothing that is measured in seconds
    cost_notebooks: tuple[str, ...]

    @model_validator(mode="after")
    def resolutions_are_views(self) -> Study:
        for resolution in self.evaluate.resolutions:
            if not self.views.smallest <= resolution <= self.views.largest:
                raise ValueError(
                    f"evaluate.resolutions: {resolution} px is outside views {self.views.smallest} ... {self.views.largest}"
                )
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
        return self.result_notebooks + self.cost_notebooks

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
    try:
        return Study.model_validate(values)
    except ValidationError as error:
        raise UserError(sentence(error, str(path))) from None
