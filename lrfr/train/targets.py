"""The teacher's outputs for every training face and its mirror image, computed once.

The idea of the MK-MMD paper carried to its end: if neither the teacher nor its HR inputs ever change, run it once. A
mirror image has targets of its own, because students see mirrored views; the low-resolution draw does not matter here,
since the teacher always sees the HR face.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from lrfr.config import Study
from lrfr.data.draws import Draw
from lrfr.errors import UserError
from lrfr.files import atomic_folder, write_text
from lrfr.methods import METHODS
from lrfr.models.features import Features, Targets
from lrfr.models.heads import cosine_logits
from lrfr.models.student import kind_of, map_sides
from lrfr.models.teachers import TEACHERS
from lrfr.parallel import parallel_map
from lrfr.train.fold import Fold, See, read_fold, sharp_views, teacher_input, teacher_view
from lrfr.train.teacher import Trained, load_trained, own, tune
from lrfr.train.trainings import Training

BATCH = 40  # images a forward pass: fits any memory; no influence on the numbers beyond float sums
PART = 25 * BATCH  # images a task: parts of a fold are computed side by side
KIND_OF = {"embedding": "embedding", "logits": "embedding", "maps": "map", "attention": "attention"}  # need -> arrays
TEMPERATURES = (1.0, 2.0, 4.0)  # of confidence.csv, by which the methods' temperature is chosen
CHECKED = 4  # images recomputed whenever a cache is opened: our choice, half a second
TOLERANCE = 5e-2  # relative, of float16 maps and of another batch size; a swapped image differs by far more


def outputs(features: Features, trained: Trained, sides: tuple[int, ...]) -> dict[str, Tensor]:
    """A teacher's raw outputs -> named target arrays of one batch; maps and attention are average-pooled to `sides`.

    Logits are not among them: they are the embedding times the class weights, and there may be thousands of classes.
    """
    named = {"embedding": (features.embedding - trained.mean) / trained.rms}
    for level, (stage, side) in enumerate(zip(features.maps, sides, strict=True)):
        named[f"map{level}"] = F.adaptive_avg_pool2d(stage, side)
        named[f"attention{level}"] = F.adaptive_avg_pool2d(stage.square().mean(1, keepdim=True), side)
    return named


def assemble(ids: Tensor, named: dict[str, Tensor], trained: Trained, needs: frozenset[str]) -> Targets:
    """Named arrays -> `Targets` with just what the method needs."""

    def levels(prefix: str) -> tuple[Tensor, ...]:
        count = sum(name.startswith(prefix) for name in named)
        return tuple(named[f"{prefix}{level}"].float() for level in range(count))

    return Targets(
        ids,
        named["embedding"] if "embedding" in needs else None,
        cosine_logits(named["embedding"], trained.class_weight, trained.scale) if "logits" in needs else None,
        levels("map") if "maps" in needs else None,
        levels("attention") if "attention" in needs else None,
    )


class OnlineTargets:
    """Run the teacher for every batch: what caching replaces, and what a teacher with changing inputs needs."""

    def __init__(self, trained: Trained, see: See, sides: tuple[int, ...], needs: frozenset[str]) -> None:
        self.trained, self.see, self.sides, self.needs = trained, see, sides, needs

    def __call__(self, ids: np.ndarray, chips: Tensor) -> Targets:
        """Targets for `chips`, uint8 (B, s, s, 3): what the teacher shall see of the images `ids`."""
        with torch.inference_mode():
            named = outputs(self.trained.net(teacher_input(chips)), self.trained, self.sides)
        # a clone leaves inference mode, so that autograd may save it
        return assemble(torch.from_numpy(ids), {name: t.clone() for name, t in named.items()}, self.trained, self.needs)


class CachedTargets:
    """Targets of one fold; the class weights of the teacher behind them turn embeddings into logits.

    images: int (n,). arrays: by name, (n, 2, ...) with mirror images second, perhaps memory-mapped.
    """

    def __init__(
        self, images: np.ndarray, arrays: dict[str, np.ndarray], trained: Trained, needs: frozenset[str]
    ) -> None:
        self.images, self.trained, self.needs = images, trained, needs
        wanted = {KIND_OF[need] for need in needs}
        self.arrays = {name: array for name, array in arrays.items() if kind(name) in wanted}
        self.row = np.full(self.images.max() + 1, -1)
        self.row[self.images] = np.arange(len(self.images))

    def __call__(self, ids: np.ndarray, mirrored: np.ndarray) -> Targets:
        rows, side = self.row[ids], mirrored.astype(np.int64)
        named = {name: torch.from_numpy(array[rows, side]) for name, array in self.arrays.items()}
        # stored channels last, as the student's maps lie in memory: comparing them copies neither
        named |= {name: stored.permute(0, 3, 1, 2) for name, stored in named.items() if name.startswith("map")}
        return assemble(torch.from_numpy(ids), named, self.trained, self.needs)

    def check(self, online: OnlineTargets, fold: Fold) -> None:
        """Recompute a few images: UserError if the cache answers for other faces or another teacher."""
        what = f"cached targets of fold {fold.number}"
        if not np.array_equal(self.images, fold.images):
            raise UserError(f"{what} are of other images; run `dvc repro`.")
        ids = self.images[np.linspace(0, len(self.images) - 1, CHECKED).astype(np.int64)]
        mirrored = np.arange(CHECKED) % 2 == 1
        fresh = online(ids, teacher_view(online.see, fold.chips[ids], np.zeros(CHECKED, np.int64), mirrored))
        for name, new, old in zip(Targets._fields, fresh, self(ids, mirrored), strict=True):
            for a, b in zip(*((x if isinstance(x, tuple) else (x,)) for x in (new, old)), strict=True):
                if a is not None and (a - b).float().norm() > TOLERANCE * a.float().norm():
                    raise UserError(f"{what}: '{name}' is not what the teacher gives; run `dvc repro -f`.")

    def shuffle(self, persons: np.ndarray) -> None:
        """Answer for every image with another person's targets: the control in which a teacher can only mislead.

        persons: int (n,), the person of each row of the cache. Sorted by person, rows move on by the largest's size.
        """
        order = np.argsort(persons, kind="stable")
        self.row[self.images[order]] = np.roll(order, np.bincount(persons).max())


def kind(name: str) -> str:
    """ "map0" -> "map": what an array holds, of whichever stage."""
    return name.rstrip("0123456789")


def layout(study: Study, variant: str) -> dict[str, tuple[tuple[int, ...], Any]]:
    """Array name -> (shape of one face's entry, dtype): what a fold's cache is to hold if the disk allows.

    Maps are float16, which halves their size; attention is a sum of squares, which may leave float16's range.
    """
    spec, sides = TEACHERS[study.teacher.name], map_sides(study.views.size)
    arrays: dict[str, tuple[tuple[int, ...], Any]] = {"embedding": ((spec.embedding,), np.float32)}
    if variant == "plain":
        for level, (channels, side) in enumerate(zip(spec.channels, sides, strict=True)):
            arrays[f"map{level}"] = ((side, side, channels), np.float16)
            arrays[f"attention{level}"] = ((1, side, side), np.float32)
    stored = {KIND_OF[name] for name in study.targets.store}
    return {name: entry for name, entry in arrays.items() if kind(name) in stored}


def allocate(study: Study, number: int, variant: str, folder: Path) -> list[str]:
    """Make one fold's empty arrays, (images, 2, ...) with mirror images second; return their names.

    Maps and attention that exceed the budget are left out, and their methods run the teacher on line.
    """
    images, arrays = read_fold(study, number).images, layout(study, variant)
    large = [entry for name, entry in arrays.items() if name != "embedding"]
    size = 2 * len(images) * sum(int(np.prod(shape)) * np.dtype(dtype).itemsize for shape, dtype in large)
    if size > study.targets.budget_mb * 2**20:
        arrays = {name: entry for name, entry in arrays.items() if name == "embedding"}
        needed = f"maps need {size / 2**20:.0f} MB, more than targets.budget_mb"
        print(f"fold {number}: {needed}; their methods run the teacher on line")
    folder.mkdir(parents=True)
    np.save(folder / "images.npy", images)
    for name, (shape, dtype) in arrays.items():
        np.lib.format.open_memmap(folder / f"{name}.npy", mode="w+", dtype=dtype, shape=(len(images), 2, *shape))
    return list(arrays)


def fill(study: Study, number: int, variant: str, folder: Path, names: list[str], start: int, stop: int) -> None:
    """Compute rows start ... stop of the arrays that `allocate` made; parts of a fold are independent."""
    fold = read_fold(study, number)
    trained = load_trained(study, number, "se" if variant == "se" else study.teacher.setting)
    arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r+") for name in names}
    for first in range(start, stop, BATCH):
        rows = slice(first, min(first + BATCH, stop))
        for side, mirrored in enumerate((False, True)):
            view = sharp_views(TEACHERS[study.teacher.name].see, fold, fold.images[rows], mirrored)
            with torch.inference_mode():
                named = outputs(trained.net(teacher_input(view)), trained, map_sides(study.views.size))
            for name in names:
                value = named[name].permute(0, 2, 3, 1) if name.startswith("map") else named[name]
                arrays[name][rows, side] = value.numpy()


def load_targets(
    training: Study | Training, fold: Fold, variant: str, needs: frozenset[str]
) -> tuple[CachedTargets | None, OnlineTargets]:
    """The checked cache (None where it lacks what is needed) and the teacher behind it."""
    trained = load_trained(training, fold.number, "se" if variant == "se" else training.teacher.setting)
    online = OnlineTargets(trained, TEACHERS[training.teacher.name].see, map_sides(training.views.size), needs)
    folder = training.runs / "targets" / f"fold{fold.number}" / variant
    arrays = {path.stem: np.load(path, mmap_mode="r") for path in sorted(folder.glob("*.npy"))}
    if not {KIND_OF[need] for need in needs} <= {kind(name) for name in arrays}:
        return None, online
    cached = CachedTargets(arrays.pop("images"), arrays, trained, needs)
    cached.check(online, fold)
    return cached, online


class Source:
    """The teacher's side of a batch, of whichever kind the model's `teacher` is: none, cached, shuffled, tuned, own."""

    def __init__(self, training: Training, fold: Fold) -> None:
        model, self.fold, self.needs = training.model, fold, METHODS[training.model.method].needs
        kind_of_student = kind_of(training.student, model.student, training.views.size)
        sides = tuple(side for _, side in kind_of_student.maps)
        self.cached: CachedTargets | None = None
        self.online: OnlineTargets | None = None
        self.low_resolution = model.teacher == "tuned"  # only the conventional teacher sees the student's view
        self.log: list[tuple[int, str, float]] = []  # of the tuned teacher's own training
        if model.teacher == "tuned":
            trained, self.log = tune(training, fold)
            self.online = OnlineTargets(trained, TEACHERS[training.teacher.name].see, sides, self.needs)
        elif model.teacher == "own":
            trained, embedding = own(training, fold)
            self.online = OnlineTargets(trained, kind_of_student.see, sides, self.needs)
            if self.needs <= {"embedding", "logits"}:  # maps of a published network are too large to keep
                self.cached = CachedTargets(fold.images, {"embedding": embedding}, trained, self.needs)
        elif model.teacher != "none":
            variant = "se" if model.teacher == "se" else "plain"
            self.cached, self.online = load_targets(training, fold, variant, self.needs)
            if sides != self.online.sides and self.needs & {"maps", "attention"}:
                self.cached, self.online.sides = None, sides  # stored are maps on our own student's grids
            if model.teacher == "shuffled":
                if self.cached is None:
                    raise UserError("`teacher: shuffled` needs cached targets; raise targets.budget_mb in params.yaml.")
                self.cached.shuffle(fold.persons)
        honest = None if model.teacher == "shuffled" else self.online  # a teacher that does not mislead
        self.class_weight = None if honest is None else honest.trained.class_weight
        if not self.needs:  # `scratch` with a teacher: the head's start is all that was asked for
            self.cached = self.online = None

    def __call__(self, ids: np.ndarray, draw: Draw) -> Targets:
        if self.cached is not None:
            return self.cached(ids, draw.mirrored)
        if self.online is None:
            return Targets(torch.from_numpy(ids))
        seen = draw.resolution if self.low_resolution else np.zeros_like(draw.resolution)
        return self.online(ids, teacher_view(self.online.see, self.fold.chips[ids], seen, draw.mirrored))


def confidence(logits: Tensor, labels: Tensor, temperature: float) -> float:
    """Mean probability of the right class by a softened teacher: logits (n, C), labels (n,). Wanted: 0.6 to 0.9."""
    return float(logits.double().div(temperature).softmax(1).gather(1, labels[:, None]).mean())


def confidences(study: Study, number: int, folder: Path) -> list[str]:
    """Rows of confidence.csv of one fold."""
    fold, trained = read_fold(study, number), load_trained(study, number, study.teacher.setting)
    known = fold.labels >= 0
    embedding = torch.from_numpy(np.load(folder / f"fold{number}" / "plain" / "embedding.npy")[known, 0])
    logits, labels = cosine_logits(embedding, trained.class_weight, trained.scale), torch.from_numpy(fold.labels[known])
    return [f"{number},{t:g},{confidence(logits, labels, t):.6g}" for t in TEMPERATURES]


def run(study: Study) -> None:
    """The `targets` stage."""
    variants = ("plain",) if study.teacher.se is None else ("plain", "se")
    with atomic_folder(study.runs / "targets") as folder:
        tasks = []
        for number in study.faces.run_folds:
            count = len(read_fold(study, number).images)
            for variant in variants:
                task = (study, number, variant, folder / f"fold{number}" / variant)
                names = allocate(*task)
                tasks += [(*task, names, first, min(first + PART, count)) for first in range(0, count, PART)]
        parallel_map(fill, tasks, study.jobs, study.threads, "targets")
        rows = [row for number in study.faces.run_folds for row in confidences(study, number, folder)]
        write_text(folder / "confidence.csv", "\n".join(["fold,temperature,p_target", *rows]) + "\n")
