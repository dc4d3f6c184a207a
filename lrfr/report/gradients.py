"""How strongly every term pulls: the table `gradients`, and the rule by which a weight is judged.

A term whose gradient is nowhere a twentieth of the face loss's is not part of what was trained, and leaving it out is
no ablation; one that is five times as strong leaves the face loss nothing to say. Both bounds are our choice; weights
aim at 0.3 to 3 after the warm-up.
"""

from collections.abc import Mapping

import pandas as pd

from lrfr.config import Study
from lrfr.formats import wide

DEAD, DROWNING = 0.05, 5.0  # of the largest ratio over stages, "early" and at the "end"
KEYS = ["model", "term"]


def verdicts(table: pd.DataFrame) -> dict[tuple[str, str], str]:
    """(model, term) -> "dead", "drowning" or "heard", of rows of gradients.csv."""
    largest = table[table.when.isin(["early", "end"])].groupby(KEYS, sort=False)["mean"].max()
    return {key: "dead" if r < DEAD else "drowning" if r > DROWNING else "heard" for key, r in largest.items()}


def breaches(table: pd.DataFrame, excused: Mapping[str, str]) -> dict[str, str]:
    """What a study must not be committed with: "model.term" -> verdict, of terms that break the rule unexcused.

    >>> rows = [("kd", "kd", "end", 9.0), ("hkdd", "hfd", "end", 0.01), ("hkdd", "dkd", "end", 1.0)]
    >>> table = pd.DataFrame(rows, columns=["model", "term", "when", "mean"])
    >>> breaches(table, {"hkdd.hfd": "an ablation of it asks just that"})
    {'kd.kd': 'drowning'}
    """
    named = {".".join(key): word for key, word in verdicts(table).items()}
    return {name: word for name, word in named.items() if word != "heard" and name not in excused}


def averaged(study: Study) -> pd.DataFrame:
    """The students' gradients.csv as one table: means over folds and the seeds of `train.seeds`, a row a stage."""
    folder = study.reports / "students"
    frames = [pd.read_csv(folder / name / "gradients.csv").assign(model=name) for name in study.models]
    by = ["model", "term", "when", "progress", "stage"]
    grouped = pd.concat([frame for frame in frames if len(frame)]).groupby(by, sort=False)
    table = grouped.ratio.agg(["mean", "min", "max"]).reset_index()
    return table.assign(study=study.study)[["study", *by, "mean", "min", "max"]]


def shown(table: pd.DataFrame, excused: Mapping[str, str]) -> pd.DataFrame:
    """The table for people: a row a model, term and stage, with the verdict on the term."""
    keys, judged = [*KEYS, "stage"], verdicts(table)
    rows = table.drop_duplicates([*keys, "when"])
    cells = [f"{mean:.2f} [{low:.2f}, {high:.2f}]" for mean, low, high in rows[["mean", "min", "max"]].to_numpy()]
    part = wide(rows, cells, keys, "when")
    part = part.reindex(columns=[*keys, "start", "early", "end"], fill_value="")  # two epochs have no "early"
    reasons = {key: f" ({excused[name]})" for key in judged if (name := ".".join(key)) in excused}
    rows = part[KEYS].itertuples(index=False, name=None)
    return part.assign(verdict=[judged.get(key, "") + reasons.get(key, "") for key in rows])
