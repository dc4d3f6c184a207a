"""tables/ablation.csv: what a part of a method is worth, measured by leaving it out or replacing it.

An arm is trained like its method, with what `arms` in params.yaml changes; diff is arm - method, paired on the same draws.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from lrfr.config import Study
from lrfr.evaluate.statistics import paired_difference
from lrfr.formats import CELL, markdown, pixels
from lrfr.protocol.folds import DENSE
from lrfr.report.schedule import rescheduled

COLUMNS = ["study", "method", "arm", "protocol", *CELL, "value", "low", "high", "diff", "diff_low", "diff_high", "p"]
SHOWN = ("eer", "lr_lr")  # on the page; the file has every metric and pairing


def ablation_table(study: Study, draws: pd.DataFrame, values: np.ndarray, freedom: dict[str, int]) -> pd.DataFrame:
    """One row per (arm, pairing, resolution, metric) of protocol `dense`; arms with another schedule are in schedule.csv.

    draws: of the `evaluate` stage, whose first rows number those of values (rows, draws). freedom: by folds as draws names them.
    """
    dense = draws[(draws.protocol == DENSE) & (draws.metric != "agreement")]
    of_method = {
        (r.model, r.folds, *(getattr(r, c) for c in CELL)): r for r in dense[dense.kind == "model"].itertuples()
    }
    rows = []
    for arm in dense[(dense.kind == "arm") & ~dense.model.isin(list(rescheduled(study)))].itertuples():
        method, name = arm.model.split("-")
        cell = [getattr(arm, column) for column in CELL]
        base = of_method.get((method, arm.folds, *cell))
        if base is None:
            continue  # not every pairing exists on both sides
        sides = values[arm.Index], values[base.Index]
        difference = paired_difference(arm.value, base.value, *sides, study.evaluate.level, freedom[arm.folds])
        rows.append((study.study, method, name, DENSE, *cell, arm.value, arm.low, arm.high, *difference))
    table = pd.DataFrame(rows, columns=COLUMNS)
    ranks = {method: k for k, method in enumerate(study.models)}
    return table.sort_values(
        ["metric", "pairing", "method", "arm", "resolution"],
        key=lambda c: c.map({"method": ranks.get, "resolution": pixels}.get(c.name, str)),
        kind="stable",
    ).reset_index(drop=True)


def ablation_page(table: pd.DataFrame) -> str:
    """ablation.csv for people: differences of the equal error rate to the whole method, in per cent points."""
    text = "# Ablation\n\nEqual error rate of the arm minus that of its method, in per cent points, both faces at the resolution; "
    text += "negative: the arm is better. Intervals are paired over people.\n"
    if table.empty:
        return text + "\nNo arm has been trained in this study.\n"
    rows = table[(table.metric == SHOWN[0]) & (table.pairing == SHOWN[1])]
    cells = [f"{100 * r.diff:+.1f} [{100 * r.diff_low:+.1f}, {100 * r.diff_high:+.1f}]" for r in rows.itertuples()]
    wide = rows.assign(cell=cells).pivot(index=["method", "arm"], columns="resolution", values="cell")
    wide = wide.loc[list(dict.fromkeys(zip(rows.method, rows.arm, strict=True))), sorted(wide.columns, key=pixels)]
    return text + "\n" + markdown(wide.fillna("").rename_axis(columns=None).reset_index())
