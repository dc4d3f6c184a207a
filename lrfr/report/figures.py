"""The house style and the plots that notebooks share: pure functions, data in, matplotlib Figure out.

Colours stay apart for every common kind of colour blindness (Okabe and Ito, 2008); markers and lines survive a printer.
"""

from collections import namedtuple
from pathlib import Path
from textwrap import fill

import matplotlib
import numpy as np
import pandas as pd
import seaborn
import yaml
from matplotlib import pyplot
from matplotlib.figure import Figure

from lrfr.formats import FIVE as FIVE  # notebooks take it from here
from lrfr.formats import pixels

Look = namedtuple("Look", "label colour marker line")  # line: a matplotlib style, or (offset, [lengths on and off])
LOOKS = yaml.safe_load((Path(__file__).parent / "templates" / "looks.yaml").read_text(encoding="utf-8"))
PALETTE = BLUE, ORANGE, GREEN, RED, PINK, SKY, BLACK, GREY = tuple(LOOKS["palette"].values())
PALE = "#B5B5B5"
SHADES = {**LOOKS["palette"], "pale": PALE}
MODELS = {
    name: Look(words, SHADES[colour], marker, line if isinstance(line, str) else tuple(line))
    for name, (words, colour, marker, line) in LOOKS["models"].items()
}
PAIRINGS = LOOKS["pairings"]
MARKERS, KINDS = "osD^vP", "o^sDvP*X"  # of arms, of kinds of input
BESIDE = {"fontsize": 8, "loc": "center left", "bbox_to_anchor": (1, 0.5)}  # a legend to the right of the axes
BINS = 60  # of a histogram: our choice, several genuine pairs a bin even for the smallest study
NOT_LOSSES = ("learning_rate", "validation_eer", "pairs")  # beginnings of names in a training's log
FACE, LETTERS = 1.15, 16  # inches a face, and letters that fit above one
INK = "#444444"  # of a legend


def use_style() -> None:
    """The house style, on top of matplotlib's defaults: a reader's own matplotlibrc changes nothing."""
    matplotlib.rcdefaults()
    seaborn.set_theme(context="notebook", style="ticks", palette=list(PALETTE), font="DejaVu Sans", font_scale=0.9)
    matplotlib.rcParams |= LOOKS["style"]


def look(model: str, other: str = BLUE) -> Look:
    """Label, colour, marker and line of a model; anything else is its own label, in the colour `other`."""
    return MODELS.get(model, Look(model, other, "o", "-"))


def label(model: str) -> str:
    return look(model).label


def arms(rows: pd.DataFrame) -> Figure:
    """Differences arm - method in points, with their intervals, against resolution: one colour and marker an arm.

    rows: of ablation.csv, of one method, metric and pairing; fractions.
    """
    names, arms = sorted(rows.resolution.unique(), key=pixels), list(dict.fromkeys(rows.arm))
    fig, ax = pyplot.subplots(figsize=(6.8, 3.2))
    ax.axhline(0, color=GREY, linewidth=1)
    for k, arm in enumerate(arms):
        own = rows[rows.arm == arm]
        x = np.array([names.index(name) for name in own.resolution]) + 0.14 * (k - (len(arms) - 1) / 2)
        error = 100 * np.stack([own["diff"] - own.diff_low, own.diff_high - own["diff"]])
        marker, shade = MARKERS[k % len(MARKERS)], PALETTE[k % len(PALETTE)]
        ax.errorbar(x, 100 * own["diff"], error, color=shade, marker=marker, linestyle="", capsize=2, label=arm)
    ax.set(xlabel="resolution of both faces", ylabel="EER, arm minus method (points)")
    ax.set_xticks(range(len(names)), [name if name == "hr" else f"{name} px" for name in names])
    ax.legend(**BESIDE)
    return fig


def similarity_histograms(panels: dict[str, tuple[np.ndarray, np.ndarray]], xlabel: str = "score") -> Figure:
    """Densities of genuine and impostor scores, one panel a title, all on one axis of scores.

    panels: title -> (scores (n,), same (n,) bool).
    """
    edges = np.histogram_bin_edges(np.concatenate([scores for scores, _ in panels.values()]), BINS)
    fig, axes = pyplot.subplots(len(panels), 1, figsize=(6.4, 0.7 + 1.35 * len(panels)), sharex=True, squeeze=False)
    for ax, (title, (scores, same)) in zip(axes[:, 0], panels.items(), strict=True):
        for name, chosen, shade in (("different people", ~same, ORANGE), ("same person", same, BLUE)):
            ax.hist(scores[chosen], edges, density=True, color=shade, alpha=0.55, label=name)
            ax.axvline(np.median(scores[chosen]), color=shade, linewidth=1.5)
        ax.set_title(title, loc="left")
        ax.set_yticks([])
        ax.grid(False)
        ax.spines["left"].set_visible(False)
    axes[0, 0].legend(fontsize=8, loc="upper left")
    axes[-1, 0].set_xlabel(xlabel)
    return fig


def training_curves(logs: dict[str, pd.DataFrame], terms: list[str] | None = None) -> Figure:
    """Each term of the loss over training: mean over folds and seeds, with the range between them.

    logs: model -> its log (columns fold, seed, epoch, term, value). terms: which, by default all losses.
    """
    found = dict.fromkeys(pd.concat(logs.values()).term)
    terms = terms or [term for term in found if not term.startswith(NOT_LOSSES)]
    columns = min(3, len(terms))
    lines = -(-len(terms) // columns)
    fig, axes = pyplot.subplots(lines, columns, figsize=(3.1 * columns + 0.6, 2.5 * lines), squeeze=False)
    for ax in axes.flat[len(terms) :]:
        ax.remove()
    for ax, term in zip(axes.flat, terms, strict=False):
        for i, (name, log) in enumerate(logs.items()):
            style, values = look(name, PALETTE[i % len(PALETTE)]), log[log.term == term].groupby("epoch").value
            values = values.agg(["mean", "min", "max"])
            if len(values):
                ax.plot(values.index, values["mean"], color=style.colour, linestyle=style.line, label=style.label)
                ax.fill_between(values.index, values["min"], values["max"], color=style.colour, alpha=0.15, linewidth=0)
        ax.set(title=term.replace("_", " "), xlabel="epoch")
    if len(logs) > 1:
        axes[0, 0].legend(fontsize=8)
    return fig


def _grid(lines: int, titles: list[str]):
    fig, axes = pyplot.subplots(lines, len(titles), figsize=(FACE * len(titles), FACE * lines + 0.3), squeeze=False)
    for ax, title in zip(axes[0], titles, strict=True):
        ax.set_title(fill(title, LETTERS), fontsize=9)
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])
        ax.grid(False)
        ax.spines[:].set_visible(False)
    return fig, axes


def mosaic(columns: dict[str, np.ndarray]) -> Figure:
    """Faces in rows, one column a title: uint8 (n, S, S, 3), S of its own; pixels are drawn as the squares they are."""
    fig, axes = _grid(len(next(iter(columns.values()))), list(columns))
    for column, faces in zip(axes.T, columns.values(), strict=True):
        for ax, face in zip(column, faces, strict=True):
            ax.imshow(face, interpolation="nearest")
    return fig


def attention(chips: np.ndarray, maps: dict[str, np.ndarray]) -> Figure:
    """Each face, and beside it its attention maps laid over it, each scaled to its own maximum.

    chips: uint8 (n, S, S, 3). maps: title -> float (n, h, w), at least 0.
    """
    fig, axes = _grid(len(chips), ["face", *maps])
    side = chips.shape[1] - 0.5
    how = {"extent": (-0.5, side, side, -0.5), "interpolation": "bilinear"}
    for i, chip in enumerate(chips):
        axes[i, 0].imshow(chip)
        for ax, stack in zip(axes[i, 1:], maps.values(), strict=True):
            ax.imshow(chip.mean(axis=2), cmap="gray", vmin=0, vmax=255)
            top = max(float(stack[i].max()), np.finfo(np.float32).tiny)
            ax.imshow(stack[i] / top, cmap="inferno", alpha=0.6, vmin=0, vmax=1, **how)
    return fig


def embedding_map(embeddings: np.ndarray, people: np.ndarray, marks: list[str]) -> Figure:
    """Float (n, D) on the plane of its two principal components: a colour a person, a marker a kind of input.

    Each component's largest loading is positive. people: int (n,). marks: n names such as "HR" and "8 px"; the first
    kind is filled.
    """
    centred = embeddings.astype(np.float64) - embeddings.mean(axis=0, dtype=np.float64)
    axes = np.linalg.svd(centred, full_matrices=False)[2][:2]
    axes *= np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(axis=1)])[:, None]
    points, kinds = centred @ axes.T, np.asarray(marks)
    fig, ax = pyplot.subplots(figsize=(6.4, 5.2))
    for i, kind in enumerate(dict.fromkeys(marks)):
        how = {"s": 30, "marker": KINDS[i % len(KINDS)]}
        for j, person in enumerate(np.unique(people)):
            x, y = points[(kinds == kind) & (people == person)].T
            shade = PALETTE[j % len(PALETTE)]
            ax.scatter(x, y, color=shade if i == 0 else "none", edgecolors=shade, **how)
        ax.scatter([], [], color=INK if i == 0 else "none", edgecolors=INK, label=kind, **how)
    ax.legend(fontsize=8)
    ax.set(xlabel="first principal component", ylabel="second principal component")
    ax.set_aspect("equal", adjustable="datalim")
    return fig
