"""Embeddings for which the similarities are known."""

from __future__ import annotations

import numpy as np


def from_similarities(similarity, scale: float = 0.5):
    """Unit probes (p, D), gallery (g, D) whose cosines are scale * similarity (p, g); a NaN row is a failed probe."""
    similarity = scale * np.asarray(similarity, dtype=np.float64)
    probes, gallery = similarity.shape
    rest = np.sqrt(1 - np.sum(similarity**2, axis=1))
    embeddings = np.hstack([similarity, np.diag(rest)])
    embeddings[np.isnan(rest)] = np.nan
    return embeddings, np.eye(gallery, gallery + probes)


def cosine(a, b) -> float:
    """Plain Python; to six digits, so that what is equal by construction is equal."""
    dot = sum(float(x) * float(y) for x, y in zip(a, b, strict=True))
    lengths = [sum(float(x) ** 2 for x in v) ** 0.5 for v in (a, b)]
    return round(dot / (lengths[0] * lengths[1]), 6)


def failed(x) -> bool:
    return bool(np.isnan(x).any())


def lattice(rng, size: int, dimensions: int = 3):
    """Many parallel and equal vectors, none of them zero: float32 (size, dimensions)."""
    x = rng.integers(-2, 3, (size, dimensions)).astype(np.float32)
    x[~x.any(axis=1)] = 1
    return x


def people(rng, labels, noise: float, dimensions: int = 8, centres: int = 100):
    """float32 (n, D): one direction per label, the same in every call, and noise."""
    directions = np.random.default_rng(123).normal(size=(centres, dimensions))
    return (directions[labels] + noise * rng.normal(size=(len(labels), dimensions))).astype(np.float32)
