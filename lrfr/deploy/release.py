"""Release a study's students: weights and a card each, in lrfr/weights, only if they are those that dvc.lock knows.

Two students are released, so that the repository stays small: the model that the validation people ranked first, and
`scratch`, which learned without a teacher; of each the first fold and seed. No test face was read before the choice.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from numpy.typing import NDArray

from lrfr import config
from lrfr.config import Study
from lrfr.deploy.cards import find_model
from lrfr.errors import UserError
from lrfr.evaluate.verification import ROUNDING, operating_points
from lrfr.files import atomic_file
from lrfr.formats import HEADLINE, pixels, read_table
from lrfr.gate.state import read_state
from lrfr.protocol.cells import read_embedding, unit
from lrfr.protocol.folds import DENSE, OFFICIAL, held_out_rows, read_faces
from lrfr.train.trainings import folds_of

WEIGHTS = Path("lrfr") / "weights"
LOCK = Path("dvc.lock")
REFERENCE = "scratch"
MEASURED = ((DENSE, "eer"), (OFFICIAL, "accuracy"))  # both faces at the same resolution
FACES = {  # of faces that are not named here no student is released
    "lfw": "Labeled Faces in the Wild, deep-funneled: photographs of public figures collected from the web; "
    "for research only.",
    "orl": "AT&T/ORL: free to use with credit to AT&T Laboratories Cambridge.",
}
TEACHERS = {  # of a teacher that is not named here no student is released
    "dlib_resnet": "dlib's face ResNet, public domain (CC0) by its author's word; its training photographs come from "
    "the web."
}
BROUGHT = "A training set that the user brought: the terms, and whether it was withdrawn, are for the user to know."
USE = "Reading the five methods, teaching distillation, and testing code and evaluation protocols."
NO_USE = "Identifying or tracking people, or deciding anything about a person, in public space or elsewhere."
BUFFERS = (
    "running_mean",
    "running_var",
    "num_batches_tracked",
)  # of batch norm: stored with the weights, no parameters
NORMALISATION = "RGB, (value - 127.5) / 127.5; the aligned face is reduced by area averaging, then enlarged bicubically"

# Impostor errors that a rate must allow, or no threshold is given for it: our choice. Ten independent errors fix a rate
# to about a factor of two (95 % interval of a Poisson count of ten: 4.8 to 18.4); pairs that share people do less well.
LEAST = 10

Lock = dict[str, tuple[str, dict[str, Any]]]  # path of an output -> its hash, the parameters with which its stage ran


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", help="the study in params.yaml")


def run(arguments: argparse.Namespace) -> int:
    """The verb `release`; UserError like `release`."""
    paths = release(config.load(), arguments.name)
    print(f"Released: {', '.join(path.as_posix() for path in paths)}.")
    return 0


def release(study: Study, name: str) -> list[Path]:
    """Copy the chosen students of the study `name`, and write their cards. Returns the weights' paths.

    Everything is checked before anything is written; earlier releases of the same study are replaced. Raises UserError
    if params.yaml holds another study, its terms forbid a release, results are missing, or dvc.lock knows other ones.
    """
    if study.study != name:
        raise UserError(f"params.yaml: holds the study '{study.study}'; run `lrfr study {name}` first.")
    for what, used, known in (("teacher", study.teacher.name, TEACHERS), ("faces", study.faces.source, FACES)):
        if used not in known:
            raise UserError(f"params.yaml: students of the {what} '{used}' are not released; see docs/model-card.md.")
    lock = confirmed_lock(study)
    cards = {model: card(study, model, lock) for model in dict.fromkeys([chosen(study), REFERENCE])}
    paths = {model: WEIGHTS / f"{name}-{model}.safetensors" for model in cards}
    for model, path in paths.items():
        with atomic_file(path) as temporary:
            shutil.copyfile(weights_of(study, model), temporary)
        write_card(path.with_suffix(".json"), cards[model])
    kept = {path.with_suffix(end) for path in paths.values() for end in (".safetensors", ".json")}
    for old in set(WEIGHTS.glob(f"{name}-*")) - kept:
        old.unlink()
    return list(paths.values())


def locked(root: Path = Path()) -> Lock:
    """What dvc.lock says of every output; UserError if it is missing or damaged."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        stages = yaml.load((root / LOCK).read_text(encoding="utf-8"), loader)["stages"]
        return {
            out["path"]: (out["md5"], stage.get("params", {}).get("params.yaml", {}))
            for stage in stages.values()
            for out in stage.get("outs", [])
        }
    except (OSError, yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError, AttributeError):
        advice = f"run this in the top folder of a clone, or `git restore {LOCK}`."
        raise UserError(f"{LOCK}: missing or damaged; {advice}") from None


def dvc_md5(path: Path) -> str:
    """The hash by which dvc.lock knows a file or a folder (DVC 3)."""
    if not path.is_dir():
        return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    files = [file for file in path.rglob("*") if file.is_file()]
    rows = [{"md5": dvc_md5(file), "relpath": file.relative_to(path).as_posix()} for file in files]
    text = json.dumps(sorted(rows, key=lambda row: row["relpath"]), sort_keys=True)
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest() + ".dir"


def confirmed(path: Path, lock: Lock) -> tuple[str, dict[str, Any]]:
    """What dvc.lock says of an output; UserError if it is missing, unknown to dvc.lock, or has changed since."""
    name = path.as_posix()
    if not path.exists():
        raise UserError(f"{name}: not there; run `dvc repro` first.")
    if name not in lock:
        raise UserError(f"{name}: unknown to {LOCK}; run `dvc repro` first.")
    if dvc_md5(path) != lock[name][0]:
        raise UserError(f"{name}: differs from {LOCK}; run `dvc repro`, or `git restore {name}`.")
    return lock[name]


def confirmed_lock(study: Study) -> Lock:
    """dvc.lock, if it knows the tables and embeddings of the students' cards; else UserError."""
    lock, tables = locked(), study.reports / "tables"
    for path in (tables / "results.csv", tables / "tuning.csv", study.runs / "embeddings"):
        confirmed(path, lock)
    return lock


def ranking(study: Study) -> pd.DataFrame:
    """The rows of tuning.csv about all models (`candidate`), the best first."""
    tuning = read_table(study.reports / "tables" / "tuning.csv")
    return tuning[tuning.method == "ranking"].reset_index(drop=True)


def chosen(study: Study) -> str:
    """The model that the validation people ranked first."""
    ranks = ranking(study)
    first = ranks.candidate[ranks.chosen == 1]
    if len(first) != 1:
        raise UserError("tables/tuning.csv: ranks no model first; run `dvc repro rank`.")
    return str(first.iloc[0])


def weights_of(study: Study, name: str) -> Path:
    """Where the student of one model lies: its first training. UserError if there is no such model, or no student."""
    if name not in study.models:
        raise UserError(f"params.yaml: there is no model '{name}' in models; known are {', '.join(study.models)}.")
    file = f"fold{folds_of(study, name)[0]}-seed{study.train.seeds[0]}.safetensors"
    weights = study.reports / "students" / name / file
    if not weights.is_file():
        raise UserError(f"{weights.as_posix()}: not there; run `dvc repro` first.")
    return weights


def card(study: Study, name: str, lock: Lock) -> dict[str, Any]:
    """What a reader of the weights must know. UserError if they or their results are missing, or are others."""
    weights = weights_of(study, name)
    model, folder = study.models[name], weights.parent
    number, seed = folds_of(study, name)[0], study.train.seeds[0]
    md5, parameters = confirmed(folder, lock)
    ranks = ranking(study)
    if not (ranks.candidate == name).any():
        raise UserError(f"tables/tuning.csv: does not rank '{name}'; run `dvc repro` first.")
    place = int(ranks.index[ranks.candidate == name][0])
    error = {"metric": str(ranks.metric[place]), "value": float(ranks.value[place])}
    run = {"output": folder.as_posix(), "md5": md5, "file": weights.name, "parameters_sha256": canonical(parameters)}
    state = read_state(weights)
    return {
        "name": f"{study.study}-{name}",
        "method": model.method,
        "study": study.study,
        "fold": number,
        "seed": seed,
        "network": {"kind": model.student, **study.student.model_dump(mode="json")},
        "input": {"size": study.views.size, "channels": 3, "normalisation": NORMALISATION},
        "embedding": study.student.embedding,
        "parameters": sum(tensor.numel() for key, tensor in state.items() if not key.endswith(BUFFERS)),
        "stored_as": "float16",
        "sha256": sha256(weights.read_bytes()),
        "run": run,
        "measured": measured(study, name),
        "validation": {**error, "rank": place + 1, "of": len(ranks)},
        **validation_thresholds(study, name, number, seed),
        "trained_on": FACES.get(study.faces.source, BROUGHT),
        "teacher": TEACHERS.get(study.teacher.name, study.teacher.name) if model.teacher != "none" else "none",
        "terms": "For research and teaching only, under the terms of the photographs above.",
        "intended_use": USE,
        "out_of_scope": NO_USE,
    }


def measured(study: Study, name: str) -> list[dict[str, Any]]:
    """A model's numbers on its card: means over the folds and `seeds` that were run; the weights are of the first."""
    results = read_table(study.reports / "tables" / "results.csv")
    rows = results[(results.model == name) & (results.pairing == "lr_lr") & results.resolution.isin(HEADLINE)]
    rows = rows.sort_values("resolution", key=lambda names: names.map(pixels))
    parts = [rows[(rows.protocol == protocol) & (rows.metric == metric)] for protocol, metric in MEASURED]
    table = pd.concat(parts)[["protocol", "metric", "resolution", "seeds", "value", "low", "high"]]
    if table.empty:
        raise UserError(f"tables/results.csv: holds no row of '{name}'; run `dvc repro` first.")
    return table.astype({"seeds": int}).astype(object).where(table.notna(), None).to_dict("records")


def threshold_at_far(scores: NDArray, same: NDArray[np.bool_], far: float) -> tuple[float, float]:
    """The smallest threshold whose empirical FAR <= far, and the TAR there: the operating point of `tar_at_far`.

    scores: float (n,); same: bool (n,). The threshold is a score of the list, or infinite if even the highest is an
    error too many. Raises ValueError like `operating_points`.
    """
    points = operating_points(scores, same)
    last = np.flatnonzero(points.false_match <= far * (1 + ROUNDING))[-1]
    return float(points.threshold[last]), float(1 - points.false_non_match[last])


def validation_thresholds(study: Study, model: str, number: int, seed: int) -> dict[str, Any]:
    """At which similarity two faces should pass for one person, for every resolution (of both) and FAR of the study.

    The study decides by the L2 distance d of unit vectors; here the same order is told as their cosine, 1 - d^2 / 2.
    Test people have no say: their error rates, in tables/results.csv, are what a threshold can be held against.

    number, seed: of the training. Read from the embeddings that the `embed` stage wrote. Returns two entries of a card:
    `thresholds`, a row for each pair of resolution and FAR with the similarity from which two faces are accepted, the
    validation people's TAR there, and the numbers of genuine and impostor pairs (a FAR that allows fewer than LEAST
    errors has no rows); and `thresholds_from`, a sentence about their origin.

    Raises UserError if the embeddings are missing or are not those of the study's held-out faces.
    """
    rows = held_out_rows(*read_faces(study), number, study.faces.validation_images)
    people = rows.people[rows.validation]
    first, second = np.triu_indices(len(people), 1)
    same = people[first] == people[second]
    pairs = {"genuine": int(same.sum()), "impostor": int((~same).sum())}
    file, found = study.runs / "embeddings" / f"{model}.npz", []
    if not file.is_file():
        raise UserError(f"{file.as_posix()}: not there; run `dvc repro` first.")
    with np.load(file) as archive:
        for resolution in study.resolutions:
            x = read_embedding(archive, file, f"fold{number}/seed{seed}/{resolution}", len(rows.images))
            x = unit(x)[rows.validation]
            scores = np.einsum("id,jd->ij", x, x, optimize=False)  # no BLAS, whose sums depend on its threads
            for far in study.evaluate.far:
                if far * pairs["impostor"] * (1 + ROUNDING) < LEAST:
                    continue
                similarity, tar = threshold_at_far(scores[first, second], same, far)
                if np.isfinite(similarity):  # not of a network that cannot tell any faces apart
                    found.append({"resolution": resolution, "far": far, "similarity": similarity, "tar": tar, **pairs})
    origin = (
        f"{len(np.unique(people))} validation people of fold {number} of {study.study} ({len(people)} photographs), "
        "neither trained on nor tested; both faces at one resolution; cosine of unit vectors, accepted from the "
        "threshold on"
    )
    return {"thresholds": found, "thresholds_from": origin}


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def canonical(parameters: dict[str, Any]) -> str:
    """sha256 of parameters, whatever their order in a file."""
    return sha256(json.dumps(parameters, sort_keys=True).encode())


def write_card(path: Path, content: dict[str, Any]) -> None:
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    with atomic_file(path) as temporary:
        temporary.write_text(text, "utf-8", newline="\n")


def check_release(path: str | Path, root: str | Path = ".") -> dict[str, Any]:
    """Recompute the hashes of released weights and return their card.

    path: the weights or the card. root: a clone; its dvc.lock and reports are compared too, as far as they are there.
    Raises UserError if weights or card are missing or damaged, or belong to another training.
    """
    weights, root = Path(path).with_suffix(".safetensors"), Path(root)
    found = find_model(weights).card
    if (root / LOCK).is_file():
        run = found.get("run", {})
        known = locked(root).get(run.get("output"))
        if known is None or (known[0], canonical(known[1])) != (run.get("md5"), run.get("parameters_sha256")):
            again = "run `lrfr release` for its study again."
            raise UserError(f"{weights.name}: {LOCK} knows another training of it; {again}")
        student = root / run["output"] / run["file"]
        if student.is_file() and sha256(student.read_bytes()) != found["sha256"]:
            folder = run["output"]
            raise UserError(f"{weights.name}: not the student in {folder}; run `dvc repro` or `git restore {folder}`.")
    return found
