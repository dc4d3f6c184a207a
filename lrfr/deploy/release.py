"""Release a study's students: weights and a card each, in lrfr/weights, only if they are those that dvc.lock knows.

Two are released, so that the repository stays small: the model that the validation people ranked first, and `scratch`,
which learned without a teacher; of each the first fold and seed. No test face was read before the choice.
"""

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
WORDS = yaml.safe_load((Path(__file__).parent / "card.yaml").read_text(encoding="utf-8"))
BUFFERS = ("running_mean", "running_var", "num_batches_tracked")  # of batch norm: stored, but no parameters
# Impostor errors that a rate must allow, or no threshold is given for it: our choice. Ten independent errors fix a rate
# to about a factor of two (95 % interval of a Poisson count of ten: 4.8 to 18.4); pairs that share people do less well.
LEAST = 10


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", help="the study in params.yaml")


def run(arguments: argparse.Namespace) -> int:
    print(f"Released: {', '.join(path.as_posix() for path in release(config.load(), arguments.name))}.")
    return 0


def release(study: Study, name: str) -> list[Path]:
    """Copy the chosen students of the study `name`, and write their cards. Returns the weights' paths.

    Everything is checked before anything is written; earlier releases of the same study are replaced. Raises UserError
    if params.yaml holds another study, its terms forbid a release, results are missing, or dvc.lock knows other ones.
    """
    if study.study != name:
        raise UserError(f"params.yaml: holds the study '{study.study}'; run `lrfr study {name}` first.")
    for what, used in (("teacher", study.teacher.name), ("faces", study.faces.source)):
        if used not in WORDS["faces" if what == "faces" else "teachers"]:
            raise UserError(f"params.yaml: students of the {what} '{used}' are not released; see docs/model-card.md.")
    cards = {model: card(study, model) for model in dict.fromkeys([headline_model(study), "scratch"])}
    paths = {model: WEIGHTS / f"{name}-{model}.safetensors" for model in cards}
    for model, path in paths.items():
        with atomic_file(path) as temporary:
            shutil.copyfile(Path(cards[model]["run"]["output"], cards[model]["run"]["file"]), temporary)
        write_card(path.with_suffix(".json"), cards[model])
    for old in WEIGHTS.glob(f"{name}-*"):
        if old.with_suffix(".safetensors") not in paths.values():
            old.unlink()
    return list(paths.values())


def dvc_md5(path: Path) -> str:
    """The hash by which dvc.lock knows a file or a folder (DVC 3)."""
    if not path.is_dir():
        return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    files = ((file.relative_to(path).as_posix(), dvc_md5(file)) for file in path.rglob("*") if file.is_file())
    text = json.dumps([{"md5": md5, "relpath": name} for name, md5 in sorted(files)]).encode()
    return hashlib.md5(text, usedforsecurity=False).hexdigest() + ".dir"


def confirm(*paths: Path) -> list[str]:
    """dvc.lock's hashes of these outputs; UserError unless all are the ones that it knows."""
    try:
        stages = yaml.load(LOCK.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))["stages"]
        known = {out["path"]: out["md5"] for stage in stages.values() for out in stage.get("outs", [])}
    except (OSError, yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError, AttributeError):
        raise UserError(f"{LOCK}: missing or damaged; run this in a clone, or `git restore {LOCK}`.") from None
    for path in paths:
        if known.get(path.as_posix()) != dvc_md5(path):
            raise UserError(f"{path.as_posix()}: differs from {LOCK}; run `dvc repro`, or `git restore` for it.")
    return [known[path.as_posix()] for path in paths]


def headline_model(study: Study) -> str:
    """The model that `rank` chose, of those that a frozen teacher taught; without such a model the first."""
    ranks = ranking(study)
    return str([*ranks.candidate[ranks.chosen == 1], ranks.candidate[0]][0])


def ranking(study: Study) -> pd.DataFrame:
    """The rows of tuning.csv about all models (`candidate`), the best on the validation people first.

    Not about adapted ones: weights that began as somebody else's are not given away.
    """
    tuning = read_table(study.reports / "tables" / "tuning.csv")
    own = [name for name, model in study.models.items() if model.student != "adapted"]
    return tuning[(tuning.method == "ranking") & tuning.candidate.isin(own)].reset_index(drop=True)


def card(study: Study, name: str) -> dict[str, Any]:
    """What a reader of the weights must know. UserError unless they and their results are those of dvc.lock."""
    if name not in study.models:
        raise UserError(f"params.yaml: there is no model '{name}' in models; known are {', '.join(study.models)}.")
    model, number, seed = study.models[name], folds_of(study, name)[0], study.train.seeds[0]
    folder, tables = study.reports / "students" / name, study.reports / "tables"
    md5, *_ = confirm(folder, tables / "results.csv", tables / "tuning.csv", study.runs / "embeddings")
    ranks, weights = ranking(study), folder / f"fold{number}-seed{seed}.safetensors"
    row, state = ranks[ranks.candidate == name], read_state(weights)
    if row.empty:
        raise UserError(f"tables/tuning.csv: does not rank '{name}'; run `dvc repro` first.")
    results = read_table(tables / "results.csv")  # means over the folds and `seeds` that were run
    results = results[(results.model == name) & (results.pairing == "lr_lr") & results.resolution.isin(HEADLINE)]
    results = results.sort_values("resolution", key=lambda names: names.map(pixels))
    pairs = ((DENSE, "eer"), (OFFICIAL, "accuracy"))
    table = pd.concat([results[(results.protocol == where) & (results.metric == metric)] for where, metric in pairs])
    table = table[["protocol", "metric", "resolution", "seeds", "value", "low", "high"]].astype({"seeds": int})
    rank, teacher = int(row.index[0]) + 1, "none" if model.teacher == "none" else study.teacher.name
    return {
        "name": f"{study.study}-{name}",
        "method": model.method,
        **{"study": study.study, "fold": number, "seed": seed},
        "network": {"kind": model.student, **study.student.model_dump(mode="json", exclude={"pretrained", "start"})},
        "input": {"size": study.views.size, "channels": 3, "normalisation": WORDS["normalisation"]},
        "embedding": study.student.embedding,
        "parameters": sum(tensor.numel() for key, tensor in state.items() if not key.endswith(BUFFERS)),
        "stored_as": "float16",
        "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "run": {"output": folder.as_posix(), "md5": md5, "file": weights.name},
        "measured": table.astype(object).where(table.notna(), None).to_dict("records"),
        "validation": {"metric": row.metric.item(), "value": row.value.item(), "rank": rank, "of": len(ranks)},
        **validation_thresholds(study, name, number, seed),
        "trained_on": WORDS["faces"].get(study.faces.source, WORDS["brought"]),
        "teacher": WORDS["teachers"].get(teacher, teacher),
        **WORDS["ending"],
    }


def threshold_at_far(scores: NDArray, same: NDArray[np.bool_], far: float) -> tuple[float, float]:
    """The smallest threshold whose empirical FAR <= far, and the TAR there: the operating point of `tar_at_far`.

    scores: float (n,); same: bool (n,). It is a score of the list, or infinite if even the highest is an error too
    many. Raises ValueError like `operating_points`.
    """
    points = operating_points(scores, same)
    last = np.flatnonzero(points.false_match <= far * (1 + ROUNDING))[-1]
    return float(points.threshold[last]), float(1 - points.false_non_match[last])


def validation_thresholds(study: Study, model: str, number: int, seed: int) -> dict[str, Any]:
    """At which cosine two faces should pass for one person, for every resolution (of both) and FAR of the study.

    number, seed: of the training. Returns two entries of a card: `thresholds`, rows with the cosine from which two
    faces are accepted (1 - d^2 / 2 for the study's L2 distance d), the validation people's TAR there and their numbers
    of pairs, none for a FAR that allows fewer than LEAST errors; and `thresholds_from`, their origin. Raises UserError
    if the embeddings are not those of the study's held-out faces.
    """
    rows = held_out_rows(*read_faces(study), number, study.faces.validation_images)
    people = rows.people[rows.validation]
    first, second = np.triu_indices(len(people), 1)
    same = people[first] == people[second]
    pairs = {"genuine": int(same.sum()), "impostor": int((~same).sum())}
    file, found = study.runs / "embeddings" / f"{model}.npz", []
    rates = [far for far in study.evaluate.far if far * pairs["impostor"] * (1 + ROUNDING) >= LEAST]
    with np.load(file) as archive:
        for resolution in study.resolutions:
            key = f"fold{number}/seed{seed}/{resolution}"
            x = unit(read_embedding(archive, file, key, len(rows.images)))[rows.validation]
            scores = np.einsum("id,jd->ij", x, x, optimize=False)[first, second]  # no BLAS: its sums depend on threads
            for far in rates:
                similarity, tar = threshold_at_far(scores, same, far)
                if np.isfinite(similarity):  # not of a network that cannot tell any faces apart
                    found.append({"resolution": resolution, "far": far, "similarity": similarity, "tar": tar, **pairs})
    origin = WORDS["origin"].format(len(np.unique(people)), number, study.study, len(people))
    return {"thresholds": found, "thresholds_from": origin}


def write_card(path: Path, content: dict[str, Any]) -> None:
    with atomic_file(path) as temporary:
        text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
        temporary.write_text(f"{text}\n", "utf-8", newline="\n")
