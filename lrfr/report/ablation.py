"""tables/ablation.csv and tables/schedule.csv: every trained arm against its method.

An arm is trained like its method, with what `arms` in params.yaml changes. Most leave a part out or replace it: the
difference says what the part is worth. An arm whose recipe names its own `epochs` changes no part: it is its model with
another schedule, and stands in schedule.csv. It is compared with the model as the study trains it, with the teacher,
and with `scratch` under the same schedule: whatever helps a student without a teacher narrows what distillation is
worth.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from lrfr.config import Study
from lrfr.evaluate.statistics import holm
from lrfr.formats import CELL, SIGNIFICANT, page, per_cent, wide
from lrfr.protocol.folds import DENSE, OFFICIAL
from lrfr.report.evaluation import NOT_COMPARED, Evaluation, arranged, by_cell, cell_of
from lrfr.train.trainings import arm

ABLATION = ["study", "method", "arm", "protocol", *CELL, "value", "low", "high", "diff", "diff_low", "diff_high", "p"]
DIFFERENCE = ["against", "diff", "diff_low", "diff_high", "p", "p_holm"]
SCHEDULE = ["study", "model", "arm", "epochs", "protocol", *CELL, "value", "low", "high", "interval", *DIFFERENCE]


def rescheduled(study: Study) -> dict[str, int]:
    """The trained arms that are a model with another schedule, <model>-<arm>, and their epochs."""
    recipes = {name: arm(study, study.variants[name]).recipe or {} for name in study.run_arms}
    return {name: int(recipe["epochs"]) for name, recipe in recipes.items() if "epochs" in recipe}


def ablation_table(study: Study, evaluation: Evaluation) -> pd.DataFrame:
    """ablation.csv: a row per (arm, pairing, resolution, metric) of protocol `dense`; diff is arm - method, paired."""
    draws, rows = evaluation.comparable(), []
    whole = by_cell(draws[draws.kind == "model"])
    for arm in draws[(draws.kind == "arm") & ~draws.model.isin(list(rescheduled(study)))].itertuples():
        method, name = arm.model.split("-")
        base = whole.get((method, arm.folds, *cell_of(arm)))
        if base is not None:  # not every pairing exists on both sides
            difference = evaluation.difference(arm, base)
            rows.append((study.study, method, name, DENSE, *cell_of(arm), arm.value, arm.low, arm.high, *difference))
    return arranged(pd.DataFrame(rows, columns=ABLATION), ["metric", "pairing", "method", "arm", "resolution"])


def ablation_page(table: pd.DataFrame) -> str:
    """ablation.csv for people: differences of the equal error rate to the whole method, in per cent points."""
    text = "Equal error rate of the arm minus that of its method, in per cent points, both faces at the resolution; "
    text += "negative: the arm is better. Intervals are paired over people.\n"
    if table.empty:
        return page("Ablation", text + "\nNo arm has been trained in this study.", {})
    rows = table[(table.metric == "eer") & (table.pairing == "lr_lr")]
    cells = [per_cent(row.diff, row.diff_low, row.diff_high, "+") for row in rows.itertuples()]
    return page("Ablation", text.strip(), {"": wide(rows, cells, ["method", "arm"])})


def schedule_table(study: Study, evaluation: Evaluation) -> pd.DataFrame:
    """schedule.csv: of protocol `dense` a row for each (arm, reference, pairing, resolution, metric), then `official`.

    diff is arm - reference, paired on the same draws of people; p_holm is corrected over the arms that answer one
    question, as in comparisons.csv. `official` compares nothing.
    """
    epochs, bases, table = rescheduled(study), by_cell(evaluation.comparable()), []
    draws = evaluation.draws[evaluation.draws.model.isin(list(epochs)) & ~evaluation.draws.metric.isin(NOT_COMPARED)]
    for row in draws[draws.protocol.isin([DENSE, OFFICIAL])].itertuples():
        model, arm = row.model.split("-")
        value = (row.value, row.low, row.high, row.interval)
        head = (study.study, model, arm, epochs[row.model], row.protocol, *cell_of(row), *value)
        if row.protocol == OFFICIAL:
            table.append((*head, "", *[np.nan] * 5))
            continue
        for name in (model, "teacher", f"scratch-{arm}"):
            base = bases.get((name, row.folds, *cell_of(row)))
            if base is not None and name != row.model:  # not every pairing exists on both sides
                against = "itself" if name == model else name
                table.append((*head, against, *evaluation.difference(row, base), np.nan))
    found = pd.DataFrame(table, columns=SCHEDULE)
    family = found[found.against != ""].groupby(["arm", "against", *CELL]).p
    found.loc[found.against != "", "p_holm"] = family.transform(lambda p: holm(p.to_numpy()))
    return arranged(found, ["protocol", "metric", "pairing", "against", "model", "arm", "resolution"])


def schedule_page(table: pd.DataFrame) -> str:
    """schedule.csv for people: equal error rates, their differences, and the accuracy on the source's own pairs."""
    title, text = "Another schedule", "Per cent, with intervals; both photographs at the resolution."
    if table.empty:
        return page(title, text + "\n\nThis study has trained no model with another schedule.", {})
    table = table.assign(model=table.model + ", " + table.epochs.astype(str) + " epochs")
    rows = table[table.pairing == "lr_lr"]
    dense = rows[(rows.protocol == DENSE) & (rows.metric == "eer")]

    def values(part: pd.DataFrame) -> pd.DataFrame:
        return wide(part, [per_cent(row.value, row.low, row.high) for row in part.itertuples()])

    parts = {"eer": values(dense[dense.against == "itself"])}
    own = f" (the schedule of the study); * marks p < {SIGNIFICANT} after Holm's correction"
    for against, part in dense.groupby("against", sort=True):
        heading = f"eer minus that of {against}{own if against == 'itself' else ''}"
        parts[heading] = wide(part, marked(part, "diff_low", "diff_high"))
    official = rows[(rows.protocol == OFFICIAL) & (rows.metric == "accuracy")]
    return page(title, text, parts | ({"accuracy, protocol `official`": values(official)} if len(official) else {}))


def marked(rows: pd.DataFrame, low: str = "low", high: str = "high") -> list[str]:
    """Differences in points, * where p after Holm's correction is significant. low, high: columns of the interval."""
    numbers = zip(rows["diff"], rows[low], rows[high], rows.p_holm, strict=True)
    return [per_cent(*difference, "+") + "*" * bool(p < SIGNIFICANT) for *difference, p in numbers]
