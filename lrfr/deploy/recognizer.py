"""A student as a product would call it: aligned faces in, unit vectors, similarities and decisions out.

Which student answers, and on what terms, says its card, which is checked before the model is read.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import namedtuple
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, Field, FiniteFloat
from safetensors.torch import load

from lrfr.config import Student
from lrfr.deploy import onnx_graph
from lrfr.deploy.find_faces import view
from lrfr.errors import UserError
from lrfr.gate.images import Damaged, refusing
from lrfr.gate.state import insert_state
from lrfr.models.student import StudentNet, build_student, normalise

WEIGHTS = Path(__file__).parents[1] / "weights"  # of the package, wherever it is installed
STUDIES = ("lfw", "orl")  # whose released students are the default: the first that has any
FAR = 0.01  # of a decision, if nothing else is said: the first of the studies' own
LARGEST_CARD = 1 << 20  # bytes; our choice: a card has a few kilobytes
BATCH = 64  # faces a forward pass; no influence on the numbers beyond float sums
Channels = Annotated[list[Annotated[int, Field(ge=1, le=2048)]], Field(min_length=4, max_length=4)]


class Network(BaseModel):
    kind: Literal["plain", "se"]
    channels: Channels
    se_channels: Channels
    embedding: Annotated[int, Field(ge=1, le=4096)]


class Threshold(BaseModel):
    resolution: Annotated[str, Field(pattern="^(hr|[1-9][0-9]{0,2})$")]
    far: Annotated[float, Field(gt=0, lt=1)]
    similarity: FiniteFloat


class Card(BaseModel):
    """What the recogniser reads of a card. The limits are our choices: a card may not ask for gigabytes of memory."""

    name: str
    network: Network
    input: dict[str, Any]
    thresholds: list[Threshold] = []
    thresholds_from: str = ""
    validation: dict[str, str | float] = {}
    files: list[dict[str, str | int]] = []


Model = namedtuple("Model", "path data card")  # a file, its bytes, already compared with the card, and the card


def read_card(path: Path) -> dict[str, Any]:
    """A card; UserError if it is missing or is none."""
    with refusing(path, "the card of a student", "a model needs its card beside it, so fetch both again"):
        with path.open("rb") as file:
            data = file.read(LARGEST_CARD)
        size = Card.model_validate_json(data, strict=True).input["size"]
        if type(size) is not int or size not in range(8, 513, 8):
            raise Damaged("size of the input")
        return json.loads(data)


def find_model(path: str | Path | None = None) -> Model:
    """A model with its card: a `.safetensors` or `.onnx` file, or its card; without a path the released student that
    the validation people of its study ranked first.

    A released student's card has its sha256. An exported one's lists its `files`, and `a-int8.onnx` may share that of
    `a.onnx`. Raises UserError if model or card is missing or damaged, or the model is not the one of its card.
    """
    if path is None:
        cards = {file: read_card(file) for file in sorted(WEIGHTS.glob("*.json"))}
        released = [file for file, card in cards.items() if card.get("study") in STUDIES]
        if not released:
            raise UserError("no student is released yet; make one with `lrfr release STUDY`, or give one with --model.")
        rank = {file: cards[file].get("validation", {}).get("rank") for file in released}
        path = min(released, key=lambda file: (STUDIES.index(cards[file]["study"]), rank[file] != 1))
    path = Path(path)
    path = path.with_suffix(".safetensors") if path.suffix == ".json" else path
    if path.suffix not in (".safetensors", ".onnx"):
        raise UserError(f"{path}: not a .safetensors or .onnx file; give a released or an exported student.")
    with refusing(path, "a student", "give a released or an exported one"):
        data = path.read_bytes()
    beside = path.with_suffix(".json")
    if path.suffix == ".onnx" and not beside.is_file():
        beside = path.with_name(path.stem.rpartition("-")[0] + ".json")
    card = read_card(beside)
    known = {row.get("file"): row.get("sha256") for row in card.get("files", [])}
    digest = known.get(path.name) if path.suffix == ".onnx" else card.get("sha256")
    if digest is None:
        raise UserError(f"{beside}: says nothing about {path.name}; fetch model and card again.")
    if hashlib.sha256(data).hexdigest() != digest:
        raise UserError(f"{path}: not the model of its card (its sha256 differs); fetch model and card again.")
    return Model(path, data, card)


class Recognizer:
    """Compares aligned faces, uint8 (H, W, 3), RGB, of any size; what each shows is a chip of `lrfr.data.align`."""

    def __init__(self, model: Model) -> None:
        self.card: dict[str, Any] = model.card
        self.size: int = model.card["input"]["size"]  # side of the input in pixels
        self._path = model.path
        if model.path.suffix == ".onnx":
            runtime = onnx_graph.extra("onnxruntime")
            with refusing(model.path, "a student's graph", "export it again"):
                session = runtime.InferenceSession(model.data, providers=["CPUExecutionProvider"])
            self._forward = partial(onnx_graph.embed, session)  # views uint8 (B, S, S, 3) -> float32 (B, D)
        else:
            net = released_student(model)
            forward = lambda views: net(normalise(torch.from_numpy(views))).embedding.numpy()  # noqa: E731
            self._forward = torch.inference_mode()(forward)

    @classmethod
    def load(cls, path: str | Path | None = None) -> Recognizer:
        """A student like `find_model`: without a path the released one that ranked first."""
        return cls(find_model(path))

    def embed(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Unit vectors float32 (N, D) of N aligned faces, brought to the student's input as the study's views were;
        UserError if an image is not uint8 (H, W, 3), or an embedding is zero or not finite."""
        parts = [np.empty((0, self.card["network"]["embedding"]), np.float32)]
        for start in range(0, len(images), BATCH):
            views = np.stack([view(image, self.size) for image in images[start : start + BATCH]])
            with refusing(self._path, "a student's graph", "fetch or export it again"):
                x = self._forward(views).astype(np.float64)
                length = np.linalg.norm(x, axis=1, keepdims=True)
                if x.shape != (len(views), parts[0].shape[1]):
                    raise Damaged("gives other embeddings than its card says")
                if not (np.isfinite(x).all() and (length > 0).all()):
                    raise Damaged("an embedding is zero or not finite")
            parts.append((x / length).astype(np.float32))
        return np.concatenate(parts)

    def similarity(self, a: np.ndarray, b: np.ndarray) -> float:
        """Cosine in -1 ... 1 of two aligned faces, uint8 (H, W, 3)."""
        return float(cosines(*np.split(self.embed([a, b]), 2))[0, 0])

    def decide(self, similarity: float, far: float, pixels: int) -> dict[str, Any]:
        """same_person, similarity, and the threshold and resolution of the card that decide at a FAR.

        pixels: side of the smaller face in its photograph. The resolution is the largest on the card that is not above,
        or the smallest of all. `hr` from twice the input's size on: the study's `hr` views are chips reduced from far
        more pixels (about 118 in LFW), each a mean of many; a face of 40 pixels, brought to 32, is no sharper than the
        view at 32. Raises UserError if the card has no thresholds, or none for this FAR; the message names those known.
        """
        name, rows = self.card["name"], self.card.get("thresholds", [])
        if not rows:
            raise UserError(f"{name}: its card has no thresholds, so it cannot decide; release it again.")
        at = {row["resolution"]: row["similarity"] for row in rows if math.isclose(row["far"], far, rel_tol=1e-9)}
        if not at:
            known = ", ".join(f"{value:g}" for value in sorted({row["far"] for row in rows}))
            raise UserError(f"far {far:g}: there is no threshold for it on the card of {name}; known are {known}.")
        numbers = sorted(int(resolution) for resolution in {*at} - {"hr"})
        high = "hr" in at and (pixels >= 2 * self.size or not numbers)
        chosen = "hr" if high else str(max((n for n in numbers if n <= pixels), default=numbers[0]))
        same = bool(similarity >= at[chosen])
        return {"same_person": same, "similarity": float(similarity), "threshold": at[chosen], "resolution": chosen}

    def threshold(self, far: float, pixels_a: int, pixels_b: int) -> float:
        """The cosine from which on two faces of these sides count as one person's, at a FAR: see `decide`."""
        return float(self.decide(0, far, min(pixels_a, pixels_b))["threshold"])

    def same_person(self, a: np.ndarray, b: np.ndarray, far: float = FAR) -> bool:
        """Are two aligned faces, uint8 (H, W, 3), of one person? It says so wrongly of `far` of two people's pairs, by
        the card's validation people. UserError if the card has no threshold for this FAR."""
        pixels = min(min(np.shape(face)[:2], default=0) for face in (a, b))
        return self.decide(self.similarity(a, b), far, pixels)["same_person"]


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Of unit vectors (N, D) and (M, D): float64 (N, M) in -1 ... 1."""
    return np.clip(a.astype(np.float64) @ b.astype(np.float64).T, -1, 1)


def released_student(model: Model) -> StudentNet:
    """The network of a released student: float32 with the published float16 values, as in the study's evaluation;
    UserError if the file is damaged, or card and weights do not belong together."""
    with refusing(model.path, "the student of its card, in this version", "fetch model and card again"):
        state, network = load(model.data), dict(model.card["network"])
        kind = network.pop("kind")
        net = build_student(Student(**network), kind, model.card["input"]["size"], 0)
    insert_state(net, {name: t.float() if t.dtype == torch.float16 else t for name, t in state.items()}, model.path)
    return net.eval()
