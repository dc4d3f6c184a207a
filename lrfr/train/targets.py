"""The teacher's outputs for every training face and its mirror image, computed once.

The idea of the MK-MMD paper carried to its end: if neither the teacher nor its HR inputs ever change, run the teacher once.
A mirror image has targets of its own, because students see mirrored views; the low-resolution draw does not matter here, since
the teacher always sees the HR face.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from lrfr.config import Study
from lrfr.data.files import atomic_folder
from lrfr.errors import UserError
from lrfr.models.features import Features, Targets
from lrfr.models.heads import cosine_logits
from lrfr.models.student import map_shapes
from lrfr.parallel import parallel_map
from lrfr.train.faces import Fold, read_fold, teacher_input
from lrfr.train.teacher import Trained, load_trained

BATCH = 40  # images a forward pass: fits any memory; no influence on the numbers beyond float sums
TEMPERATURES = (1.0, 2.0, 4.0)  # of confidence.csv, by which the methods' temperature is chosen
CHECKED = 4  # images recomputed whenever a cache is opened: our choice, half a second
TOLERANCE = 5e-2  # relative, of float16 maps and of another batch size; a swapped image differs by far more


def outputs(features: Features, trained: Trained, sides: tuple[int, ...]) -> dict[str, Tensor]:
    """A teacher's raw outputs -> named target arrays of one batch.

    sides : the student's map sides; maps and attention (mean over channels of the squares) are average-pooled to them.
    """
    embedding = (features.embedding - trained.mean) / trained.rms
    named = {"embedding": embedding, "logits": cosine_logits(embedding, trained.class_weight, trained.scale)}
    for level, (stage, side) in enumerate(zip(features.maps, sides, strict=True)):
        named[f"map{level}"] = F.adaptive_avg_pool2d(stage, side)
        named[f"attention{level}"] = F.adaptive_avg_pool2d(stage.square().mean(1, keepdim=True), side)
    return named


def assemble(ids: Tensor, named: dict[str, Tensor], needs: frozenset[str]) -> Targets:
    """Named arrays -> `Targets` with just what the method needs."""

    def levels(prefix: str) -> tuple[Tensor, ...]:
        return tuple(named[f"{prefix}{level}"].float() for level in range(sum(name.startswith(prefix) for name in named)))

    return Targets(
        ids,
        named["embedding"] if "embedding" in needs else None,
        named["logits"] if "logits" in needs else None,
        levels("map") if "maps" in needs else None,
        levels("attention") if "attention" in needs else None,
    )


class OnlineTargets:
    """Run the teacher for every batch: what caching replaces, and what a teacher with changing inputs needs."""

    def __init__(self, trained: Trained, sides: tuple[int, ...], needs: frozenset[str]) -> None:
        self.trained, self.sides, self.needs = trained, sides, needs

    def __call__(self, ids: np.ndarray, chips: Tensor) -> Targets:
        """Targets for `chips`, uint8 (B, 150, 150, 3): what the teacher shall see of the images `ids`."""
        with torch.inference_mode():
            named = outputs(self.trained.net(teacher_input(chips)), self.trained, self.sides)
        # a clone leaves inference mode, so that autograd may save it
        return assemble(torch.from_numpy(ids), {name: t.clone() for name, t in named.items()}, self.needs)


class CachedTargets:
    """Memory-mapped targets of one fold; calling it with images and mirror flags reads a batch."""

    def __init__(self, folder: Path, needs: frozenset[str]) -> None:
        self.needs = needs
        self.images = np.load(folder / "images.npy")
        self.arrays = {path.stem: np.load(path, mmap_mode="r") for path in sorted(folder.glob("*.npy")) if path.stem != "images"}
        self.row = {image: row for row, image in enumerate(self.images.tolist())}

    def wanted(self, name: str) -> bool:
        kind = name.rstrip("0123456789")
        return {"map": "maps"}.get(kind, kind) in self.needs

    def __call__(self, ids: np.ndarray, mirrored: np.ndarray) -> Targets:
        rows = np.array([self.row[image] for image in ids.tolist()])
        named = {
            name: torch.from_numpy(array[rows, mirrored.astype(np.int64)])
            for name, array in self.arrays.items()
            if self.wanted(name)
        }
        return assemble(torch.from_numpy(ids), named, self.needs)

    def check(self, online: OnlineTargets, fold: Fold) -> None:
        """Recompute a few images; a cache that answers for other faces or another teacher is refused.

        Raises
        ------
        UserError
            naming the first array that differs.
        """
        if not np.array_equal(self.images, fold.images):
            raise UserError(f"cached targets of fold {fold.number} are of other images; run `dvc repro`.")
        ids = self.images[np.linspace(0, len(self.images) - 1, CHECKED).astype(np.int64)]
        mirrored = np.arange(CHECKED) % 2 == 1
        chips = torch.from_numpy(fold.chips[ids])
        fresh = online(ids, torch.where(torch.from_numpy(mirrored)[:, None, None, None], chips.flip(2), chips))
        cached = self(ids, mirrored)
        for name, new, old in zip(Targets._fields, fresh, cached, strict=True):
            for a, b in zip(*((x if isinstance(x, tuple) else (x,)) for x in (new, old)), strict=True):
                if a is not None and (a - b).float().norm() > TOLERANCE * a.float().norm():
                    raise UserError(
                        f"cached targets of fold {fold.number}: '{name}' is not what the teacher gives; run `dvc repro -f`."
                    )

    def shuffle(self, labels: np.ndarray) -> None:
        """Answer for every image with another person's targets: the control in which a teacher can only mislead.

        labels : int (n,), the person of each row of the cache. Rows sorted by person move on by the largest person's size.
        """
        order = np.argsort(labels, kind="stable")
        shifted = np.roll(order, np.bincount(labels).max())
        self.row = {int(self.images[row]): int(other) for row, other in zip(order, shifted, strict=True)}


def compute(study: Study, number: int, variant: str, folder: Path) -> None:
    """All targets of one fold and one teacher ("plain" or "se") -> one .npy file each: (images, 2, ...), mirrored second."""
    fold = read_fold(study, number)
    trained = load_trained(study, number, "se" if variant == "se" else study.teacher.setting)
    sides = tuple(side for _, side in map_shapes(study.student, "plain", study.views.size))
    parts: dict[str, list[np.ndarray]] = {}
    for start in range(0, len(fold.images), BATCH):
        chips = torch.from_numpy(fold.chips[fold.images[start : start + BATCH]])
        with torch.inference_mode():
            both = [outputs(trained.net(teacher_input(view)), trained, sides) for view in (chips, chips.flip(2))]
        for name in both[0]:
            pair = torch.stack([view[name] for view in both], 1).numpy()
            # float16 halves the disk of the maps; attention is a sum of squares, which may leave float16's range
            parts.setdefault(name, []).append(pair.astype(np.float16) if name.startswith("map") else pair)
    keep = {"embedding"} if variant == "se" else set(study.targets.store)
    kinds = {name: {"map": "maps"}.get(kind := name.rstrip("0123456789"), kind) for name in parts}
    size = sum(sum(p.nbytes for p in parts[name]) for name, kind in kinds.items() if kind in ("maps", "attention"))
    if size > study.targets.budget_mb * 2**20:
        keep -= {"maps", "attention"}
        print(
            f"fold {number}: maps need {size / 2**20:.0f} MB, more than targets.budget_mb; their methods run the teacher on line"
        )
    target = folder / f"fold{number}" / variant
    target.mkdir(parents=True)
    np.save(target / "images.npy", fold.images)
    for name, arrays in parts.items():
        if kinds[name] in keep:
            np.save(target / f"{name}.npy", np.concatenate(arrays))


def load_targets(study: Study, fold: Fold, variant: str, needs: frozenset[str]) -> tuple[CachedTargets | None, OnlineTargets]:
    """The checked cache (None where it lacks what is needed) and the teacher behind it."""
    trained = load_trained(study, fold.number, "se" if variant == "se" else study.teacher.setting)
    sides = tuple(side for _, side in map_shapes(study.student, "plain", study.views.size))
    online = OnlineTargets(trained, sides, needs)
    folder = study.runs / "targets" / f"fold{fold.number}" / variant
    kinds = {path.stem.rstrip("0123456789") for path in folder.glob("*.npy")}
    if not {{"maps": "map"}.get(need, need) for need in needs} <= kinds:
        return None, online
    cached = CachedTargets(folder, needs)
    cached.check(online, fold)
    return cached, online


def confidence(logits: np.ndarray, labels: np.ndarray, temperature: float) -> float:
    """Mean probability that a softened teacher gives the right class: logits (n, 2, C), labels (n,). Wanted: 0.6 to 0.9."""
    soft = torch.from_numpy(logits).double().div(temperature).softmax(2).numpy()
    return float(soft[np.arange(len(labels)), :, labels].mean())


def run(study: Study) -> None:
    """The `targets` stage."""
    variants = ("plain",) if study.teacher.se is None else ("plain", "se")
    with atomic_folder(study.runs / "targets") as folder:
        parallel_map(
            compute,
            [(study, k, v, folder) for k in study.faces.run_folds for v in variants],
            study.jobs,
            study.threads,
            "targets",
        )
        rows = ["fold,temperature,p_target"]
        for number in study.faces.run_folds if "logits" in study.targets.store else ():
            logits, labels = np.load(folder / f"fold{number}" / "plain" / "logits.npy"), read_fold(study, number).labels
            rows += [f"{number},{t:g},{confidence(logits, labels, t):.6g}" for t in TEMPERATURES]
        (folder / "confidence.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
