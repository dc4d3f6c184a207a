"""The benchmark sets that a user brings: how each is opened, what is embedded, and which protocols score it.

A set is one function in `SETS` from a place to `Opened`. Readers are in `lrfr.data`, protocols in `lrfr.evaluate`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lrfr.benchmarks import lfw_family, scface, survface, tinyface
from lrfr.benchmarks import survface_files as survface_data
from lrfr.benchmarks import tinyface_files as tinyface_data
from lrfr.benchmarks.acquisition import Images
from lrfr.benchmarks.outcome import Outcome
from lrfr.benchmarks.paired import Draws, draw_pairs, draw_probes
from lrfr.benchmarks.scface_files import DISTANCES, read_scface
from lrfr.errors import UserError
from lrfr.gate.insightface_bin import ARCFACE, read_bin
from lrfr.gate.trees import Count, Faces, Folders, check_name

Vectors = Mapping[str, NDArray]  # role -> embeddings (N, D)


class Protocol(NamedTuple):
    """evaluate: one model's embeddings by role -> its outcome. draw: outcomes by model, draws, level -> draws of people."""

    evaluate: Callable[[Vectors], Outcome]
    draw: Callable[..., Draws]


class Opened(NamedTuple):
    """A set that has been read and checked, with no image decoded.

    name: of the results. policies: keys of `acquisition.FACES` that it allows, the first is the default.
    """

    name: str
    images: dict[str, Images]
    counts: tuple[Count, ...]
    protocols: dict[str, Protocol]
    policies: tuple[str, ...]


def images_of(faces: Faces, landmarks: Mapping[str, NDArray] | None = None) -> Images:
    """Files of one role. landmarks: name without suffix -> (4, 2): eyes, nose, and the middle of the mouth.

    The mouth counts twice, once for each corner: the least squares over the two corners are those over their mean, twice.
    """

    def points(i: int) -> NDArray:
        return landmarks[Path(faces.names[i]).stem][[0, 1, 2, 3, 3]]

    return Images(len(faces), lambda i: str(faces.folder / faces.names[i]), faces.read, points if landmarks else None)


def training_counts(read: Callable[[Path], Folders], root: Path, *places: str) -> tuple[Count, ...]:
    """Of the training part, if it lies beside the test; its reader refuses one that contradicts itself or the test."""
    return read(root).counts if any((root / place).is_dir() for place in places) else ()


def open_tinyface(root: Path) -> Opened:
    data = tinyface_data.read_tinyface(root)
    probes, gallery = data.probes.ids, data.gallery.ids
    protocol = Protocol(
        lambda x: tinyface.evaluate(x["probes"], probes, x["gallery"], gallery, x["distractors"]),
        lambda outcomes, **how: draw_probes(outcomes, probes, **how),
    )
    images = {role: images_of(getattr(data, role)) for role in ("probes", "gallery", "distractors")}
    counts = data.counts + training_counts(
        tinyface_data.read_training, root, "Training_Set", f"{tinyface_data.NAME}/Training_Set"
    )
    return Opened("tinyface", images, counts, {"identification": protocol}, ("whole", "detect"))


def open_survface(root: Path) -> Opened:
    paired, search = survface_data.read_verification(root), survface_data.read_search(root)
    positive, negative = paired.pairs[paired.same], paired.pairs[~paired.same]
    first, second = paired.faces.ids[paired.pairs].T
    alone = -1 - np.arange(len(search.unmated))  # every probe without a number is a person of its own
    strangers = np.where(search.unmated.ids == survface_data.STRANGER, alone, search.unmated.ids)
    identities = np.concatenate([search.mated.ids, strangers])
    strata = np.repeat([0, 1], [len(search.mated), len(strangers)])
    protocols = {
        "verification": Protocol(
            lambda x: survface.verification(x["verification"], positive, negative),
            lambda outcomes, **how: draw_pairs(outcomes, paired.same, first, second, **how),
        ),
        "identification": Protocol(
            lambda x: survface.identification(
                x["gallery"], search.gallery.ids, x["mated"], search.mated.ids, x["unmated"]
            ),
            lambda outcomes, **how: draw_probes(outcomes, identities, strata, **how),
        ),
    }
    images = {"verification": images_of(paired.faces)}
    images |= {role: images_of(getattr(search, role)) for role in ("gallery", "mated", "unmated")}
    trained = training_counts(survface_data.read_training, root, "training_set", f"{survface_data.NAME}/training_set")
    return Opened("survface", images, paired.counts + search.counts + trained, protocols, ("whole", "detect"))


def open_scface(root: Path) -> Opened:
    """Everybody, and the mean over the published splits; with the annotations' landmarks where there are any."""
    data = read_scface(root)
    subjects = np.concatenate([data.probes[distance].ids for distance in DISTANCES])
    distances = np.repeat(DISTANCES, [len(data.probes[distance]) for distance in DISTANCES])

    def protocol(evaluate: Callable[..., Outcome]) -> Protocol:
        def scored(x: Vectors) -> Outcome:
            probes = np.concatenate([x[f"distance {distance}"] for distance in DISTANCES])
            outcome = evaluate(x["gallery"], data.gallery.ids, probes, subjects, distances)
            decisions = {
                f"{name}@d{d}": right[distances == d] for name, right in outcome.decisions.items() for d in DISTANCES
            }
            return outcome._replace(decisions=decisions)  # named like the metrics, for McNemar's test of each

        return Protocol(scored, lambda outcomes, **how: draw_probes(outcomes, subjects, **how))

    images = {"gallery": images_of(data.gallery, data.landmarks)}
    images |= {f"distance {distance}": images_of(data.probes[distance], data.landmarks) for distance in DISTANCES}
    protocols = {
        "all subjects": protocol(scface.evaluate),
        "test subjects of the splits": protocol(scface.evaluate_splits),
    }
    policies = ("landmarks", "detect", "whole") if data.landmarks else ("detect", "whole")
    return Opened("scface", images, data.counts, protocols, policies)


def open_bin(path: Path) -> Opened:
    """Any `.bin` file; the results have its name. Its faces are aligned, so their landmarks are known to be InsightFace's."""
    check_name(path.name, path)
    data = read_bin(path)
    images = Images(len(data.images), lambda i: f"{path}, image {i} (of pair {i // 2})", data.read, lambda i: ARCFACE)
    protocol = Protocol(
        lambda x: lfw_family.evaluate(x["images"], data.same),
        lambda outcomes, **how: draw_pairs(outcomes, data.same, **how),
    )
    return Opened(
        path.stem, {"images": images}, data.counts, {"verification": protocol}, ("whole", "landmarks", "detect")
    )


SETS: dict[str, Callable[[Path], Opened]] = {
    "tinyface": open_tinyface,
    "survface": open_survface,
    "scface": open_scface,
    "lfw": open_bin,
}


def open_set(name: str, root: Path, file: str | None) -> Opened:
    """Read and check a set. file: the name of the .bin file in the folder `root`, which may be that file itself.

    Raises
    ------
    UserError
        if there is no such set, a file is named for a set that has none, or like the set's reader.
    """
    if name not in SETS:
        raise UserError(f"benchmark-set {name}: there is no such set; known are {', '.join(SETS)}.")
    if file is not None and SETS[name] is not open_bin:
        raise UserError(f"--bin {file}: {name} has no .bin file; leave --bin out.")
    if SETS[name] is open_bin and root.is_dir():
        file = f"{name}.bin" if file is None else file
        check_name(file, "--bin")
        root = root / file
    elif file is not None:
        raise UserError(f"--root {root}: not a folder; give the folder that has {file}.")
    return SETS[name](root)
