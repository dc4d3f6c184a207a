"""`params.yaml` -> one frozen, validated `Study`.

Every number of a study stands in `params.yaml`. This file has no defaults and decides nothing: it says what a parameter
may be and refuses the rest. What is decided from parameters (folds, arms, recipes, seeds) stands in
`lrfr.train.trainings`, whose code is hashed (`lrfr.fingerprint`); this file is not.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from lrfr.errors import UserError

NAME = r"^[a-z0-9_]+$"  # names end up in stage names and paths, where DVC allows little else

VARIANT = r"^[a-z0-9_]+-[a-z0-9_]+$"  # <model>-<arm> or <model>-seed<number>


class Block(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


SourceName = Literal["orl", "lfw", "recordio", "celeba", "cfp"]


class Searcher(Block):
    """A network that finds people of the training source in the test sources."""

    name: str
    weights: str  # as the teacher's


class Faces(Block):
    """Which faces, and how the people are divided."""

    source: SourceName  # whose people train
    tests: tuple[SourceName, ...]  # whose people are tested, all of them; none: people of the source itself, in folds
    people: int = Field(ge=4)  # the first n people of the source's manifest
    margin: int = Field(ge=0, le=150)  # pixels that are kept around the chip, for networks with a wider crop
    resemblance: float | None = Field(gt=0, lt=1)  # cosine to a test face above which a person is left out; null: none
    searcher: Searcher | None
    folds: int = Field(ge=1)  # identity folds; orl: every person is tested once; lfw: pairs of View-2 folds, always 5
    run_folds: tuple[int, ...] = Field(min_length=1)  # the folds that are trained and tested
    validation_people: int = Field(ge=2)  # per fold, with two photographs or more, never trained on, never tested
    validation_images: int = Field(ge=2)  # at most this many of each validation person; the others are not used

    @model_validator(mode="after")
    def people_suffice(self) -> Faces:
        if len({self.source, *self.tests}) <= len(self.tests):
            raise ValueError("tests name a source twice, or the one that is trained on; remove it")
        if (self.folds == 1) != bool(self.tests):
            raise ValueError(f"folds: {self.folds}; with `tests` there is one, without them there are two or more")
        if (self.resemblance is None) != (self.searcher is None):
            raise ValueError("resemblance and searcher belong together; give both or set both to null")
        test = 0 if self.tests else -(-self.people // self.folds)
        if self.people - test - self.validation_people < 2:
            raise ValueError(
                f"{self.people} people in {self.folds} folds with {self.validation_people} for validation leave a fold "
                "without identities to train on; take more people or fewer validation_people"
            )
        if min(self.run_folds) < 0 or max(self.run_folds) >= self.folds:
            raise ValueError(f"run_folds must lie in 0 ... {self.folds - 1}")
        return self


class Views(Block):
    """The low-resolution views that the students see."""

    kinds: tuple[Literal["area", "camera", "blur", "noise", "jpeg", "nearest", "grey"], ...]  # of DEGRADATIONS
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

    store: tuple[Literal["embedding", "maps", "attention"], ...]  # logits are computed from the embedding
    budget_mb: int = Field(ge=0)  # per fold; maps and attention beyond it are computed on line


class Reference(Block):
    """A published network."""

    name: str  # a key of lrfr.models.teachers.TEACHERS
    weights: str


class Student(Block):
    channels: tuple[int, int, int, int]
    se_channels: tuple[int, int, int, int]  # narrower, so that the SE student has as many parameters
    se_reduction: int = Field(ge=1)
    embedding: int = Field(ge=8)
    pretrained: Reference | None = None  # what `student: adapted` starts from
    start: str | None = None  # released weights, a name in lrfr/weights, that our own networks start from; none: random


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
    head: Literal["random", "teacher"]  # first class weights of models that have a teacher; of others: random
    jitter: float = Field(ge=0, lt=1)  # photometric: gain and bias drawn from +- this
    grey: float = Field(ge=0, le=1)  # share of the student's views that are shown grey; of the others,
    cast: float = Field(ge=0, lt=1)  # the largest difference between the gains of two channels
    rotate: float = Field(ge=0, le=45)  # geometric, of the student's view alone: degrees,
    zoom: float = Field(ge=0, le=0.5)  # natural logarithm,
    shift: float = Field(ge=0, le=0.5)  # fraction of the side; each drawn from +- this

    @model_validator(mode="after")
    def batch_has_two_parts(self) -> Train:
        if 4 * self.people_per_batch >= self.batch:
            raise ValueError(
                f"people_per_batch x 4 images must leave room in a batch of {self.batch}; lower people_per_batch"
            )
        return self


# what is tried of a model, every value of one number with every value of the other: option of the method, or
# train.<name> of the recipe -> values
Grid = Annotated[dict[str, tuple[float, ...]], Field(min_length=1, max_length=2)]


class Tuning(Block):
    """The same budget for every model: equally many trials of equal length."""

    epochs: int = Field(ge=1)
    grid: dict[Annotated[str, Field(pattern=NAME)], Grid]

    @model_validator(mode="after")
    def budgets_are_equal(self) -> Tuning:
        trials = {model: math.prod(map(len, grid.values())) for model, grid in self.grid.items()}
        if len(set(trials.values())) > 1 or 0 in trials.values():
            counted = ", ".join(f"{model} {count}" for model, count in trials.items())
            raise ValueError(f"grid: every model gets as many trials as the others ({counted}); add or remove values")
        return self


class Tuned(Block):
    """The conventional scheme: fine-tune the teacher on low-resolution views until validation stops improving."""

    batch: int = Field(ge=2)
    learning_rate: float = Field(gt=0)
    patience: int = Field(ge=1)  # epochs without a better validation EER
    max_epochs: int = Field(ge=1)
    threads: int = Field(ge=1)


# what a model may do its own way
Recipe = Literal[
    "epochs", "learning_rate", "weight_decay", "margin", "jitter", "grey", "cast", "rotate", "zoom", "shift"
]


class Model(Block):
    """One row of the comparison: a method, its weights, and what its student and its teacher see."""

    method: str  # a key of lrfr.methods.METHODS
    student: Literal["plain", "se", "adapted"]
    views: Literal["lr", "area", "hr"]  # area: of `views.kinds` the first alone; hr: no low-resolution face ever
    teacher: Literal["none", "plain", "se", "shuffled", "tuned", "own"]  # own: what an adapted student starts from
    folds: Literal["all", "first"]
    options: dict[str, Any]  # the method's keyword arguments
    tuned: Tuned | None = None  # with teacher: tuned
    recipe: dict[Recipe, int | float] | None = None  # unlike `train`

    @model_validator(mode="after")
    def tuned_is_described(self) -> Model:
        if (self.teacher == "tuned") != (self.tuned is not None):
            raise ValueError("a block `tuned` and `teacher: tuned` belong together; add or remove one")
        if self.teacher == "own" and self.student != "adapted":
            raise ValueError("teacher: `own` is the network that a student starts from; set `student: adapted`")
        return self


class Variant(Block):
    """A model changed in something (an arm of the ablation: any keys of its block), or one more seed of it."""

    model_config = ConfigDict(frozen=True, extra="allow")
    like: str = Field(pattern=NAME)  # the model
    seed: Annotated[int, Field(ge=0)] | None = None  # a further seed, and no other change

    @property
    def changes(self) -> dict[str, Any]:
        """What is given of a model's block; `lrfr.train.trainings.arm` puts it together and checks it."""
        return self.model_extra or {}


class Evaluate(Block):
    resolutions: tuple[int, ...] = Field(min_length=1)
    draws: int = Field(ge=100)
    level: float = Field(gt=0.5, lt=1)
    far: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = Field(min_length=1)
    # further conditions, keys of lrfr.data.degradations.DEGRADATIONS, and the resolutions at which they are tested
    degradations: dict[Literal["camera", "blur", "noise", "jpeg", "nearest", "grey"], tuple[int, ...]]
    dense_images: int = Field(ge=2)  # protocol `dense`: the first n photographs of each test person
    impostors: int | None = Field(ge=1)  # protocol `dense`: a seeded sample of the impostor pairs; null: all
    official: bool  # the source's own pair list as well (LFW's View 2)
    misaligned: float | None = Field(
        gt=0, lt=0.2
    )  # protocol `misaligned`: sd of landmark noise, in chip sides; null: none


class Benchmark(Block):
    rounds: int = Field(ge=1)
    batches: int = Field(ge=1)  # of an epoch that is timed: the first ones, for sets whose epochs take minutes
    latency_runs: int = Field(ge=3)


class Study(Block):
    """All of `params.yaml`. Its `models` hold every training; blocks with `like` are divided off into `variants`."""

    study: str = Field(pattern=NAME)
    seed: int = Field(ge=0)
    threads: int = Field(ge=1)  # per process: the order of float sums depends on it
    jobs: int = Field(ge=1)  # processes: changes the time, never a number
    accelerator: Literal["cpu", "cuda", "mps", "auto"]  # of the student's training, as Lightning Fabric names it
    manifests: Literal["data/manifests", "data/recordio.csv"]  # of known sources, of a user's set
    faces: Faces
    views: Views
    teacher: Teacher
    targets: Targets
    references: dict[
        Annotated[str, Field(pattern=NAME)], Reference
    ]  # simply fed with what there is: rows of the tables
    student: Student
    train: Train
    tuning: Tuning
    excused: dict[str, str]  # <model>.<term> -> why it may break the rule of `lrfr.report.gradients`
    models: dict[Annotated[str, Field(pattern=NAME)], Model]
    variants: dict[Annotated[str, Field(pattern=VARIANT)], Variant] = {}  # <model>-<arm> or <model>-seed<number>
    # described; a study trains those that its `models` name
    arms: dict[Annotated[str, Field(pattern=VARIANT)], Variant]
    evaluate: Evaluate
    benchmark: Benchmark
    benchmark_sets: tuple[Annotated[str, Field(pattern=NAME)], ...]  # the user's, named to `lrfr study`
    notebooks: tuple[str, ...]

    @model_validator(mode="before")
    @classmethod
    def variants_are_divided_off(cls, values: Any) -> Any:
        if not isinstance(values, dict) or not isinstance(values.get("models"), dict):
            return values
        variants = {
            name: block for name, block in values["models"].items() if isinstance(block, dict) and "like" in block
        }
        models = {name: block for name, block in values["models"].items() if name not in variants and block is not None}
        return {**values, "models": models, "variants": {**values.get("variants", {}), **variants}}

    @model_validator(mode="after")
    def names_belong_together(self) -> Study:
        expected = "data/recordio.csv" if self.faces.source == "recordio" else "data/manifests"
        if self.manifests != expected:
            raise ValueError(
                f"manifests: those of faces.source '{self.faces.source}' are in {expected}; set it to that"
            )
        if "area" not in self.views.kinds:
            raise ValueError("views.kinds: 'area' is missing, which every study reads; add it")
        if len(set(self.benchmark_sets)) < len(self.benchmark_sets):
            raise ValueError("benchmark_sets: names a set twice; remove one")
        if self.student.pretrained is None and "adapted" in {model.student for model in self.models.values()}:
            raise ValueError("student.pretrained: a model with `student: adapted` needs a published network; name one")
        for resolution in self.evaluate.resolutions:
            if not self.views.smallest <= resolution <= self.views.largest:
                views = f"views {self.views.smallest} ... {self.views.largest}"
                raise ValueError(f"evaluate.resolutions: {resolution} px is outside {views}")
        for key, blocks in (("models", self.variants), ("arms", self.arms)):
            for name, block in blocks.items():
                model, suffix = name.split("-")
                if block.like != model:
                    raise ValueError(
                        f"{key}.{name}.like: '{block.like}' is not the model of its name; set it to '{model}'"
                    )
                if model not in self.models:
                    raise ValueError(
                        f"{key}.{name}: there is no model '{model}' in models; correct the name or remove it"
                    )
                if (block.seed is not None) != (suffix == f"seed{block.seed}"):
                    raise ValueError(f"{key}.{name}: a further seed is named like '{model}-seed1' and has that `seed`")
                if block.seed is not None and block.changes:
                    raise ValueError(
                        f"{key}.{name}: a further seed changes nothing else; remove {', '.join(block.changes)}"
                    )
                if block.seed in self.train.seeds:
                    raise ValueError(
                        f"{key}.{name}: trained already (train.seeds holds every model's seeds); remove it"
                    )
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
    def resolutions(self) -> tuple[str, ...]:
        """Resolutions by name: '8' ... '32', then 'hr'."""
        return (*(str(r) for r in self.evaluate.resolutions), "hr")

    @property
    def run_arms(self) -> tuple[str, ...]:
        """The arms that are trained, each named <model>-<arm>."""
        return tuple(name for name, block in self.variants.items() if block.seed is None)

    @property
    def run_seeds(self) -> tuple[str, ...]:
        """Further seeds of single models, each named <model>-seed<number>."""
        return tuple(name for name, block in self.variants.items() if block.seed is not None)


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

    Raises UserError if the file is missing, is not YAML, or has an unknown, missing or impossible value.
    """
    path = Path(path)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError:
        raise UserError(f"{path}: no such file; run lrfr in the top folder of a clone.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: not valid YAML ({reason}); mend it or run `git restore {path}`.") from None
    return validated(values, str(path))


def validated(values: Any, file: str) -> Study:
    """The parameters in `values`, read from `file`; UserError for an unknown, missing or impossible one."""
    try:
        return Study.model_validate(values)
    except ValidationError as error:
        raise UserError(sentence(error, file)) from None
