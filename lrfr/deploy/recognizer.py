"""A student as a product would call it: aligned faces in, unit vectors, similarities and decisions out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load

from lrfr.config import Student
from lrfr.deploy import onnx_graph
from lrfr.deploy.cards import FAR, Model, find_model, operating_point
from lrfr.deploy.find_faces import view
from lrfr.errors import UserError
from lrfr.gate.state import insert_state
from lrfr.models.student import StudentNet, build_student, normalise

BATCH = 64  # faces a forward pass; no influence on the numbers beyond float sums

Forward = Callable[[np.ndarray], np.ndarray]  # views uint8 (B, S, S, 3) -> embeddings float32 (B, D)


class Recognizer:
    """Compares aligned faces. A face is uint8 (H, W, 3), RGB, of any size; what it shows is a chip of
    `lrfr.data.align`.

    card: the model's card. size: side of its input in pixels.
    """

    def __init__(self, model: Model) -> None:
        self.card: dict[str, Any] = model.card
        self.size: int = model.card["input"]["size"]
        self._forward = (onnx_forward if model.path.suffix == ".onnx" else torch_forward)(model)

    @classmethod
    def load(cls, path: str | Path | None = None) -> Recognizer:
        """A `.safetensors` or `.onnx` student, its card beside it; without a path the released one that ranked first.

        Raises UserError if there is none, or model or card is damaged, or they do not belong together.
        """
        return cls(find_model(path))

    def embed(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Unit vectors float32 (N, D) of N aligned faces, each brought to the student's input as the study's views
        were.

        Raises UserError if an image is not uint8 (H, W, 3), or an embedding is zero or not finite.
        """
        parts = [np.empty((0, self.card["network"]["embedding"]), np.float32)]
        for start in range(0, len(images), BATCH):
            views = np.stack([view(image, self.size) for image in images[start : start + BATCH]])
            x = self._forward(views).astype(np.float64)
            length = np.linalg.norm(x, axis=1, keepdims=True)
            if not (np.isfinite(x).all() and (length > 0).all()):
                raise UserError(f"{self.card['name']}: an embedding is zero or not finite; fetch the model again.")
            parts.append((x / length).astype(np.float32))
        return np.concatenate(parts)

    def similarity(self, a: np.ndarray, b: np.ndarray) -> float:
        """Cosine in -1 ... 1 of two aligned faces, uint8 (H, W, 3)."""
        x = self.embed([a, b])
        return float(cosines(x[:1], x[1:])[0, 0])

    def threshold(self, far: float, pixels_a: int, pixels_b: int) -> float:
        """The cosine from which on two faces count as one person's, at a false accept rate.

        pixels_a, pixels_b: sides of the aligned faces in their photographs; the smaller face decides
        (`cards.resolution_for`). Raises UserError if the card has no threshold for this FAR.
        """
        return float(operating_point(self.card, far, min(pixels_a, pixels_b))["similarity"])

    def same_person(self, a: np.ndarray, b: np.ndarray, far: float = FAR) -> bool:
        """Are two aligned faces, uint8 (H, W, 3), of one person? It says so wrongly of `far` of the pairs of two
        people.

        The rate is that of the card's validation people. Raises UserError if the card has no threshold for this FAR.
        """
        sides = (min(np.shape(face)[:2], default=0) for face in (a, b))
        return self.similarity(a, b) >= self.threshold(far, *sides)


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Of unit vectors (N, D) and (M, D): float64 (N, M) in -1 ... 1."""
    return np.clip(a.astype(np.float64) @ b.astype(np.float64).T, -1, 1)


def torch_forward(model: Model) -> Forward:
    """Of a released student."""
    net = released_student(model)

    @torch.inference_mode()
    def forward(views: np.ndarray) -> np.ndarray:
        return net(normalise(torch.from_numpy(views))).embedding.numpy()

    return forward


def released_student(model: Model) -> StudentNet:
    """The network of a released student: float32 with the published float16 values, as in the study's evaluation.

    Raises UserError if the file is damaged, or card and weights do not belong together.
    """
    try:
        state = load(model.data)
    except SafetensorError as error:
        raise UserError(f"{model.path}: not a safetensors file, or damaged ({error}); fetch it again.") from None
    network = dict(model.card["network"])
    kind = network.pop("kind")
    try:
        spec = Student(**network)
    except ValueError:
        raise UserError(f"{model.path}: its card describes no network of this version; fetch both again.") from None
    net = build_student(spec, kind, model.card["input"]["size"], 0)
    insert_state(net, {name: t.float() if t.dtype == torch.float16 else t for name, t in state.items()}, model.path)
    return net.eval()


def onnx_forward(model: Model) -> Forward:
    """Of an exported student, which holds its normalisation. UserError if the extra `export` is not installed."""
    runtime = onnx_graph.extra("onnxruntime")
    try:
        session = runtime.InferenceSession(model.data, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime has its own exceptions for every kind of damage
        raise UserError(f"{model.path}: onnxruntime cannot run it ({type(error).__name__}); export it again.") from None

    def forward(views: np.ndarray) -> np.ndarray:
        try:
            found = onnx_graph.embed(session, views)
        except Exception as error:
            raise UserError(f"{model.path}: no student's graph ({type(error).__name__}); export it again.") from None
        if found.shape != (len(views), model.card["network"]["embedding"]):
            raise UserError(f"{model.path}: gives other embeddings than its card says; export it again.")
        return found

    return forward
