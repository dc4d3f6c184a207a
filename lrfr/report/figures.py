"""The house style and the plots that several notebooks share: pure functions, data in, matplotlib Figure out.

Colours are Okabe and Ito's (2008), chosen to stay apart for every common kind of colour blindness; each model also has
a marker and a line style of its own, so figures survive a black-and-white printer.
"""

from __future__ import annotations

from typing import NamedTuple

import matplotlib
import numpy as np
import pandas as pd
import seaborn
from matplotlib import pyplot
from matplotlib.figure import Figure

from lrfr.evaluate.verification import operating_points
from lrfr.formats import FIVE as FIVE  # notebooks take it from here
from lrfr.formats import order, pixels

PALETTE = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000", "#8C8C8C")
BLUE, ORANGE, GREEN, RED, PINK, SKY, BLACK, GREY = PALETTE
PALE = "#B5B5B5"
MARKERS = "osD^vP"  # of arms
BESIDE = {"fontsize": 8, "loc": "center left", "bbox_to_anchor": (1, 0.5)}  # a legend to the right of the axes
BINS = 60  # of a histogram: our choice, several genuine pairs a bin even for the smallest study
NOT_LOSSES = ("learning_rate", "validation_eer", "pairs")  # beginnings of names in a training's log


class Look(NamedTuple):
    label: str
    colour: str
    marker: str
    line: str | tuple


MODELS = {
    "teacher": Look("teacher", BLACK, "s", "-"),
    "hr_student": Look("HR-only student", GREY, "v", "--"),
    "scratch": Look("scratch (no teacher)", GREY, "o", "-"),
    "kd": Look("KD", SKY, "D", "--"),
    "feature": Look("feature cosine", SKY, "<", ":"),
    "fitnet": Look("FitNet", SKY, ">", "-."),
    "at": Look("attention transfer", SKY, "h", (0, (5, 1))),
    "rkd": Look("RKD", SKY, "p", (0, (1, 1))),
    "kd_tuned_teacher": Look("KD, tuned teacher", BLACK, "X", ":"),
    "hkdd": Look("HKDD", BLUE, "o", "-"),
    "se_dfd": Look("SE-DFD", ORANGE, "s", "-"),
    "mkmmd": Look("MK-MMD", GREEN, "^", "-"),
    "icd_face": Look("ICD-Face", RED, "D", "-"),
    "acs_review": Look("ACS-Review", PINK, "P", "-"),
    "random_net": Look("random network", PALE, "1", ":"),
    "raw_pixels": Look("raw pixels", PALE, "2", "--"),
    "shuffled": Look("shuffled targets", PALE, "3", "-."),
}
METRICS = {
    "accuracy": "balanced accuracy",
    "eer": "equal error rate",
    "auc": "area under the ROC curve",
    "rank1": "rank-1 identification rate",
    "rank5": "rank-5 identification rate",
    "agreement": "agreement with the teacher",
}
PAIRINGS = {"lr_lr": "LR against LR", "hr_lr": "HR against LR", "teacher_lr": "teacher's HR against student's LR"}


def use_style() -> None:
    """The house style, on top of matplotlib's defaults: a reader's own matplotlibrc changes nothing."""
    matplotlib.rcdefaults()
    seaborn.set_theme(context="notebook", style="ticks", palette=list(PALETTE), font="DejaVu Sans", font_scale=0.9)
    matplotlib.rcParams |= {"figure.constrained_layout.use": True, "figure.dpi": 90, "legend.frameon": False}
    matplotlib.rcParams |= {"axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": "medium"}
    matplotlib.rcParams |= {"axes.grid": True, "grid.color": "#E6E6E6", "grid.linewidth": 0.8}
    matplotlib.rcParams |= {"lines.linewidth": 1.8, "lines.markersize": 5}


def look(model: str, other: str = BLUE) -> Look:
    """Label, colour, marker and line of a model; anything else is its own label, in the colour `other`."""
    return MODELS.get(model, Look(model, other, "o", "-"))


def label(model: str) -> str:
    return look(model).label


def colour(model: str) -> str:
    return look(model).colour


def metric_label(metric: str) -> str:
    if "@far=" in metric:
        return f"true accept rate at false accept rate {metric.split('=')[1]}"
    return METRICS.get(metric, metric)


def size_label(resolution: str) -> str:
    return resolution if resolution == "hr" else f"{resolution} px"


def looks(names: list[str]) -> dict[str, Look]:
    """One look a name: a model's own, or the next colour of the palette."""
    return {name: look(name, PALETTE[i % len(PALETTE)]) for i, name in enumerate(names)}


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
    ax.set_xticks(range(len(names)), [size_label(name) for name in names])
    ax.set(xlabel="resolution of the face", ylabel=f"{metric_label(metric)} (%)", title=PAIRINGS.get(pairing, pairing))
    ax.legend(**BESIDE)
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
    ax.set_xticks(range(len(names)), [size_label(name) for name in names])
    ax.set(xlabel="resolution of both faces", ylabel="EER, arm minus method (points)")
    ax.legend(**BESIDE)
    return fig


def distinct(x: np.ndarray, y: np.ndarray, logarithmic: bool) -> np.ndarray:
    """Indices of the points (in per cent) that a figure can tell from the one before, and of the last: (m,).

    Study lists have millions of thresholds; a curve of more points than pixels takes minutes to draw.
    """
    places = [np.round(400 * np.log10(v) if logarithmic else 20 * v) for v in (x, y)]
    moved = np.append(True, np.any([np.diff(p) != 0 for p in places], axis=0))
    return np.union1d(np.flatnonzero(moved), len(x) - 1)


def roc(curves: dict[str, tuple[np.ndarray, np.ndarray]], det: bool = False) -> Figure:
    """ROC curves, or DET curves (both errors, logarithmic axes).

    curves: name -> (scores (n,), same (n,) bool), higher = more similar; a model's name brings its colour and label.
    """
    fig, ax = pyplot.subplots(figsize=(5.4, 4.6))
    for name, style in looks(list(curves)).items():
        false_match, false_non_match, _ = operating_points(*curves[name])
        inside = (false_match > 0) & (false_non_match > 0) if det else np.full(len(false_match), True)
        x, y = 100 * false_match[inside], 100 * (false_non_match if det else 1 - false_non_match)[inside]
        kept = distinct(x, y, det) if len(x) else []
        ax.plot(x[kept], y[kept], color=style.colour, linestyle=style.line, label=style.label, drawstyle="steps-post")
    if det:
        ax.set(xscale="log", yscale="log", xlabel="false accepts (%)", ylabel="false rejects (%)")
        ax.xaxis.set_major_formatter("{x:g}")
        ax.yaxis.set_major_formatter("{x:g}")
        ax.axline((1, 1), (10, 10), color=PALE, linestyle=":", linewidth=1.2)
    else:
        ax.axline((0, 0), (100, 100), color=PALE, linestyle=":", linewidth=1.2)
        ax.set(xlim=(0, 100), ylim=(0, 101), xlabel="false accepts (%)", ylabel="true accepts (%)")
    ax.legend(fontsize=8)
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


def cost_scatter(cost: pd.DataFrame, results: pd.DataFrame, metric: str, pairing: str, resolution: str) -> Figure:
    """A metric at one resolution, with its interval, against cost.csv's latency (logarithmic): one point a model."""
    chosen = (results.metric == metric) & (results.pairing == pairing) & (results.resolution == resolution)
    rows = results[chosen].merge(cost, on="model").set_index("model")
    fig, ax = pyplot.subplots(figsize=(7.2, 4.4))
    for model in order(rows.index):
        row, (label, colour, marker, _) = rows.loc[model], look(model)
        error = [[100 * (row.value - row.low)], [100 * (row.high - row.value)]]
        how = {"color": colour, "marker": marker, "linestyle": "", "label": label, "capsize": 2}
        ax.errorbar(row.latency_ms, 100 * row.value, error, **how)
    ax.set(xscale="log", xlabel="latency (ms)", ylabel=f"{metric_label(metric)} (%)")
    ax.set_title(f"{PAIRINGS.get(pairing, pairing)}, {size_label(resolution)}")
    ax.legend(**BESIDE)
    return fig
