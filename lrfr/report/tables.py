"""The `summary` stage: the study's tidy tables, the same as Markdown for people, and the numbers of metrics.json.

A function makes each table, and another one what its page shows; titles and words of the pages are in
templates/tables.yaml.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from lrfr import formats
from lrfr.config import Study
from lrfr.evaluate.statistics import holm
from lrfr.files import atomic_file
from lrfr.formats import CELL, families, headline, order, page, per_cent, pixels, sections, wide, write_table
from lrfr.protocol.folds import DENSE, OFFICIAL, VIEW2
from lrfr.report.evaluation import NOT_COMPARED, Evaluation, arranged, by_cell, cell_of
from lrfr.train.trainings import arm

ROW = ["protocol", "model", *CELL]
COUNTS = ["n_genuine", "n_impostor", "identities", "fta"]
ABLATION = ["study", "method", "arm", "protocol", *CELL, "value", "low", "high", "diff", "diff_low", "diff_high", "p"]
DIFFERENCE = ["against", "diff", "diff_low", "diff_high", "p", "p_holm"]
SCHEDULE = ["study", "model", "arm", "epochs", "protocol", *CELL, "value", "low", "high", "interval", *DIFFERENCE]
TEXTS = yaml.safe_load((Path(__file__).parent / "templates" / "tables.yaml").read_text(encoding="utf-8"))


def marked(rows: pd.DataFrame, low: str = "low", high: str = "high") -> list[str]:
    """Differences in points, * where p after Holm's correction is significant. low, high: columns of the interval."""
    numbers = zip(rows["diff"], rows[low], rows[high], rows.p_holm, strict=True)
    return [per_cent(*difference, "+") + "*" * bool(p < formats.SIGNIFICANT) for *difference, p in numbers]


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
    totals = [
        counts.loc[(row.protocol, int(row.metric.startswith("rank")))].loc[[*map(int, row.folds.split())], COUNTS].sum()
        for row in table.itertuples()
    ]
    table = table.join(pd.DataFrame(totals).reset_index(drop=True)).assign(study=study.study, folds=table.n_folds)
    table = arranged(table, ["protocol", "metric", "pairing", "model", "resolution"])
    return table[["study", *ROW, "value", "low", "high", "interval", "seeds", "sd_seed", *COUNTS, "folds"]]


def results_page(results: pd.DataFrame) -> str:
    """A table for each metric and pairing; several protocols make a chapter each."""
    most, text = results.folds.max(), page(*TEXTS["results"], {})
    for protocol, own in results.groupby("protocol", sort=False):
        parts = {}
        for (metric, pairing), rows in own.groupby(["metric", "pairing"], sort=True):
            table = headline(rows, metric, pairing)
            fewer = rows[rows.folds < most].set_index("model").folds.to_dict()
            table["model"] = [f"{m} ({fewer[m]} of {most} folds)" if m in fewer else m for m in table.model]
            parts[f"{metric}, {pairing} ({rows.interval.iloc[0]})"] = table
        if len(own) < len(results):
            text += f"\n# Protocol `{protocol}`\n\n{TEXTS['protocols'][protocol]}\n"
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
    """A table of models by resolutions for each reference, metric and pairing."""
    rows = comparisons.assign(cell=marked(comparisons))
    five = rows.a.isin(formats.FIVE) & rows.b.isin(formats.FIVE)
    rows["reference"], rows["model"] = rows.b.where(~five, "each other"), rows.a.where(~five, rows.a + " - " + rows.b)
    grouped = rows.groupby(["reference", "metric", "pairing"], sort=True)
    parts = {"Against {}: {}, {}".format(*key): wide(group, group.cell) for key, group in grouped}
    return page(*TEXTS["comparisons"], parts)


def runs_table(study: Study, evaluation: Evaluation) -> pd.DataFrame:
    """runs.csv: every single measurement."""
    table = evaluation.points[evaluation.points.kind == "model"].assign(study=study.study)
    return table[["study", "protocol", "model", "pairing", "fold", "seed", "resolution", "metric", "value"]]


def runs_page(runs: pd.DataFrame) -> str:
    """The spread over folds of the equal error rate, low against low resolution."""
    rows = runs[(runs.protocol == DENSE) & (runs.metric == "eer") & (runs.pairing == "lr_lr")]
    rows = rows.assign(run="fold " + rows.fold.astype(str) + ", seed " + rows.seed.astype(str))
    rows = arranged(rows, ["model", "run"])
    return page(*TEXTS["runs"], {"": wide(rows, (100 * rows.value).map("{:.1f}".format), ["model", "run"])})


def teacher_table(study: Study, evaluation: Evaluation) -> pd.DataFrame:
    """teacher.csv: the teacher's settings on held-out people; diff is to `pretrained`, paired, in `dense` only."""
    rows, columns = evaluation.own("setting"), ["diff", "diff_low", "diff_high", "p"]
    known = by_cell(rows[rows.protocol == DENSE])
    differences = {row.Index: evaluation.difference(row, known["pretrained", *key[1:]]) for key, row in known.items()}
    paired = pd.DataFrame.from_dict(differences, orient="index", columns=columns)
    table = rows.rename(columns={"model": "setting"}).assign(study=study.study).join(paired)
    return table[["study", "protocol", "setting", *CELL, "value", "low", "high", "interval", *columns]]


def teacher_page(teacher: pd.DataFrame) -> str:
    """Protocols other than `dense` are named beside the metric and compared with nothing."""
    rows = []
    for row in teacher.sort_values(["metric", "resolution"], kind="stable").itertuples():
        metric = row.metric if row.protocol == DENSE else f"{row.metric} ({row.protocol})"
        difference = "" if pd.isna(row.diff) else per_cent(row.diff, row.diff_low, row.diff_high, "+")
        rows.append((metric, row.resolution, row.setting, per_cent(row.value, row.low, row.high), difference))
    table = pd.DataFrame(rows, columns=["metric", "resolution", "setting", "value", "minus pretrained"])
    note = f"\n{TEXTS['view2']}\n" if VIEW2 in set(teacher.protocol) else ""
    return page(*TEXTS["teacher"], {"": table}) + note


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
    """A row a model, term and stage."""
    keys = ["model", "term", "stage"]
    rows = gradients.drop_duplicates([*keys, "when"])
    cells = [f"{mean:.2f} [{low:.2f}, {high:.2f}]" for mean, low, high in rows[["mean", "min", "max"]].to_numpy()]
    table = wide(rows, cells, keys, "when")
    table = table.reindex(columns=[*keys, "start", "early", "end"], fill_value="")  # two epochs have no "early"
    return page(*TEXTS["gradients"], {"": table})


def rescheduled(study: Study) -> dict[str, int]:
    """The trained arms that are a model with another schedule, <model>-<arm>, and their epochs."""
    recipes = {name: arm(study, study.variants[name]).recipe or {} for name in study.run_arms}
    return {name: int(recipe["epochs"]) for name, recipe in recipes.items() if "epochs" in recipe}


def ablation_table(study: Study, evaluation: Evaluation) -> pd.DataFrame:
    """ablation.csv: a row per (arm, pairing, resolution, metric) of protocol `dense`; diff is arm - method, paired.

    An arm leaves a part of its method out or replaces it: the difference says what the part is worth.
    """
    draws, rows = evaluation.comparable(), []
    whole = by_cell(draws[draws.kind == "model"])
    for row in draws[(draws.kind == "arm") & ~draws.model.isin(list(rescheduled(study)))].itertuples():
        method, name = row.model.split("-")
        base = whole.get((method, row.folds, *cell_of(row)))
        if base is not None:  # not every pairing exists on both sides
            value = (row.value, row.low, row.high, *evaluation.difference(row, base))
            rows.append((study.study, method, name, DENSE, *cell_of(row), *value))
    return arranged(pd.DataFrame(rows, columns=ABLATION), ["metric", "pairing", "method", "arm", "resolution"])


def ablation_page(table: pd.DataFrame) -> str:
    """Differences of the equal error rate to the whole method, in per cent points."""
    title, text = TEXTS["ablation"]
    if table.empty:
        return page(title, f"{text}\n\n{TEXTS['no_arm']}", {})
    rows = table[(table.metric == "eer") & (table.pairing == "lr_lr")]
    cells = [per_cent(row.diff, row.diff_low, row.diff_high, "+") for row in rows.itertuples()]
    return page(title, text, {"": wide(rows, cells, ["method", "arm"])})


def schedule_table(study: Study, evaluation: Evaluation) -> pd.DataFrame:
    """schedule.csv: of protocol `dense` a row for each (arm, reference, pairing, resolution, metric), then `official`.

    An arm whose recipe names its own `epochs` changes no part: it is its model with another schedule. It is compared
    with the model as the study trains it, with the teacher, and with `scratch` under the same schedule: whatever helps
    a student without a teacher narrows what distillation is worth. diff is arm - reference, paired on the same draws of
    people; p_holm is corrected over the arms that answer one question, as in comparisons.csv. `official` compares
    nothing.
    """
    epochs, bases, table = rescheduled(study), by_cell(evaluation.comparable()), []
    draws = evaluation.draws[evaluation.draws.model.isin(list(epochs)) & ~evaluation.draws.metric.isin(NOT_COMPARED)]
    for row in draws[draws.protocol.isin([DENSE, OFFICIAL])].itertuples():
        model, name = row.model.split("-")
        value = (row.value, row.low, row.high, row.interval)
        head = (study.study, model, name, epochs[row.model], row.protocol, *cell_of(row), *value)
        if row.protocol == OFFICIAL:
            table.append((*head, "", *[np.nan] * 5))
            continue
        for other, against in ((model, "itself"), ("teacher", "teacher"), (f"scratch-{name}", f"scratch-{name}")):
            base = bases.get((other, row.folds, *cell_of(row)))
            if base is not None and other != row.model:  # not every pairing exists on both sides
                table.append((*head, against, *evaluation.difference(row, base), np.nan))
    found = pd.DataFrame(table, columns=SCHEDULE)
    family = found[found.against != ""].groupby(["arm", "against", *CELL]).p
    found.loc[found.against != "", "p_holm"] = family.transform(lambda p: holm(p.to_numpy()))
    return arranged(found, ["protocol", "metric", "pairing", "against", "model", "arm", "resolution"])


def schedule_page(table: pd.DataFrame) -> str:
    """Equal error rates, their differences, and the accuracy on the source's own pairs."""
    title, text = TEXTS["schedule"]
    if table.empty:
        return page(title, f"{text}\n\n{TEXTS['no_schedule']}", {})
    rows = table[table.pairing == "lr_lr"].assign(model=table.model + ", " + table.epochs.astype(str) + " epochs")
    dense, official = rows[(rows.protocol == DENSE) & (rows.metric == "eer")], rows[rows.protocol == OFFICIAL]

    def values(part: pd.DataFrame) -> pd.DataFrame:
        return wide(part, [per_cent(row.value, row.low, row.high) for row in part.itertuples()])

    parts = {"eer": values(dense[dense.against == "itself"])}
    for against, part in dense.groupby("against", sort=True):
        heading = f"eer minus that of {against}{TEXTS['own_schedule'] if against == 'itself' else ''}"
        parts[heading] = wide(part, marked(part, "diff_low", "diff_high"))
    if (accuracy := official[official.metric == "accuracy"]).size:
        parts["accuracy, protocol `official`"] = values(accuracy)
    return page(title, text, parts)


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
