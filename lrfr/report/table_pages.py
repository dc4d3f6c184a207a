"""The study's tables as Markdown pages for people: models in rows, resolutions in columns, per cent with intervals."""

from __future__ import annotations

import numpy as np
import pandas as pd

from lrfr.formats import SIGNIFICANT, headline, markdown, order, pixels
from lrfr.protocol.folds import DENSE, MISPLACED, OFFICIAL, VIEW2

FIVE = ("hkdd", "se_dfd", "mkmmd", "icd_face", "acs_review")  # the papers' methods, compared with each other
ABOUT = {
    DENSE: "Pairs of the test people's photographs, and searches among one photograph of each. Only here models are compared.",
    OFFICIAL: "The part of LFW's View 2 that the folds hold, each official fold at the threshold that is best on the other.",
    MISPLACED: "The pairs of `dense` if landmarks are misplaced at random.",
}
VIEW2_NOTE = (
    "`view2`: all pairs of LFW's View 2 at HR, ten-fold accuracy with exact thresholds, each face embedded once, found and "
    "aligned as in this study. The network's author states 99.13 % for one embedding a face, and 99.38 % for 100 jittered ones."
)


def per_cent(value: float, low: float, high: float, sign: str = "") -> str:
    """Like "11.2 [9.8, 12.9]" from fractions; sign "+" shows the sign of positive numbers too.

    Unlike `formats.per_cent`, it keeps "-0.0": at the end of an interval it says on which side of zero that lies.
    """
    point, *ends = (f"{100 * number:{sign}.1f}" for number in (value, low, high))
    return f"{point} [{', '.join(ends)}]"


def results_page(results: pd.DataFrame) -> str:
    """results.csv for people: one table of models by resolutions for each metric and pairing, in per cent with intervals.

    Several protocols make a chapter each.
    """
    most, protocols = results.folds.max(), list(dict.fromkeys(results.protocol))
    text = "# Results\n\nPer cent, with intervals in brackets; means over folds and seeds.\n"
    for protocol in protocols:
        if len(protocols) > 1:
            text += f"\n# Protocol `{protocol}`\n\n{ABOUT[protocol]}\n"
        chapter = results[results.protocol == protocol]
        for (metric, pairing), rows in chapter.groupby(["metric", "pairing"], sort=True):
            wide = headline(rows, metric, pairing)
            fewer = rows[rows.folds < most].set_index("model").folds.to_dict()
            wide["model"] = [f"{m} ({fewer[m]} of {most} folds)" if m in fewer else m for m in wide.model]
            text += f"\n## {metric}, {pairing} ({rows.interval.iloc[0]})\n\n{markdown(wide)}"
    return text


def comparisons_page(comparisons: pd.DataFrame) -> str:
    """comparisons.csv for people: a table of models by resolutions for each reference, metric and pairing."""
    text = (
        f"# Paired differences\n\nPer cent points, with intervals; * marks p < {SIGNIFICANT} after Holm's correction.\n"
    )
    marks = np.where(comparisons.p_holm < SIGNIFICANT, "*", "")
    rows = comparisons.assign(
        cell=[
            per_cent(r.diff, r.low, r.high, "+") + mark for r, mark in zip(comparisons.itertuples(), marks, strict=True)
        ],
        reference=comparisons.b.where(~(comparisons.a.isin(FIVE) & comparisons.b.isin(FIVE)), "each other"),
    )
    rows["row"] = rows.a.where(rows.reference != "each other", rows.a + " - " + rows.b)
    for (reference, metric, pairing), group in rows.groupby(["reference", "metric", "pairing"], sort=True):
        wide = group.pivot(index="row", columns="resolution", values="cell").fillna("")
        wide = wide.loc[list(dict.fromkeys(group.row)), sorted(wide.columns, key=pixels)]
        wide = wide.rename_axis(columns=None).reset_index(names="model")
        text += f"\n## Against {reference}: {metric}, {pairing}\n\n{markdown(wide)}"
    return text


def teacher_page(teacher: pd.DataFrame) -> str:
    """teacher.csv for people; protocols other than `dense` are named beside the metric and compared with nothing."""
    rows = []
    for r in teacher.sort_values(["metric", "resolution"], kind="stable").itertuples():
        metric = r.metric if r.protocol == DENSE else f"{r.metric} ({r.protocol})"
        difference = "" if np.isnan(r.diff) else per_cent(r.diff, r.diff_low, r.diff_high, "+")
        rows.append((metric, r.resolution, r.setting, per_cent(r.value, r.low, r.high), difference))
    table = pd.DataFrame(rows, columns=["metric", "resolution", "setting", "value", "minus pretrained"])
    note = f"\n{VIEW2_NOTE}\n" if VIEW2 in set(teacher.protocol) else ""
    return f"# The teacher's settings\n\nPer cent, on held-out people.\n\n{markdown(table)}{note}"


def runs_page(runs: pd.DataFrame) -> str:
    """runs.csv for people: the spread over folds of the equal error rate, low against low resolution."""
    rows = runs[(runs.protocol == DENSE) & (runs.metric == "eer") & (runs.pairing == "lr_lr")]
    rows = rows.assign(run="fold " + rows.fold.astype(str) + ", seed " + rows.seed.astype(str))
    wide = (100 * rows.pivot(index=["model", "run"], columns="resolution", values="value")).map("{:.1f}".format)
    wide = wide.reindex(order(rows.model), level=0)[sorted(wide.columns, key=pixels)]
    return "# Single runs\n\nEqual error rate in per cent, lr_lr.\n\n" + markdown(
        wide.rename_axis(columns=None).reset_index()
    )


def gradients_page(gradients: pd.DataFrame) -> str:
    """gradients.csv for people."""
    spread = zip(gradients["mean"], gradients["min"], gradients["max"], strict=True)
    cells = gradients.assign(ratio=[f"{mean:.2f} [{low:.2f}, {high:.2f}]" for mean, low, high in spread])
    keys = ["model", "term", "stage"]
    wide = cells.pivot_table(index=keys, columns="when", values="ratio", aggfunc="first", sort=False)
    wide = wide.reindex(columns=["start", "early", "end"], fill_value="")  # a training of two epochs has no "early"
    text = "Gradient norm of each weighted term over that of the face loss: mean [smallest, largest] over folds and the seeds of "
    text += "`train.seeds`."
    return f"# Gradient ratios\n\n{text}\n\n{markdown(wide.rename_axis(columns=None).reset_index())}"
