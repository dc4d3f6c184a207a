"""tables/schedule.csv: would a longer training change what the study says?

An arm whose recipe names its own `epochs` leaves nothing out and replaces nothing: it is its model with another schedule. It is
compared with the model as the study trains it, with the teacher, and with `scratch` under the same schedule, since whatever helps
a student without a teacher narrows what distillation is worth.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from lrfr.config import Study
from lrfr.evaluate.statistics import holm, paired_difference
from lrfr.formats import CELL, SIGNIFICANT, markdown, per_cent, pixels
from lrfr.protocol.folds import DENSE, OFFICIAL
from lrfr.train.trainings import arm

DIFFERENCE = ["against", "diff", "diff_low", "diff_high", "p", "p_holm"]
COLUMNS = ["study", "model", "arm", "epochs", "protocol", *CELL, "value", "low", "high", "interval", *DIFFERENCE]


def rescheduled(study: Study) -> dict[str, int]:
    """The trained arms that are a model with another schedule, <model>-<arm>, and their epochs."""
    recipes = {name: arm(study, study.variants[name]).recipe or {} for name in study.run_arms}
    return {name: int(recipe["epochs"]) for name, recipe in recipes.items() if "epochs" in recipe}


def schedule_table(study: Study, draws: pd.DataFrame, values: np.ndarray, freedom: dict[str, int]) -> pd.DataFrame:
    """Rows of protocol `dense`, one for each (arm, reference, pairing, resolution, metric), then those of `official`.

    draws, values, freedom: as for `lrfr.report.ablation.ablation_table`. diff is arm - reference, paired on the same draws of
    people; p_holm is corrected over the arms that answer one question, as in comparisons.csv. `official` compares nothing.
    """
    epochs = rescheduled(study)
    rows = draws[draws.model.isin([*epochs, "teacher", *study.models]) & (draws.metric != "agreement")]
    dense = {(r.model, r.folds, *(getattr(r, c) for c in CELL)): r for r in rows[rows.protocol == DENSE].itertuples()}
    table = []
    for row in rows[rows.model.isin(list(epochs)) & rows.protocol.isin([DENSE, OFFICIAL])].itertuples():
        model, arm = row.model.split("-")
        cell = [getattr(row, column) for column in CELL]
        head = (
            study.study,
            model,
            arm,
            epochs[row.model],
            row.protocol,
            *cell,
            row.value,
            row.low,
            row.high,
            row.interval,
        )
        if row.protocol == OFFICIAL:
            table.append((*head, "", *[np.nan] * 5))
            continue
        for name in (model, "teacher", f"scratch-{arm}"):
            base = dense.get((name, row.folds, *cell))
            if base is None or name == row.model:
                continue  # not every pairing exists on both sides
            sides = values[row.Index], values[base.Index]
            found = paired_difference(row.value, base.value, *sides, study.evaluate.level, freedom[row.folds])
            table.append((*head, "itself" if name == model else name, *found, np.nan))
    found = pd.DataFrame(table, columns=COLUMNS)
    family = found[found.against != ""].groupby(["arm", "against", *CELL]).p
    found.loc[found.against != "", "p_holm"] = family.transform(lambda p: holm(p.to_numpy()))
    ranks = {name: k for k, name in enumerate(epochs)}
    order = found.assign(rank=(found.model + "-" + found.arm).map(ranks), size=found.resolution.map(pixels))
    return found.loc[
        order.sort_values(["protocol", "metric", "pairing", "against", "rank", "size"], kind="stable").index
    ]


def wide(rows: pd.DataFrame, cells: list[str]) -> str:
    """Models in rows, resolutions in columns."""
    table = rows.assign(cell=cells, name=rows.model + ", " + rows.epochs.astype(str) + " epochs")
    names = list(dict.fromkeys(table.name))
    table = table.pivot(index="name", columns="resolution", values="cell").loc[
        names, sorted(set(table.resolution), key=pixels)
    ]
    return markdown(table.fillna("").rename_axis(columns=None).reset_index(names="model"))


def schedule_page(table: pd.DataFrame) -> str:
    """schedule.csv for people: equal error rates, their differences, and the accuracy on the source's own pairs."""
    text = "# Another schedule\n\nPer cent, with intervals; both photographs at the resolution.\n"
    if table.empty:
        return text + "\nThis study has trained no model with another schedule.\n"
    rows = table[(table.pairing == "lr_lr") & table.metric.isin(["eer", "accuracy"])]
    dense = rows[(rows.protocol == DENSE) & (rows.metric == "eer")]
    single = dense[dense.against == "itself"]
    text += "\n## eer\n\n" + wide(single, [per_cent(r.value, r.low, r.high) for r in single.itertuples()])
    for against, group in dense.groupby("against", sort=True):
        cells = [
            per_cent(r.diff, r.diff_low, r.diff_high, "+") + "*" * bool(r.p_holm < SIGNIFICANT)
            for r in group.itertuples()
        ]
        own = f" (the schedule of the study); * marks p < {SIGNIFICANT} after Holm's correction"
        text += f"\n## eer minus that of {against}{own if against == 'itself' else ''}\n\n{wide(group, cells)}"
    official = rows[(rows.protocol == OFFICIAL) & (rows.metric == "accuracy")]
    if len(official):
        cells = [per_cent(r.value, r.low, r.high) for r in official.itertuples()]
        text += f"\n## accuracy, protocol `official`\n\n{wide(official, cells)}"
    return text
