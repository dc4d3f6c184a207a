"""The `summary` stage: the study's tidy tables, the same as Markdown for people, and the numbers of metrics.json.

A function makes each table and its page; titles and words of the pages are in templates/tables.yaml.
"""

from __future__ import annotations

import json
from itertools import product
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import yaml

from lrfr import files, formats
from lrfr.config import Study
from lrfr.errors import UserError
from lrfr.evaluate.statistics import holm, paired_difference
from lrfr.formats import CELL, families, headline, order, page, per_cent, pixels, sections, wide, write_table
from lrfr.protocol.folds import DENSE, MISPLACED, OFFICIAL, VIEW2
from lrfr.report.gradients import averaged, shown
from lrfr.train.trainings import arm

PROTOCOLS = (DENSE, OFFICIAL, MISPLACED, VIEW2)  # in the order of the tables
NOT_COMPARED = ("agreement",)  # describes a student, is no merit
cell_of = attrgetter(*CELL)  # pairing, resolution and metric of a row
ROW = ["protocol", "model", *CELL]
COUNTS = ["n_genuine", "n_impostor", "identities", "fta"]
ABLATION = ["study", "method", "arm", "protocol", *CELL, "value", "low", "high", "diff", "diff_low", "diff_high", "p"]
DEGRADED = ["study", "condition", "model", "resolution", "value", "low", "high", "diff", "diff_low", "diff_high", "p"]
DIFFERENCE = ["against", "diff", "diff_low", "diff_high", "p", "p_holm"]
SCHEDULE = ["study", "model", "arm", "epochs", "protocol", *CELL, "value", "low", "high", "interval", *DIFFERENCE]
TEXTS = yaml.safe_load((Path(__file__).parent / "templates" / "tables.yaml").read_text(encoding="utf-8"))


def arranged(table: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Rows sorted by these columns: protocols, models and resolutions in the house order, everything else as text."""

    def key(column: pd.Series) -> pd.Series:
        if column.name in ("model", "method"):
            return column.map({name: rank for rank, name in enumerate(order(column))})
        if column.name == "protocol":
            return column.map(lambda name: (PROTOCOLS.index(name) if name in PROTOCOLS else len(PROTOCOLS), name))
        return column.map({"resolution": pixels}.get(column.name, str))

    return table.sort_values(by, key=key, kind="stable").reset_index(drop=True)


class Evaluation(NamedTuple):
    """Tables of the `evaluate` stage, see `lrfr.protocol.study`.

    draws: values with intervals; its first rows number those of `values`, float (rows, draws). points: every single
    measurement. counts: people and comparisons of each fold.
    """

    level: float
    draws: pd.DataFrame
    values: np.ndarray
    points: pd.DataFrame
    counts: pd.DataFrame

    @classmethod
    def read(cls, study: Study) -> Evaluation:
        folder, text = study.runs / "evaluation", {"resolution": str, "folds": str}
        try:
            draws, points = (pd.read_csv(folder / f"{name}.csv", dtype=text) for name in ("draws", "points"))
            values, counts = np.load(folder / "draws.npy"), pd.read_csv(folder / "counts.csv")
        except FileNotFoundError as error:
            raise UserError(f"{error.filename}: not there; run `dvc repro` again.") from None
        return cls(study.evaluate.level, draws, values, points, counts)

    def own(self, kind: str = "model") -> pd.DataFrame:
        """Rows of draws.csv in which each model is averaged over all its folds; their index is that of draws.npy."""
        rows = self.draws[self.draws.kind == kind].copy()
        rows["n_folds"] = rows.folds.str.split().str.len()
        return rows[rows.n_folds == rows.groupby(["protocol", "model"]).n_folds.transform("max")]

    def comparable(self, protocol: str = DENSE) -> pd.DataFrame:
        """Rows of draws.csv that can be compared with others: of one dense protocol, of measures that are a merit."""
        return self.draws[(self.draws.protocol == protocol) & ~self.draws.metric.isin(NOT_COMPARED)]

    def conditions(self) -> list[str]:
        """Protocols with the pairs of `dense`: itself, then `dense-camera` and whatever else the study asks for."""
        return [name for name in self.draws.protocol.unique() if name.split("-")[0] == DENSE]

    def difference(self, a, b) -> tuple[float, float, float, float]:
        """Value of row a minus that of row b of the same folds (named tuples of draws.csv): point, low, high, p."""
        rows = self.counts[(self.counts.protocol == a.protocol) & (self.counts.searches == 0)]
        people = rows[rows.fold.isin([int(k) for k in a.folds.split()])].identities
        draws = (self.values[a.Index], self.values[b.Index])
        return paired_difference(a.value, b.value, *draws, self.level, int((people - 1).sum()))


def by_cell(rows: pd.DataFrame) -> dict[tuple[str, ...], tuple]:
    """(model, folds, pairing, resolution, metric) -> its row of draws.csv."""
    return {(row.model, row.folds, *cell_of(row)): row for row in rows.itertuples()}


def lr_eer(rows: pd.DataFrame, protocol: str = DENSE) -> pd.DataFrame:
    """The equal error rates of a protocol, both faces at the resolution."""
    return rows[(rows.protocol == protocol) & (rows.metric == "eer") & (rows.pairing == "lr_lr")]


def marked(rows: pd.DataFrame, low: str = "low", high: str = "high") -> list[str]:
    """Differences in points, * where p after Holm's correction is significant. low, high: columns of the interval."""
    numbers = zip(rows["diff"], rows[low], rows[high], rows.p_holm, strict=True)
    return [per_cent(*difference, "+") + "*" * bool(p < formats.SIGNIFICANT) for *difference, p in numbers]


def results(study: Study, evaluation: Evaluation) -> tuple[pd.DataFrame, str]:
    """A row per (protocol, model, pairing, resolution, metric). Counts are summed over the model's folds.

    n_genuine and n_impostor are comparisons: of pairs, or, for rank1 and rank5, of probes with their mates and with the
    other people of the gallery. fta counts test photographs without a detected face; their fallback crops are in every
    number. sd_seed is the standard deviation over training seeds of the mean over folds, empty for a single seed.
    The page has a table for each metric and pairing; several protocols make a chapter each.
    """
    points = evaluation.points[evaluation.points.kind == "model"]
    by_seed = points.groupby([*ROW, "seed"]).value.mean().groupby(ROW)
    seeds = pd.DataFrame({"seeds": by_seed.size(), "sd_seed": by_seed.std()}).reset_index()
    table = evaluation.own().merge(seeds, on=ROW, how="left", validate="one_to_one")
    counts = evaluation.counts.set_index(["protocol", "searches", "fold"]).sort_index()
    totals = [
        counts.loc[(row.protocol, int(row.metric.startswith("rank")))].loc[[*map(int, row.folds.split())], COUNTS].sum()
        for row in table.itertuples()
    ]
    table = table.join(pd.DataFrame(totals).reset_index(drop=True)).assign(study=study.study, folds=table.n_folds)
    table = arranged(table, ["protocol", "metric", "pairing", "model", "resolution"])
    table = table[["study", *ROW, "value", "low", "high", "interval", "seeds", "sd_seed", *COUNTS, "folds"]]
    most, text = table.folds.max(), page(*TEXTS["results"], {})
    for protocol, own in table.groupby("protocol", sort=False):
        parts = {}
        for (metric, pairing), rows in own.groupby(["metric", "pairing"], sort=True):
            part, fewer = headline(rows, metric, pairing), rows[rows.folds < most].set_index("model").folds.to_dict()
            part["model"] = [f"{m} ({fewer[m]} of {most} folds)" if m in fewer else m for m in part.model]
            parts[f"{metric}, {pairing} ({rows.interval.iloc[0]})"] = part
        if len(own) < len(table):
            base, _, condition = protocol.partition("-")
            told = TEXTS["protocols"].get(base, TEXTS["protocols"]["further"]).format(protocol=base)
            told += f" {TEXTS['conditions'][condition]}" if condition else ""
            text += f"\n# Protocol `{protocol}`\n\n{told}\n"
        text += sections(parts)
    return table, text


def comparisons(study: Study, evaluation: Evaluation) -> tuple[pd.DataFrame, str]:
    """Differences a - b on the folds that both have, paired on the draws of people; `dense` under every condition.

    p is two-sided, from the draws. p_holm is corrected within a family: one question ("against scratch", "against the
    teacher", "against kd", "the five among each other") for one pairing, resolution and metric. A wider family would
    ask more than 2000 draws can answer (their smallest p is 0.001), and nobody asks all these questions at once.
    """
    found = []
    for protocol in evaluation.conditions():
        rows = evaluation.comparable(protocol).query("kind == 'model'")
        known, folds = by_cell(rows), {model: set(group.folds) for model, group in rows.groupby("model")}
        cells = sorted(set(rows[CELL].itertuples(index=False, name=None)), key=lambda c: (c[2], c[0], pixels(c[1])))
        for pairs, cell in product(families(order(rows.model)).values(), cells):
            family = []
            for a, b in pairs:
                common = max(folds[a] & folds[b], key=lambda name: len(name.split()))
                sides = [known.get((model, common, *cell)) for model in (a, b)]
                if None not in sides:  # not every model has every pairing
                    family.append((study.study, protocol, a, b, *cell, *evaluation.difference(*sides)))
            found += [(*row, p) for row, p in zip(family, holm([row[-1] for row in family]), strict=True)]
    table = pd.DataFrame(found, columns=["study", "protocol", "a", "b", *CELL, "diff", "low", "high", "p", "p_holm"])
    rows, five = table.assign(cell=marked(table)), table.a.isin(formats.FIVE) & table.b.isin(formats.FIVE)
    rows["reference"], rows["model"] = rows.b.where(~five, "each other"), rows.a.where(~five, rows.a + " - " + rows.b)
    parts = {}
    for protocol, own in rows.groupby("protocol", sort=False):
        under = "" if protocol == DENSE else f", protocol `{protocol}`"
        for key, group in own.groupby(["reference", "metric", "pairing"], sort=True):
            parts["Against {}: {}, {}".format(*key) + under] = wide(group, group.cell)
    return table, page(*TEXTS["comparisons"], parts)


def runs(study: Study, evaluation: Evaluation) -> tuple[pd.DataFrame, str]:
    """Every single measurement; the page shows the spread over folds of the equal error rate, both faces small."""
    table = evaluation.points[evaluation.points.kind == "model"].assign(study=study.study)
    table = table[["study", "protocol", "model", "pairing", "fold", "seed", "resolution", "metric", "value"]]
    rows = lr_eer(table)
    rows = arranged(
        rows.assign(run=[f"fold {row.fold}, seed {row.seed}" for row in rows.itertuples()]), ["model", "run"]
    )
    return table, page(*TEXTS["runs"], {"": wide(rows, (100 * rows.value).map("{:.1f}".format), ["model", "run"])})


def teacher(study: Study, evaluation: Evaluation) -> tuple[pd.DataFrame, str]:
    """The teacher's settings on held-out people; diff is to `pretrained`, paired, in `dense` only.

    The page names other protocols than `dense` beside the metric.
    """
    rows, columns = evaluation.own("setting"), ["diff", "diff_low", "diff_high", "p"]
    known = by_cell(rows[rows.protocol == DENSE])
    differences = {row.Index: evaluation.difference(row, known["pretrained", *key[1:]]) for key, row in known.items()}
    paired = pd.DataFrame.from_dict(differences, orient="index", columns=columns)
    table = rows.rename(columns={"model": "setting"}).assign(study=study.study).join(paired)
    table = table[["study", "protocol", "setting", *CELL, "value", "low", "high", "interval", *columns]]
    shown = []
    for row in table.sort_values(["metric", "resolution"], kind="stable").itertuples():
        metric = row.metric if row.protocol == DENSE else f"{row.metric} ({row.protocol})"
        difference = "" if pd.isna(row.diff) else per_cent(row.diff, row.diff_low, row.diff_high, "+")
        shown.append((metric, row.resolution, row.setting, per_cent(row.value, row.low, row.high), difference))
    part = pd.DataFrame(shown, columns=["metric", "resolution", "setting", "value", "minus pretrained"])
    note = f"\n{TEXTS['view2']}\n" if VIEW2 in set(table.protocol) else ""
    return table, page(*TEXTS["teacher"], {"": part}) + note


def gradients(study: Study, evaluation: Evaluation) -> tuple[pd.DataFrame, str]:
    """Each term's gradient norm relative to the face loss's, and what `lrfr.report.gradients` says of it."""
    table = averaged(study)
    return table, page(*TEXTS["gradients"], {"": shown(table, study.excused)})


def rescheduled(study: Study) -> dict[str, int]:
    """The trained arms that are a model with another schedule, <model>-<arm>, and their epochs."""
    recipes = {name: arm(study, study.variants[name]).recipe or {} for name in study.run_arms}
    return {name: int(recipe["epochs"]) for name, recipe in recipes.items() if "epochs" in recipe}


def ablation(study: Study, evaluation: Evaluation) -> tuple[pd.DataFrame, str]:
    """A row per (arm, pairing, resolution, metric) of protocol `dense`; diff is arm - method, paired.

    An arm leaves a part of its method out or replaces it: the difference says what the part is worth.
    """
    draws, found = evaluation.comparable(), []
    whole = by_cell(draws[draws.kind == "model"])
    for row in draws[(draws.kind == "arm") & ~draws.model.isin(list(rescheduled(study)))].itertuples():
        method, name = row.model.split("-")
        base = whole.get((method, row.folds, *cell_of(row)))
        if base is not None:  # not every pairing exists on both sides
            value = (row.value, row.low, row.high, *evaluation.difference(row, base))
            found.append((study.study, method, name, DENSE, *cell_of(row), *value))
    table = arranged(pd.DataFrame(found, columns=ABLATION), ["metric", "pairing", "method", "arm", "resolution"])
    title, text = TEXTS["ablation"]
    if table.empty:
        return table, page(title, f"{text}\n\n{TEXTS['no_arm']}", {})
    rows = lr_eer(table)
    cells = [per_cent(row.diff, row.diff_low, row.diff_high, "+") for row in rows.itertuples()]
    return table, page(title, text, {"": wide(rows, cells, ["method", "arm"])})


def degradations(study: Study, evaluation: Evaluation) -> tuple[pd.DataFrame, str]:
    """What conditions cost: a row per (condition, model, resolution) of the pairs of `dense`, both faces in it.

    diff is the equal error rate under the condition minus that under `area`, paired on the same draws of people. Arms
    are among the models: one that was trained on `area` alone says what training on cameras is worth.
    """
    draws, found = pd.concat([evaluation.own("model"), evaluation.own("arm")]), []
    clean = by_cell(lr_eer(draws))
    for protocol in evaluation.conditions()[1:]:
        for row in lr_eer(draws, protocol).itertuples():
            value = (
                row.value,
                row.low,
                row.high,
                *evaluation.difference(row, clean[row.model, row.folds, *cell_of(row)]),
            )
            found.append((study.study, protocol.partition("-")[2], row.model, row.resolution, *value))
    table = arranged(pd.DataFrame(found, columns=DEGRADED), ["condition", "model", "resolution"])
    title, text = TEXTS["degradations"]
    if table.empty:
        return table, page(title, f"{text}\n\n{TEXTS['no_condition']}", {})
    cells = [f"{per_cent(r.value, r.low, r.high)} ({100 * r.diff:+.1f})" for r in table.itertuples()]
    grouped = table.assign(cell=cells).groupby("condition", sort=False)
    return table, page(
        title, text, {f"`{name}`: {TEXTS['conditions'][name]}": wide(rows, rows.cell) for name, rows in grouped}
    )


def schedule(study: Study, evaluation: Evaluation) -> tuple[pd.DataFrame, str]:
    """Of protocol `dense` a row for each (arm, reference, pairing, resolution, metric), then `official`.

    An arm whose recipe names its own `epochs` changes no part: it is its model with another schedule. It is compared
    with the model as the study trains it, with the teacher, and with `scratch` under the same schedule: whatever helps
    a student without a teacher narrows what distillation is worth. diff is arm - reference, paired on the same draws of
    people; p_holm is corrected over the arms that answer one question, as in comparisons.csv. `official` compares
    nothing.
    """
    epochs, bases, found = rescheduled(study), by_cell(evaluation.comparable()), []
    draws = evaluation.draws[evaluation.draws.model.isin(list(epochs)) & ~evaluation.draws.metric.isin(NOT_COMPARED)]
    for row in draws[draws.protocol.isin([DENSE, OFFICIAL])].itertuples():
        model, name = row.model.split("-")
        value = (row.value, row.low, row.high, row.interval)
        head = (study.study, model, name, epochs[row.model], row.protocol, *cell_of(row), *value)
        if row.protocol == OFFICIAL:
            found.append((*head, "", *[np.nan] * 5))
            continue
        for other, against in ((model, "itself"), ("teacher", "teacher"), (f"scratch-{name}", f"scratch-{name}")):
            base = bases.get((other, row.folds, *cell_of(row)))
            if base is not None and other != row.model:  # not every pairing exists on both sides
                found.append((*head, against, *evaluation.difference(row, base), np.nan))
    table = pd.DataFrame(found, columns=SCHEDULE)
    family = table[table.against != ""].groupby(["arm", "against", *CELL]).p
    table.loc[table.against != "", "p_holm"] = family.transform(lambda p: holm(p.to_numpy()))
    table = arranged(table, ["protocol", "metric", "pairing", "against", "model", "arm", "resolution"])
    title, text = TEXTS["schedule"]
    if table.empty:
        return table, page(title, f"{text}\n\n{TEXTS['no_schedule']}", {})
    rows = table[table.pairing == "lr_lr"].assign(model=table.model + ", " + table.epochs.astype(str) + " epochs")
    rows["cell"] = [per_cent(row.value, row.low, row.high) for row in rows.itertuples()]
    dense, official = lr_eer(rows), rows[(rows.protocol == OFFICIAL) & (rows.metric == "accuracy")]
    itself = dense[dense.against == "itself"]
    parts = {"eer": wide(itself, itself.cell)}
    for against, part in dense.groupby("against", sort=True):
        heading = f"eer minus that of {against}{TEXTS['own_schedule'] if against == 'itself' else ''}"
        parts[heading] = wide(part, marked(part, "diff_low", "diff_high"))
    if len(official):
        parts["accuracy, protocol `official`"] = wide(official, official.cell)
    return table, page(title, text, parts)


def run(study: Study) -> None:
    """The `summary` stage: tables/<name>.csv and <name>.md of each function, and metrics.json.

    metrics.json holds equal error rates (lr_lr) of the teacher, the references and the five, by model and resolution.
    """
    evaluation = Evaluation.read(study)
    stories = (results, comparisons, runs, teacher, gradients, ablation, degradations, schedule)
    made = {story.__name__: story(study, evaluation) for story in stories}
    for name, table_and_text in made.items():  # other stages write there too, so this one owns files, not the folder
        write_table(study.reports / "tables", name, *table_and_text)
    rows, metrics = lr_eer(made["results"][0]), {}
    rows = rows[rows.resolution.isin(formats.HEADLINE) & rows.model.isin([*formats.REFERENCES, *formats.FIVE])]
    for row in rows.itertuples():
        metrics.setdefault(row.model, {})[f"eer_{row.resolution}"] = float(f"{row.value:.4g}")
    files.write_text(study.reports / "metrics.json", json.dumps(metrics, indent=2) + "\n")
