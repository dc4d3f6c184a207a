"""Plots of faces and of what networks make of them: pure functions, arrays in, matplotlib Figure out."""

from __future__ import annotations

from textwrap import fill

import numpy as np
from matplotlib import pyplot
from matplotlib.figure import Figure

from lrfr.report.figures import PALETTE

CELL = 1.15  # inches a face
LETTERS = 16  # that fit above one
MARKERS = "o^sDvP*X"
INK = "#444444"  # of a legend


def _grid(lines: int, titles: list[str]):
    fig, axes = pyplot.subplots(lines, len(titles), figsize=(CELL * len(titles), CELL * lines + 0.3), squeeze=False)
    for ax, title in zip(axes[0], titles, strict=True):
        ax.set_title(fill(title, LETTERS), fontsize=9)
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])
        ax.grid(False)
        ax.spines[:].set_visible(False)
    return fig, axes


def mosaic(columns: dict[str, np.ndarray]) -> Figure:
    """Faces in rows, one column a title; pixels are drawn as the squares they are.

    columns: title -> uint8 (n, S, S, 3); S may differ between columns.
    """
    lines = len(next(iter(columns.values())))
    fig, axes = _grid(lines, list(columns))
    for column, faces in zip(axes.T, columns.values(), strict=True):
        for ax, face in zip(column, faces, strict=True):
            ax.imshow(face, interpolation="nearest")
    return fig


def attention(chips: np.ndarray, maps: dict[str, np.ndarray]) -> Figure:
    """Each face, and beside it its attention maps laid over it.

    chips: uint8 (n, S, S, 3). maps: title -> float (n, h, w), at least 0; each map is scaled to its own maximum.
    """
    fig, axes = _grid(len(chips), ["face", *maps])
    for i, chip in enumerate(chips):
        extent = (-0.5, chip.shape[1] - 0.5, chip.shape[0] - 0.5, -0.5)
        axes[i, 0].imshow(chip)
        for ax, stack in zip(axes[i, 1:], maps.values(), strict=True):
            ax.imshow(chip.mean(axis=2), cmap="gray", vmin=0, vmax=255)
            top = max(float(stack[i].max()), np.finfo(np.float32).tiny)
            how = {"extent": extent, "interpolation": "bilinear"}
            ax.imshow(stack[i] / top, cmap="inferno", alpha=0.6, vmin=0, vmax=1, **how)
    return fig


def principal_plane(embeddings: np.ndarray) -> np.ndarray:
    """The two leading principal components of float (n, D), as (n, 2); each axis's largest loading is positive."""
    centred = embeddings.astype(np.float64) - embeddings.mean(axis=0, dtype=np.float64)
    axes = np.linalg.svd(centred, full_matrices=False)[2][:2]
    axes *= np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(axis=1)])[:, None]
    return centred @ axes.T


def embedding_map(embeddings: np.ndarray, people: np.ndarray, marks: list[str] | None = None) -> Figure:
    """Embeddings on the plane of their two principal components: a colour a person, a marker a kind of input.

    embeddings: float (n, D). people: int (n,). marks: n names such as "HR" and "8 px", or None.
    """
    points, people = principal_plane(embeddings), np.asarray(people)
    kinds = np.asarray(marks if marks is not None else [""] * len(points))
    fig, ax = pyplot.subplots(figsize=(6.4, 5.2))
    for i, kind in enumerate(dict.fromkeys(kinds.tolist())):
        marker = MARKERS[i % len(MARKERS)]
        for j, person in enumerate(np.unique(people)):
            x, y = points[(kinds == kind) & (people == person)].T
            face = PALETTE[j % len(PALETTE)]
            ax.scatter(x, y, s=30, color=face if i == 0 else "none", edgecolors=face, marker=marker)
        ax.scatter([], [], s=30, color=INK if i == 0 else "none", edgecolors=INK, marker=marker, label=kind)
    if marks is not None:
        ax.legend(fontsize=8)
    ax.set(xlabel="first principal component", ylabel="second principal component")
    ax.set_aspect("equal", adjustable="datalim")
    return fig
