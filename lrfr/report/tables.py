"""The `summary` stage: the study's tidy tables, the same as Markdown for people, and the few numbers of metrics.json.

Floats are written with six significant digits: more than any interval supports, few enough that the last bit of a sum on another
machine does not change the files.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd

from lrfr import formats as reading
from lrfr.config import Study
from lrfr.errors import UserError
from lrfr.evaluate.statistics import holm, paired_difference
from lrfr.files import atomic_file
from lrfr.formats import CELL, order, pixels
from lrfr.protocol.folds import DENSE, MISPLACED, OFFICIAL, VIEW2
from lrfr.report.ablation import ablation_page, ablation_table
from lrfr.report.schedule import schedule_page, schedule_table
from lrfr.report.table_pages import FIVE, comparisons_page, gradients_page, results_page, runs_page, teacher_page

PROTOCOLS = (DENSE, OFFICIAL, MISPLACED, VIEW2)  # in the order of the tables
DIGITS = "%.6g"
REFERENCES = (
    "scratch",
    "teacher",
    "kd",
)  # everything is compared with these, and the five papers' methods with each other
NOT_COMPARED = ("agreement",)  # describes a student, is no merit
HEADLINE = ("8", "16", "32", "hr")
ROW = ["protocol", "model", *CELL]


class Evaluation:
    """What the `evaluate` stage wrote: see lrfr.protocol.study."""

    def __init__(self, study: Study) -> None:
        folder = study.runs / "evaluation"
        text = {"resolution": str, "folds": str}
        try:
            self.draws = pd.read_csv(folder / "draws.csv", dtype=text)
            self.points = pd.read_csv(folder / "points.csv", dtype=text)
            self.counts = pd.read_csv(folder / "counts.csv")
            self.values = np.load(folder / "draws.npy")
        except FileNotFoundError as error:
            raise UserError(f"{error.filename}: not there; run `dvc repro` again.") from None

    def freedom(self, folds: str) -> int:
        """People minus strata, of the folds named as in draws.csv."""
        rows = self.counts[(self.counts.protocol == DENSE) & (self.counts.searches == 0)]
        return int((rows[rows.fold.isin([int(k) for k in folds.split()])].identities - 1).sum())

    def own(self, kind: str = "model") -> pd.DataFrame:
        """Rows of draws.csv in which each model is averaged over all its folds, under their numbers as rows of draws.npy."""
        rows = self.draws[self.draws.kind == kind].copy()
        rows["n_folds"] = rows.folds.str.split().str.len()
        return rows[rows.n_folds == rows.groupby(["protocol", "model"]).n_folds.transform("max")]


def results_table(study: Study, evaluation: Evaluation) -> pd.DataFrame:
    """results.csv: one row per (protocol, model, pairing, resolution, metric). Counts are summed over the model's folds.

    n_genuine and n_impostor are comparisons: of pairs, or, for rank1 and rank5, of probes with their mates and with the other
    people of the gallery. fta counts test photographs without a detected face; their fallback crops are in every number. sd_seed
    is the standard deviation over training seeds of the mean over folds, empty for a single seed.
    """
    points = evaluation.points[evaluation.points.kind == "model"]
    by_seed = points.groupby([*ROW, "seed"]).value.mean().groupby(ROW)
    seeds = pd.DataFrame({"seeds": by_seed.size(), "sd_seed": by_seed.std()}).reset_index()
    table = evaluation.own().merge(seeds, on=ROW, how="left", validate="one_to_one")
    counts = evaluation.counts.set_index(["protocol", "searches", "fold"]).sort_index()
    names = ["n_genuine", "n_impostor", "identities", "fta"]

    def totals(protocol: str, folds: str, metric: str) -> pd.Series:
        return counts.loc[(protocol, int(metric.startswith("rank")))].loc[[int(k) for k in folds.split()], names].sum()

    cells = table[["protocol", "folds", "metric"]].itertuples(index=False, name=None)
    chosen = pd.DataFrame([totals(*cell) for cell in cells]).reset_index(drop=True)
    table = table.reset_index(drop=True).join(chosen).assign(study=study.study, folds=table.n_folds.to_numpy())
    ranks = {name: k for k, name in enumerate(order(table.model))}
    keys = {"protocol": PROTOCOLS.index, "model": ranks.get, "resolution": pixels}
    table = table.sort_values(
        ["protocol", "metric", "pairing", "model", "resolution"], key=lambda c: c.map(keys.get(c.name, str))
    )
    head = ["study", *ROW, "value", "low", "high", "interval", "seeds", "sd_seed"]
    return table[[*head, *names, "folds"]].reset_index(drop=True)


def families(models: list[str]) -> dict[str, list[tuple[str, str]]]:
    """Pairs (a, b) by the question that they answer: everything against each reference, and the five among each other."""
    five = [m for m in FIVE if m in models]
    asked = {
        reference: [(m, reference) for m in models if m != reference] for reference in REFERENCES if reference in models
    }
    return {**asked, "five": [(a, b) for k, a in enumerate(five) for b in five[k + 1 :]]}


def comparisons_table(study: Study, evaluation: Evaluation) -> pd.DataFrame:
    """comparisons.csv: paired differences a - b on the folds that both have, on the same draws of people; protocol `dense`.

    p is two-sided, from the draws. p_holm is corrected within a family: one question ("against scratch", "against the
    teacher", "against kd", "the five among each other") for one pairing, resolution and metric. A wider family would ask
    more than 2000 draws can answer (their smallest p is 0.001), and nobody asks all these questions at once.
    """
    rows = evaluation.draws[(evaluation.draws.kind == "model") & (evaluation.draws.protocol == DENSE)]
    rows = rows[~rows.metric.isin(NOT_COMPARED)]
    value = {(r.model, r.folds, r.pairing, r.resolution, r.metric): (r.value, r.Index) for r in rows.itertuples()}
    folds = {model: set(group.folds) for model, group in rows.groupby("model")}
    out = []
    cells = sorted(set(rows[CELL].itertuples(index=False, name=None)), key=lambda c: (c[2], c[0], pixels(c[1])))
    for pairs in families(order(rows.model)).values():
        for cell in cells:
            family = []
            for a, b in pairs:
                common = max(folds[a] & folds[b], key=lambda name: len(name.split()))
                sides = [value.get((model, common, *cell)) for model in (a, b)]
                if None in sides:
                    continue  # not every model has every pairing
                (point_a, row_a), (point_b, row_b) = sides
                draws = (evaluation.values[row] for row in (row_a, row_b))
                result = paired_difference(point_a, point_b, *draws, study.evaluate.level, evaluation.freedom(common))
                family.append((study.study, DENSE, a, b, *cell, *result))
            out += [(*row, adjusted) for row, adjusted in zip(family, holm([row[-1] for row in family]), strict=True)]
    return pd.DataFrame(out, columns=["study", "protocol", "a", "b", *CELL, "diff", "low", "high", "p", "p_holm"])


def runs_table(study: Study, evaluation: Evaluation) -> pd.DataFrame:
    """runs.csv: every single measurement."""
    table = evaluation.points[evaluation.points.kind == "model"].assign(study=study.study)
    return table[["study", "protocol", "model", "pairing", "fold", "seed", "resolution", "metric", "value"]]


def teacher_table(study: Study, evaluation: Evaluation) -> pd.DataFrame:
    """teacher.csv: the teacher's settings on held-out people; diff is the paired difference to `pretrained`, in `dense` only."""
    rows = evaluation.own("setting")
    dense = rows[rows.protocol == DENSE]
    base = {tuple(row[name] for name in CELL): index for index, row in dense[dense.model == "pretrained"].iterrows()}
    differences = {}
    for index, row in dense.iterrows():
        reference = base[tuple(row[name] for name in CELL)]
        draws = (evaluation.values[i] for i in (index, reference))
        freedom = evaluation.freedom(row.folds)
        differences[index] = paired_difference(row.value, rows.value[reference], *draws, study.evaluate.level, freedom)
    columns = ["diff", "diff_low", "diff_high", "p"]
    paired = pd.DataFrame.from_dict(differences, orient="index", columns=columns)
    table = rows.rename(columns={"model": "setting"}).assign(study=study.study).join(paired)
    return table[["study", "protocol", "setting", *CELL, "value", "low", "high", "interval", *columns]]


def gradients_table(study: Study) -> pd.DataFrame:
    """gradients.csv: each term's gradient norm relative to the face loss's, over folds and the seeds of `train.seeds`.

    On the deepest stage that both reach.
    """
    frames = [
        pd.read_csv(study.reports / "students" / name / "gradients.csv").assign(model=name) for name in study.models
    ]
    rows = pd.concat([frame for frame in frames if len(frame)])
    by = ["model", "term", "when", "progress", "stage"]
    table = rows.groupby(by, sort=False).ratio.agg(["mean", "min", "max"]).reset_index()
    return table.assign(study=study.study)[["study", *by, "mean", "min", "max"]]


def headline(results: pd.DataFrame, metric: str = "eer", pairing: str = "lr_lr") -> pd.DataFrame:
    """Models by 8, 16, 32 px and hr, "11.2 [9.8, 12.9]" in per cent: the table on the README's first screen."""
    return reading.headline(results[(results.protocol == DENSE) & results.resolution.isin(HEADLINE)], metric, pairing)


def metrics(results: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Equal error rates (lr_lr) of the teacher, the references and the five, by model and resolution."""
    rows = results[(results.protocol == DENSE) & (results.metric == "eer") & (results.pairing == "lr_lr")]
    rows = rows[rows.resolution.isin(HEADLINE)]
    rows = rows[rows.model.isin([*REFERENCES, *FIVE])]
    out: dict[str, dict[str, float]] = {}
    for row in rows.itertuples():
        out.setdefault(row.model, {})[f"eer_{row.resolution}"] = float(f"{row.value:.4g}")
    return out


def write_table(folder: Path, name: str, table: pd.DataFrame, page: str) -> None:
    """One table as CSV and as Markdown, each replaced in one step."""
    with atomic_file(folder / f"{name}.csv") as file:
        table.to_csv(file, index=False, float_format=DIGITS, lineterminator="\n")
    with atomic_file(folder / f"{name}.md") as file:
        file.write_text(page, encoding="utf-8")


def run(study: Study) -> None:
    """The `summary` stage."""
    evaluation = Evaluation(study)
    results = results_table(study, evaluation)
    comparisons, runs = comparisons_table(study, evaluation), runs_table(study, evaluation)
    teacher, gradients = teacher_table(study, evaluation), gradients_table(study)
    freedom = {
        folds: evaluation.freedom(folds) for folds in evaluation.draws[evaluation.draws.kind == "arm"].folds.unique()
    }
    ablation = ablation_table(study, evaluation.draws, evaluation.values, freedom)
    schedule = schedule_table(study, evaluation.draws, evaluation.values, freedom)
    folder = study.reports / "tables"  # the benchmark writes there too, so the stage owns files, not the folder
    write_table(folder, "results", results, results_page(results))
    write_table(folder, "comparisons", comparisons, comparisons_page(comparisons))
    write_table(folder, "runs", runs, runs_page(runs))
    write_table(folder, "teacher", teacher, teacher_page(teacher))
    write_table(folder, "gradients", gradients, gradients_page(gradients))
    write_table(folder, "ablation", ablation, ablation_page(ablation))
    write_table(folder, "schedule", schedule, schedule_page(schedule))
    with atomic_file(study.reports / "metrics.json") as file:
        file.write_text(json.dumps(metrics(results), indent=2) + "\n", encoding="utf-8")
