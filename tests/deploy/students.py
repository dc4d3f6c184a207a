"""A small, hardly trained student with a card like a released one's, and ORL faces without a detector."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save

from lrfr.config import Student
from lrfr.data.align import chip
from lrfr.data.degrade import hr_view
from lrfr.deploy.recognizer import find_model
from lrfr.errors import UserError
from lrfr.models.student import StudentNet, build_student, normalise
from lrfr.sources import orl

NETWORK = {"channels": [8, 8, 12, 16], "se_channels": [8, 8, 11, 15], "se_reduction": 4, "embedding": 32}
SIZE = 32
FROM = "validation people of the study orl, fold 0: 6 people"


def rows(similarity: dict[str, float], far: float = 0.01) -> list[dict]:
    """The `thresholds` of a card."""
    return [
        {"resolution": r, "far": far, "similarity": value, "impostor_pairs": 100, "genuine_pairs": 10}
        for r, value in similarity.items()
    ]


THRESHOLDS = rows({"8": 0.5, "16": 0.4, "32": 0.3, "hr": 0.2}) + rows(
    {"8": 0.9, "16": 0.8, "32": 0.7, "hr": 0.6}, 0.001
)


@cache
def make_net(kind: str = "plain", seed: int = 0) -> StudentNet:
    """With the values of the float16 file, in float32; its batch norms have seen faces, so that embeddings spread."""
    net, faces = (
        build_student(Student(**NETWORK), kind, SIZE, seed).train(),
        torch.from_numpy(orl_chips(range(31, 41), 1)),
    )
    with torch.no_grad():
        for _ in range(30):  # running statistics move by a tenth at a time
            net(normalise(hr_view(faces, SIZE)))
    return net.half().float().eval()


def write_student(folder: Path, name: str = "orl-kd", kind: str = "plain", seed: int = 0, **card: object) -> Path:
    """`name`.safetensors and its card, as `lrfr release` writes them; keywords change the card."""
    state = make_net(kind, seed).state_dict()
    data = save({key: (t.half() if t.is_floating_point() else t).contiguous() for key, t in state.items()})
    whole = {
        "name": name,
        "study": name.split("-")[0],
        "network": {"kind": kind, **NETWORK},
        "input": {"size": SIZE, "channels": 3},
        "embedding": NETWORK["embedding"],
        "sha256": hashlib.sha256(data).hexdigest(),
        "validation": {"metric": "validation_eer@16", "value": 0.1, "rank": 1, "of": 2},
        "thresholds": THRESHOLDS,
        "thresholds_from": FROM,
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.safetensors"
    path.write_bytes(data)
    path.with_suffix(".json").write_text(json.dumps(whole | card), encoding="utf-8")
    return path


def orl_photograph(person: int, photograph: int) -> Image.Image:
    """RGB, 92 x 112."""
    return Image.open(BytesIO(orl.Photographs().read(f"s{person}/{photograph}.pgm"))).convert("RGB")


def orl_chips(people: range, each: int) -> np.ndarray:
    """uint8 (people * each, 150, 150, 3), cut by the study's fixed crop; person by person."""
    return np.stack([chip(orl_photograph(p, k), None, orl.FALLBACK) for p in people for k in range(1, each + 1)])


def check_release(path: str | Path, root: str | Path = ".") -> dict[str, Any]:
    """The card of released weights (path: of either), if their sha256 is the card's, else UserError.

    root: a clone; the student in its reports, if it is there, must have the same sha256.
    """
    found = find_model(path).card
    run = found.get("run", {})
    student = Path(root, run.get("output", ""), run.get("file", ""))
    if student.is_file() and hashlib.sha256(student.read_bytes()).hexdigest() != found["sha256"]:
        raise UserError(f"{found['name']}: not the student {student.as_posix()}; run `dvc repro` or `git restore` it.")
    return found
