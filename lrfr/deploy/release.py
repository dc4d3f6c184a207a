"""Release the students of a study: weights and a card each, in lrfr/weights, only if they are those that dvc.lock knows.

Two students are released, so that the repository stays small: the model that the validation people ranked first, and `scratch`,
which learned without a teacher; of each the first fold and seed that were run. The choice was made before any test face was read.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from lrfr.config import Study
from lrfr.deploy.thresholds import validation_thresholds
from lrfr.errors import UserError
from lrfr.files import atomic_file
from lrfr.formats import pixels, read_table
from lrfr.gate.state import read_state
from lrfr.protocol.folds import DENSE, OFFICIAL
from lrfr.report.tables import HEADLINE
from lrfr.train.trainings import folds_of

WEIGHTS = Path("lrfr") / "weights"
LOCK = Path("dvc.lock")
REFERENCE = "scratch"
MEASURED = ((DENSE, "eer"), (OFFICIAL, "accuracy"))  # both faces at the same resolution
FACES = {  # of faces that are not named here no student is released
    "lfw": "Labeled Faces in the Wild, deep-funneled: photographs of public figures collected from the web; for research only.",
    "orl": "AT&T/ORL: free to use with credit to AT&T Laboratories Cambridge.",
}
TEACHERS = {  # of a teacher that is not named here no student is released
    "dlib_resnet": "dlib's face ResNet, public domain (CC0) by its author's word; its training photographs come from the web."
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


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def canonical(parameters: dict[str, Any]) -> str:
    """sha256 of parameters, whatever their order in a file."""
    return sha256(json.dumps(parameters, sort_keys=True).encode())


def dvc_md5(path: Path) -> str:
    """The hash by which dvc.lock knows a file or a folder (DVC 3)."""
    if not path.is_dir():
        return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    files = [file for file in path.rglob("*") if file.is_file()]
    rows = [{"md5": dvc_md5(file), "relpath": file.relative_to(path).as_posix()} for file in files]
    text = json.dumps(sorted(rows, key=lambda row: row["relpath"]), sort_keys=True)
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest() + ".dir"


def locked(root: Path = Path()) -> dict[str, tuple[str, dict[str, Any]]]:
    """Path of every output in dvc.lock -> its hash, and the parameters with which its stage ran.

    Raises
    ------
    UserError
        if dvc.lock is missing or damaged.
    """
    try:
        stages = yaml.load((root / LOCK).read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))[
            "stages"
        ]
        return {
            out["path"]: (out["md5"], stage.get("params", {}).get("params.yaml", {}))
            for stage in stages.values()
            for out in stage.get("outs", [])
        }
    except (OSError, yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError, AttributeError):
        raise UserError(
            f"{LOCK}: missing or damaged; run this in the top folder of a clone, or `git restore {LOCK}`."
        ) from None


def confirmed(path: Path, lock: dict[str, tuple[str, dict[str, Any]]]) -> tuple[str, dict[str, Any]]:
    """What dvc.lock says of an output that is there and has not changed since.

    Raises
    ------
    UserError
        if the output is missing, dvc.lock does not know it, or its hash differs.
    """
    name = path.as_posix()
    if not path.exists():
        raise UserError(f"{name}: not there; run `dvc repro` first.")
    if name not in lock:
        raise UserError(f"{name}: unknown to {LOCK}; run `dvc repro` first.")
    if dvc_md5(path) != lock[name][0]:
        raise UserError(f"{name}: differs from {LOCK}; run `dvc repro`, or `git restore {name}`.")
    return lock[name]


def confirmed_lock(study: Study) -> dict[str, tuple[str, dict[str, Any]]]:
    """dvc.lock, if it knows the tables and embeddings of the students' cards; else UserError."""
    lock, tables = locked(), study.reports / "tables"
    for path in (tables / "results.csv", tables / "tuning.csv", study.runs / "embeddings"):
        confirmed(path, lock)
    return lock


def chosen(tuning: pd.DataFrame) -> str:
    """The model that the validation people ranked first."""
    first = tuning[(tuning.method == "ranking") & (tuning.chosen == 1)].candidate
    if len(first) != 1:
        raise UserError("tables/tuning.csv: ranks no model first; run `dvc repro rank`.")
    return str(first.iloc[0])


def none_if_nan(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def measured(results: pd.DataFrame, name: str) -> list[dict[str, Any]]:
    """A model's numbers on its card: means over the folds and `seeds` that were run; the weights are of the first."""
    rows = results[(results.model == name) & (results.pairing == "lr_lr") & results.resolution.isin(HEADLINE)]
    out = []
    for protocol, metric in MEASURED:
        cells = rows[(rows.protocol == protocol) & (rows.metric == metric)]
        for row in sorted(cells.itertuples(), key=lambda r: pixels(r.resolution)):
            numbers = {key: none_if_nan(getattr(row, key)) for key in ("value", "low", "high")}
            out.append(
                dict(protocol=protocol, metric=metric, resolution=row.resolution, seeds=int(row.seeds), **numbers)
            )
    if not out:
        raise UserError(f"tables/results.csv: holds no row of '{name}'; run `dvc repro` first.")
    return out


def card(study: Study, name: str, weights: Path, lock: dict[str, tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    """Everything that a reader of the weights must know."""
    model, folder, tables = study.models[name], weights.parent, study.reports / "tables"
    number, seed = folds_of(study, name)[0], study.train.seeds[0]
    md5, parameters = confirmed(folder, lock)
    tuning = read_table(tables / "tuning.csv")
    ranks = tuning[tuning.method == "ranking"].reset_index(drop=True)
    if not (ranks.candidate == name).any():
        raise UserError(f"tables/tuning.csv: does not rank '{name}'; run `dvc repro` first.")
    place = int(ranks.index[ranks.candidate == name][0])
    error = {"metric": str(ranks.metric[place]), "value": float(ranks.value[place])}
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
        "run": {
            "output": folder.as_posix(),
            "md5": md5,
            "file": weights.name,
            "parameters_sha256": canonical(parameters),
        },
        "measured": measured(read_table(tables / "results.csv"), name),
        "validation": {**error, "rank": place + 1, "of": len(ranks)},
        **validation_thresholds(study, name, number, seed),
        "trained_on": FACES.get(study.faces.source, BROUGHT),
        "teacher": TEACHERS.get(study.teacher.name, study.teacher.name) if model.teacher != "none" else "none",
        "terms": "For research and teaching only, under the terms of the photographs above.",
        "intended_use": USE,
        "out_of_scope": NO_USE,
    }


def weights_of(study: Study, name: str) -> Path:
    """Where the student of one model lies: its first training. Raises UserError if there is no such model, or no student."""
    if name not in study.models:
        raise UserError(f"params.yaml: there is no model '{name}' in models; known are {', '.join(study.models)}.")
    weights = (
        study.reports / "students" / name / f"fold{folds_of(study, name)[0]}-seed{study.train.seeds[0]}.safetensors"
    )
    if not weights.is_file():
        raise UserError(f"{weights.as_posix()}: not there; run `dvc repro` first.")
    return weights


def write_card(path: Path, content: dict[str, Any]) -> None:
    with atomic_file(path) as temporary:
        temporary.write_text(
            json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n", "utf-8", newline="\n"
        )


def run(study: Study, name: str) -> list[Path]:
    """The verb `release`: copy the chosen students of the study `name`, and write their cards.

    Everything is checked before anything is written; earlier releases of the same study are replaced. Returns the weights' paths.

    Raises
    ------
    UserError
        if params.yaml holds another study, its teacher's terms forbid it, results are missing, or dvc.lock knows other ones.
    """
    if study.study != name:
        raise UserError(f"params.yaml: holds the study '{study.study}'; run `lrfr study {name}` first.")
    for what, used, known in (("teacher", study.teacher.name, TEACHERS), ("faces", study.faces.source, FACES)):
        if used not in known:
            raise UserError(f"params.yaml: students of the {what} '{used}' are not released; see docs/model-card.md.")
    lock = confirmed_lock(study)
    models = dict.fromkeys([chosen(read_table(study.reports / "tables" / "tuning.csv")), REFERENCE])
    sources = {model: weights_of(study, model) for model in models}
    cards = {model: card(study, model, source, lock) for model, source in sources.items()}
    released = []
    for model, source in sources.items():
        path = WEIGHTS / f"{name}-{model}.safetensors"
        with atomic_file(path) as temporary:
            shutil.copyfile(source, temporary)
        write_card(path.with_suffix(".json"), cards[model])
        released.append(path)
    kept = {file for path in released for file in (path, path.with_suffix(".json"))}
    for old in set(WEIGHTS.glob(f"{name}-*")) - kept:
        old.unlink()
    print(f"Released: {', '.join(path.as_posix() for path in released)}.")
    return released


def check_release(path: str | Path, root: str | Path = ".") -> dict[str, Any]:
    """Recompute the hashes of released weights and return their card.

    path: the weights or the card. root: a clone; what its dvc.lock and reports say is compared too, as far as they are there.

    Raises
    ------
    UserError
        if weights or card are missing or damaged, or belong to another training than the card, dvc.lock or the study says.
    """
    weights, root = Path(path).with_suffix(".safetensors"), Path(root)
    try:
        data = weights.read_bytes()
        found = json.loads(weights.with_suffix(".json").read_text(encoding="utf-8"))
        digest, run = found["sha256"], found["run"]
        output, md5, file, parameters = (run[key] for key in ("output", "md5", "file", "parameters_sha256"))
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(
            f"{weights.name}: weights or card missing or damaged; run `git restore {WEIGHTS.as_posix()}`."
        ) from None
    if sha256(data) != digest:
        raise UserError(f"{weights.name}: not the weights of its card; run `git restore {WEIGHTS.as_posix()}`.")
    if (root / LOCK).is_file():
        known = locked(root).get(output)
        if known is None or (known[0], canonical(known[1])) != (md5, parameters):
            raise UserError(
                f"{weights.name}: {LOCK} knows another training of it; run `lrfr release` for its study again."
            )
        student = root / output / file
        if student.is_file() and sha256(student.read_bytes()) != digest:
            raise UserError(f"{weights.name}: not the student in {output}; run `dvc repro` or `git restore {output}`.")
    return found
