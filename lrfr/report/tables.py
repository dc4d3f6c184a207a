"""The `summary` stage: the study's tidy tables, the same as Markdown for people, and the numbers of metrics.json."""

from __future__ import annotations

import json

import pandas as pd

from lrfr import formats
from lrfr.config import Study
from lrfr.evaluate.statistics import holm
from lrfr.files import atomic_file
from lrfr.formats import CELL, families, headline, order, page, per_cent, pixels, sections, wide, write_table
from lrfr.protocol.folds import DENSE, MISPLACED, OFFICIAL, VIEW2
from lrfr.report.ablation import ablation_page, ablation_table, marked, schedule_page, schedule_table
from lrfr.report.evaluation import Evaluation, arranged, by_cell

ROW = ["protocol", "model", *CELL]
COUNTS = ["n_genuine", "n_impostor", "identities", "fta"]
ABOUT = {
    DENSE: "Pairs of the test people's photographs, and searches among one photograph of each. Only here models are "
    "compared.",
    OFFICIAL: "The part of LFW's View 2 that the folds hold, each official fold at the threshold that is best on the "
    "other.",
    MISPLACED: "The pairs of `dense` if landmarks are misplaced at random.",
}
VIEW2_NOTE = (
    "`view2`: all pairs of LFW's View 2 at HR, ten-fold accuracy with exact thresholds, each face embedded once, found "
    "and aligned as in this study. The network's author states 99.13 % for one embedding a face, and 99.38 % for 100 "
    "jittered ones."
)


def results_table(study: Study, evaluation: Evaluation) -> pd.DataFrame:
    """results.csv: a row per (protocol, model, pairing, resolution, metric). Counts are summed over the model's folds.

    n_genuine and n_impostor are comparisons: of pairs, or, for rank1 and rank5, of probes with their mates and with the
    other people of the gallery. fta counts test photographs without a detected face; their fallback crops are in every
    number. sd_seed is the standard deviation over training seeds of the mean over folds, empty for a single seed.
    """
    points = evaluation.points[evaluation.points.kind == "model"]
    by_seed = points.groupby([*ROW, "seed"]).value.mean().groupby(ROW)
    seeds = pd.DataFrame({"seeds": by_seed.size(), "sd_seed": by_seed.std()}).reset_index()
    table = evaluation.own().merge(seeds, on=ROW, how="left", validate="one_to_one")
    counts = evaluation.counts.set_index(["protocol", "searches", "fold"]).sort_index()

    def totals(protocol: str, folds: str, metric: str) -> pd.Series:
        return counts.loc[(protocol, int(metric.startswith("rank")))].loc[[int(k) for k in folds.split()], COUNTS].sum()

    cells = table[["protocol", "folds", "metric"]].itertuples(index=False, name=None)
    table = table.join(pd.DataFrame([totals(*cell) for cell in cells]).reset_index(drop=True))
    table = arranged(
        table.assign(study=study.study, folds=table.n_folds), ["protocol", "metric", "pairing", "model", "resolution"]
    )
    return table[["study", *ROW, "value", "low", "high", "interval", "seeds", "sd_seed", *COUNTS, "folds"]]


def results_page(results: pd.DataFrame) -> str:
    """results.csv for people: a table for each metric and pairing; several protocols make a chapter each."""
    most, protocols = results.folds.max(), list(dict.fromkeys(results.protocol))
    text = page("Results", "Per cent, with intervals in brackets; means over folds and seeds.", {})
    for protocol in protocols:
        parts = {}
        for (metric, pairing), rows in results[results.protocol == protocol].groupby(["metric", "pairing"], sort=True):
            table = headline(rows, metric, pairing)
            fewer = rows[rows.folds < most].set_index("model").folds.to_dict()
            table["model"] = [f"{m} ({fewer[m]} of {most} folds)" if m in fewer else m for m in table.model]
            parts[f"{metric}, {pairing} ({rows.interval.iloc[0]})"] = table
        if len(protocols) > 1:
            text += f"\n# Protocol `{protocol}`\n\n{ABOUT[protocol]}\n"
        text += sections(parts)
    return text


def comparisons_table(study: Study, evaluation: Evaluation) -> pd.DataFrame:
    """comparisons.csv: differences a - b on the folds that both have, paired on the draws of people; protocol `dense`.

    p is two-sided, from the draws. p_holm is corrected within a family: one question ("against scratch", "against the
    teacher", "against kd", "the five among each other") for one pairing, resolution and metric. A wider family would
    ask more than 2000 draws can answer (their smallest p is 0.001), and nobody asks all these questions at once.
    """
    rows = evaluation.comparable()
    rows = rows[rows.kind == "model"]
    known, folds = by_cell(rows), {model: set(group.folds) for model, group in rows.groupby("model")}
    cells = sorted(set(rows[CELL].itertuples(index=False, name=None)), key=lambda c: (c[2], c[0], pixels(c[1])))
    table = []
    for pairs in families(order(rows.model)).values():
        for cell in cells:
            family = []
            for a, b in pairs:
                common = max(folds[a] & folds[b], key=lambda name: len(name.split()))
                sides = [known.get((model, common, *cell)) for model in (a, b)]
                if None not in sides:  # not every model has every pairing
                    family.append((study.study, DENSE, a, b, *cell, *evaluation.difference(*sides)))
            table += [(*row, p) for row, p in zip(family, holm([row[-1] for row in family]), strict=True)]
    return pd.DataFrame(table, columns=["study", "protocol", "a", "b", *CELL, "diff", "low", "high", "p", "p_holm"])


def comparisons_page(comparisons: pd.DataFrame) -> str:
    """comparisons.csv for people: a table of models by resolutions for each reference, metric and pairing."""
    rows = comparisons.assign(cell=marked(comparisons))
    five = rows.a.isin(formats.FIVE) & rows.b.isin(formats.FIVE)
    rows["reference"], rows["model"] = rows.b.where(~five, "each other"), rows.a.where(~five, rows.a + " - " + rows.b)
    parts = {}
    for (reference, metric, pairing), group in rows.groupby(["reference", "metric", "pairing"], sort=True):
        parts[f"Against {reference}: {metric}, {pairing}"] = wide(group, group.cell)
    lead = f"Per cent points, with intervals; * marks p < {formats.SIGNIFICANT} after Holm's correction."
    return page("Paired differences", lead, parts)


def runs_table(study: Study, evaluation: Evaluation) -> pd.DataFrame:
    """runs.csv: every single measurement."""
    table = evaluation.points[evaluation.points.kind == "model"].assign(study=study.study)
    return table[["study", "protocol", "model", "pairing", "fold", "seed", "resolution", "metric", "value"]]


def runs_page(runs: pd.DataFrame) -> str:
    """runs.csv for people: the spread over folds of the equal error rate, low against low resolution."""
    rows = runs[(runs.protocol == DENSE) & (runs.metric == "eer") & (runs.pairing == "lr_lr")]
    rows = rows.assign(run="fold " + rows.fold.astype(str) + ", seed " + rows.seed.astype(str))
    rows = arranged(rows, ["model", "run"])
    table = wide(rows, (100 * rows.value).map("{:.1f}".format), ["model", "run"])
    return page("Single runs", "Equal error rate in per cent, lr_lr.", {"": table})


def teacher_table(study: Study, evaluation: Evaluation) -> pd.DataFrame:
    """teacher.csv: the teacher's settings on held-out people; diff is to `pretrained`, paired, in `dense` only."""
    rows = evaluation.own("setting")
    dense = rows[rows.protocol == DENSE]
    known = by_cell(dense)
    columns = ["diff", "diff_low", "diff_high", "p"]
    differences = {row.Index: evaluation.difference(row, known["pretrained", *key[1:]]) for key, row in known.items()}
    paired = pd.DataFrame.from_dict(differences, orient="index", columns=columns)
    table = rows.rename(columns={"model": "setting"}).assign(study=study.study).join(paired)
    return table[["study", "protocol", "setting", *CELL, "value", "low", "high", "interval", *columns]]


def teacher_page(teacher: pd.DataFrame) -> str:
    """teacher.csv for people; protocols other than `dense` are named beside the metric and compared with nothing."""
    rows = []
    for row in teacher.sort_values(["metric", "resolution"], kind="stable").itertuples():
        metric = row.metric if row.protocol == DENSE else f"{row.metric} ({row.protocol})"
        difference = "" if pd.isna(row.diff) else per_cent(row.diff, row.diff_low, row.diff_high, "+")
        rows.append((metric, row.resolution, row.setting, per_cent(row.value, row.low, row.high), difference))
    table = pd.DataFrame(rows, columns=["metric", "resolution", "setting", "value", "minus pretrained"])
    note = f"\n{VIEW2_NOTE}\n" if VIEW2 in set(teacher.protocol) else ""
    return page("The teacher's settings", "Per cent, on held-out people.", {"": table}) + note


def gradients_table(study: Study) -> pd.DataFrame:
    """gradients.csv: each term's gradient norm relative to the face loss's, over folds and the seeds of `train.seeds`.

    On the deepest stage that both reach.
    """
    files = {name: study.reports / "students" / name / "gradients.csv" for name in study.models}
    frames = [pd.read_csv(file).assign(model=name) for name, file in files.items()]
    by = ["model", "term", "when", "progress", "stage"]
    grouped = pd.concat([frame for frame in frames if len(frame)]).groupby(by, sort=False)
    table = grouped.ratio.agg(["mean", "min", "max"]).reset_index()
    return table.assign(study=study.study)[["study", *by, "mean", "min", "max"]]


def gradients_page(gradients: pd.DataFrame) -> str:
    """gradients.csv for people."""
    keys = ["model", "term", "stage"]
    rows = gradients.drop_duplicates([*keys, "when"])
    cells = [f"{mean:.2f} [{low:.2f}, {high:.2f}]" for mean, low, high in rows[["mean", "min", "max"]].to_numpy()]
    table = wide(rows, cells, keys, "when")
    table = table.reindex(columns=[*keys, "start", "early", "end"], fill_value="")  # two epochs have no "early"
    text = (
        "Gradient norm of each weighted term over that of the face loss: mean [smallest, largest] over folds and the "
    )
    return page("Gradient ratios", text + "seeds of `train.seeds`.", {"": table})


def metrics(results: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Equal error rates (lr_lr) of the teacher, the references and the five, by model and resolution."""
    rows = results[(results.protocol == DENSE) & (results.metric == "eer") & (results.pairing == "lr_lr")]
    rows = rows[rows.resolution.isin(formats.HEADLINE) & rows.model.isin([*formats.REFERENCES, *formats.FIVE])]
    out: dict[str, dict[str, float]] = {}
    for row in rows.itertuples():
        out.setdefault(row.model, {})[f"eer_{row.resolution}"] = float(f"{row.value:.4g}")
    return out


def run(study: Study) -> None:
    """The `summary` stage."""
    evaluation = Evaluation.read(study)
    results = results_table(study, evaluation)
    tables = {
        "results": (results, results_page),
        "comparisons": (comparisons_table(study, evaluation), comparisons_page),
        "runs": (runs_table(study, evaluation), runs_page),
        "teacher": (teacher_table(study, evaluation), teacher_page),
        "gradients": (gradients_table(study), gradients_page),
        "ablation": (ablation_table(study, evaluation), ablation_page),
        "schedule": (schedule_table(study, evaluation), schedule_page),
    }
    for name, (table, text) in tables.items():  # other stages write there too, so this one owns files, not the folder
        write_table(study.reports / "tables", name, table, text(table))
    with atomic_file(study.reports / "metrics.json") as file:
        file.write_text(json.dumps(metrics(results), indent=2) + "\n", encoding="utf-8")
