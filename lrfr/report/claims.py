"""The `claims` stage: what the five abstracts claim (claims.yaml), beside what this study measures.

`measured` comes from the study's tables, in their units: fractions for rates and their differences, milliseconds,
ratios. Sizes, seconds and accuracies of other networks on other photographs cannot be reproduced here; the most that a
row may say of them is that the mechanism shows in ours as well. Since it reads what was measured in seconds, no table
of results reads it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import yaml

from lrfr import formats
from lrfr.config import Study
from lrfr.errors import UserError
from lrfr.protocol.folds import DENSE, OFFICIAL

CONFIRMED, NOT_COMPARABLE = "not comparable here; mechanism confirmed", "not comparable here"
TIE, BETTER, WORSE, NOT_TESTED = "tie", "better", "worse", "not tested"
VERDICTS = (CONFIRMED, NOT_COMPARABLE, TIE, BETTER, WORSE, NOT_TESTED)
RESOLUTION = "16"  # pixels, of the study's ranking and headline
COLUMNS = ["paper", "claim", "claimed", "measured", "low", "high", "verdict", "note"]
ALIKE = "Both share recipe, faces and size of student; the paper's networks, photographs and small faces are others."
CLAIMS = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))  # paper -> its claims
Found = tuple[
    float, float, float, str, str
]  # measured, low, high, verdict, unit (points, %, M, x, ms; for the page alone)


class Tables:
    """The study's tables that claims are held against."""

    def __init__(self, study: Study) -> None:
        frames = {}
        for name in ("results", "comparisons", "ablation", "cost", "schemes"):
            path = study.reports / "tables" / f"{name}.csv"
            if not path.is_file():
                raise UserError(f"{path.as_posix()}: not there; run `dvc repro` first.")
            frames[name] = formats.read_table(path)
        arms = frames["ablation"]  # in the form of comparisons.csv: the method minus its arm; one question an arm, so
        turned = {"diff": -arms["diff"], "low": -arms.diff_high, "high": -arms.diff_low, "p_holm": arms.p}  # p as it is
        arms = arms.assign(a=arms.method, b=arms.method + "-" + arms.arm, **turned)
        self.comparisons, self.results = pd.concat([frames["comparisons"], arms]), frames["results"]
        self.cost, self.schemes = frames["cost"].set_index("model"), frames["schemes"]

    def difference(self, a: str, b: str, resolution: str) -> Found | None:
        """EER of a minus that of b (a model, or an arm of a); None where the two have not been compared."""
        table = self.comparisons
        cell = (table.protocol == DENSE) & (table.pairing == "lr_lr") & (table.resolution == resolution)
        rows = table[cell & (table.metric == "eer") & (table.a == a) & (table.b == b)]
        for row in rows.dropna(subset=["diff", "low", "high"]).itertuples():
            shown = row.p_holm < formats.SIGNIFICANT and (row.high < 0 or row.low > 0)
            return row.diff, row.low, row.high, TIE if not shown else BETTER if row.diff < 0 else WORSE, "points"
        return None


def single(value: float, unit: str, confirmed: bool = False) -> Found:
    """A number without an interval."""
    return float(value), math.nan, math.nan, CONFIRMED if confirmed else NOT_COMPARABLE, unit


def accuracy(tables: Tables, paper: str, claim: dict) -> Found | None:
    """On the source's own pairs; None for a source that has none. The mechanism: distillation lowers the EER."""
    table, resolution = tables.results, claim["resolution"]
    cell = (table.protocol == OFFICIAL) & (table.pairing == "lr_lr") & (table.metric == "accuracy")
    gain = tables.difference(paper, "scratch", resolution)
    confirmed = claim.get("mechanism", False) and gain is not None and gain[3] == BETTER
    for row in table[cell & (table.model == paper) & (table.resolution == resolution)].itertuples():
        return row.value, row.low, row.high, CONFIRMED if confirmed else NOT_COMPARABLE, "%"
    return None


def latency(tables: Tables, paper: str, claim: dict) -> Found:
    """One face. The mechanism: the student is faster than the teacher."""
    own, teacher = (tables.cost.latency_ms[name] for name in (paper, "teacher"))
    return single(own, "ms", claim.get("mechanism", False) and teacher > own)


def faster(tables: Tables, paper: str, claim: dict) -> Found:
    """The teacher's latency over the student's."""
    ratio = tables.cost.latency_ms["teacher"] / tables.cost.latency_ms[paper]
    return single(ratio, "x", ratio > 1)


MEASURES: dict[str, Callable[[Tables, str, dict], Found | None]] = {
    "difference": lambda tables, paper, claim: tables.difference(paper, claim["against"], RESOLUTION),
    "speedup": lambda tables, paper, claim: single(claim["speedup"], "x", claim["speedup"] > 1),
    "size": lambda tables, paper, claim: single(tables.cost.params[paper] / 1e6, "M"),
    "smaller": lambda tables, paper, claim: single(tables.cost.params["teacher"] / tables.cost.params[paper], "x"),
    "accuracy": accuracy,
    "latency": latency,
    "faster": faster,
}


def asked(tables: Tables, paper: str) -> Iterator[dict]:
    """The claims of a paper, one a row of the table."""
    for claim in CLAIMS[paper]:
        if claim.get("measure") == "difference":
            for name in claim["against"]:
                words = f"{claim['claim']} (EER at {RESOLUTION} px, minus {name})"
                missing = f"This study holds no comparison of {paper} with {name}."
                yield claim | {"claim": words, "against": name, "note": ALIKE, "otherwise": missing}
        elif claim.get("measure") == "speedup":  # a row for each scheme that tunes no teacher
            schemes = tables.schemes
            tuned = "teacher_epochs" in schemes and schemes.teacher_epochs.iloc[0] > 0
            for row in schemes[1:].itertuples() if tuned else ():
                yield claim | {"claim": f"{claim['claim']} ({row.scheme})", "speedup": row.speedup}
            yield from () if tuned else [claim | {"measure": None}]
        else:
            yield claim


def claims(study: Study, tables: Tables) -> pd.DataFrame:
    """claims.csv with the column `unit`: all rows, by paper; of a paper whose method the study does not train, one."""
    rows = []
    for paper, known in CLAIMS.items():
        trained = paper in study.models and paper in tables.cost.index
        unknown = known[0] | {"measure": None, "otherwise": "This study does not train the method."}
        for claim in asked(tables, paper) if trained else [unknown]:
            found = MEASURES[claim["measure"]](tables, paper, claim) if claim.get("measure") else None
            numbers = found or (math.nan, math.nan, math.nan, NOT_TESTED, "")
            claimed, note = claim.get("claimed", "in words, no number"), claim["note" if found else "otherwise"]
            rows.append((paper, claim["claim"], claimed, *numbers[:4], note, numbers[4]))
    return pd.DataFrame(rows, columns=[*COLUMNS, "unit"])


def figure(row) -> str:
    """`measured` and its interval for people."""
    if math.isnan(row.measured):
        return ""
    if row.unit in ("points", "%"):
        return f"{formats.per_cent(row.measured, row.low, row.high, '+' if row.unit == 'points' else '')} {row.unit}"
    return f"{row.measured:.3g}{row.unit}" if row.unit == "x" else f"{row.measured:.3g} {row.unit}"


def page(table: pd.DataFrame) -> str:
    """claims.csv for people."""
    shown = table.assign(measured=[figure(row) for row in table.itertuples()]).drop(columns=["low", "high", "unit"])
    text = (
        f"Intervals in brackets. *Better* and *worse*: a difference of p < {formats.SIGNIFICANT} after Holm's "
        "correction, with an interval without zero\n(a row about an arm is one question, so nothing is corrected "
        "there). *Tie*: no such difference shown. No row is a\nreproduction: the papers' full texts, networks and "
        "photographs were not at hand."
    )
    return formats.page("The five abstracts' claims, beside what this study measures", text, {"": shown})


def run(study: Study) -> None:
    """The `claims` stage: tables/claims.csv and claims.md. UserError if a table that it reads has not been made."""
    table = claims(study, Tables(study))
    formats.write_table(study.reports / "tables", "claims", table[COLUMNS], page(table))
