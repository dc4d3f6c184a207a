"""What a notebook shows of a method's ablation arms: figure, table and what the intervals say."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib import pyplot
from matplotlib.figure import Figure

from lrfr.formats import per_cent, pixels
from lrfr.report.figures import GREY, PALETTE, label

if TYPE_CHECKING:
    from lrfr.report.results import Report

MARKERS = "osD^vP"


def interval_verdict(low: float, high: float) -> str:
    """worse, better or tie: what the interval of a difference of errors says of the first of the two."""
    return "worse" if low > 0 else "better" if high < 0 else "tie"


def plot(rows: pd.DataFrame) -> Figure:
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
    ax.set_xticks(range(len(names)), [name if name == "hr" else f"{name} px" for name in names])
    ax.set(xlabel="resolution of both faces", ylabel="EER, arm minus method (points)")
    ax.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return fig


def section(report: Report, method: str) -> str:
    """Save figure and table `ablation` of a method's trained arms; returns what they say as Markdown, or what to do first.

    Equal error rate of an arm minus that of its method, both faces at the resolution. The intervals decide: an arm is worse or
    better where its interval leaves zero out, and a tie elsewhere.
    """
    rows, name = report.table("ablation"), label(method)
    rows = rows[(rows.method == method) & (rows.metric == "eer") & (rows.pairing == "lr_lr")]
    rows = rows.sort_values("resolution", key=lambda sizes: sizes.map(pixels), kind="stable")
    if rows.empty:
        return (
            f"The study `{report.study}` has trained no arm of {name}, so there is nothing to compare here: "
            f"add arms (`{method}-<arm>`) to `run_arms` in `params.yaml` and run the study again."
        )
    rows = rows.assign(verdict=[interval_verdict(row.diff_low, row.diff_high) for row in rows.itertuples()])
    level = report.parameters.evaluate.level
    caption = (
        f"Equal error rate of each arm minus that of {name}, in points, both photographs at the resolution: above zero, the arm "
        f"is worse. {100 * level:g} % intervals, paired over the test people; they do not know that another seed would train "
        "other networks. The stage `arm` trained the arms, the stage `summary` compared them (tables/ablation.csv)."
    )
    report.save(plot(rows), "ablation", caption)
    cells = [f"{per_cent(row.diff, row.diff_low, row.diff_high, '+')} {row.verdict}" for row in rows.itertuples()]
    wide = rows.assign(cell=cells).pivot(index="resolution", columns="arm", values="cell").fillna("")
    wide = wide.loc[list(dict.fromkeys(rows.resolution)), sorted(wide.columns)]
    words = f"The figure in numbers: each arm minus {name}, equal error rate in points, with interval and verdict (stage `summary`)."
    report.save_table(wide.rename_axis(columns=None).reset_index(), "ablation", words)
    text = ""
    for arm, own in rows.groupby("arm"):
        at = [f"{found} at {', '.join(group.resolution)}" for found, group in own.groupby("verdict", sort=False)]
        text += f"- `{arm}` against {name}: {'; '.join(at)}.\n"
    decided, chance = (rows.verdict != "tie").sum(), (1 - level) * len(rows)
    return (
        f"{text}\n{decided} of {len(rows)} intervals leave zero out; if no arm differed from {name}, about {chance:.1f} would by "
        "chance, and several at a time, since all resolutions share their people."
    )
