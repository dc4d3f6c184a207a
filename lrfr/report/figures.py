"""The house style and the plots that notebooks share: pure functions, data in, matplotlib Figure out.

Colours are Okabe and Ito's (2008), chosen to stay apart for every common kind of colour blindness; each model also has
a marker and a line style of its own, so figures survive a black-and-white printer.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
import pandas as pd
import seaborn
import yaml
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lrfr.formats import FIVE as FIVE  # notebooks take it from here
from lrfr.formats import order, pixels


class Look(NamedTuple):
    """line: a matplotlib line style, or (offset, [lengths on and off])."""

    label: str
    colour: str
    marker: str
    line: str | tuple


LOOKS = yaml.safe_load((Path(__file__).parent / "templates" / "looks.yaml").read_text(encoding="utf-8"))
PALETTE = BLUE, ORANGE, GREEN, RED, PINK, SKY, BLACK, GREY = tuple(LOOKS["palette"].values())
PALE = "#B5B5B5"
SHADES = {**LOOKS["palette"], "pale": PALE}
MODELS = {
    name: Look(words, SHADES[colour], marker, line if isinstance(line, str) else tuple(line))
    for name, (words, colour, marker, line) in LOOKS["models"].items()
}
METRICS, PAIRINGS = LOOKS["metrics"], LOOKS["pairings"]
MARKERS = "osD^vP"  # of arms
BESIDE = {"fontsize": 8, "loc": "center left", "bbox_to_anchor": (1, 0.5)}  # a legend to the right of the axes
BINS = 60  # of a histogram: our choice, several genuine pairs a bin even for the smallest study
NOT_LOSSES = ("learning_rate", "validation_eer", "pairs")  # beginnings of names in a training's log


def use_style() -> None:
    """The house style, on top of matplotlib's defaults: a reader's own matplotlibrc changes nothing."""
    matplotlib.rcdefaults()
    seaborn.set_theme(context="notebook", style="ticks", palette=list(PALETTE), font="DejaVu Sans", font_scale=0.9)
    matplotlib.rcParams |= LOOKS["style"]


def look(model: str, other: str = BLUE) -> Look:
    """Label, colour, marker and line of a model; anything else is its own label, in the colour `other`."""
    return MODELS.get(model, Look(model, other, "o", "-"))


def looks(names: list[str]) -> dict[str, Look]:
    """One look a name: a model's own, or the next colour of the palette."""
    return {name: look(name, PALETTE[i % len(PALETTE)]) for i, name in enumerate(names)}


def label(model: str) -> str:
    return look(model).label


def colour(model: str) -> str:
    return look(model).colour


def size_label(resolution: str) -> str:
    return resolution if resolution == "hr" else f"{resolution} px"


def size_axis(ax: Axes, names: list[str]) -> None:
    """Resolutions as the ticks of the horizontal axis, and a legend beside it."""
    ax.set_xticks(range(len(names)), [size_label(name) for name in names])
    ax.legend(**BESIDE)


def resolution_curve(results: pd.DataFrame, metric: str, pairing: str, models) -> Figure:
    """A metric against resolution, one line a model, with the bands of its intervals.

    results: rows of results.csv. metric, pairing: which of them. models: names, drawn in the house order.
    """
    rows = results[(results.metric == metric) & (results.pairing == pairing) & results.model.isin(models)]
    names = sorted(rows.resolution.unique(), key=pixels)
    fig, ax = pyplot.subplots(figsize=(7.2, 4.4))
    for model in order(rows.model):
        line = rows[rows.model == model].set_index("resolution").reindex(names)
        style, x = look(model), np.arange(len(names))
        ax.plot(x, 100 * line.value, color=style.colour, marker=style.marker, linestyle=style.line, label=style.label)
        ax.fill_between(x, 100 * line.low, 100 * line.high, color=style.colour, alpha=0.12, linewidth=0)
    ax.set(
        xlabel="resolution of the face",
        ylabel=f"{METRICS.get(metric, metric)} (%)",
        title=PAIRINGS.get(pairing, pairing),
    )
    size_axis(ax, names)
    return fig


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
    size_axis(ax, names)
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
    if terms is None:
        found = pd.concat(logs.values()).term
        terms = [term for term in dict.fromkeys(found) if not term.startswith(NOT_LOSSES)]
    columns = min(3, len(terms))
    lines = -(-len(terms) // columns)
    fig, axes = pyplot.subplots(lines, columns, figsize=(3.1 * columns + 0.6, 2.5 * lines), squeeze=False)
    for ax in axes.flat[len(terms) :]:
        ax.remove()
    for ax, term in zip(axes.flat, terms, strict=False):
        for name, style in looks(list(logs)).items():
            values = logs[name][logs[name].term == term].groupby("epoch").value.agg(["mean", "min", "max"])
            if len(values):
                ax.plot(values.index, values["mean"], color=style.colour, linestyle=style.line, label=style.label)
                ax.fill_between(values.index, values["min"], values["max"], color=style.colour, alpha=0.15, linewidth=0)
        ax.set(title=term.replace("_", " "), xlabel="epoch")
    if len(logs) > 1:
        axes[0, 0].legend(fontsize=8)
    return fig
