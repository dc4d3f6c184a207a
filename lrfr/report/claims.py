"""The `claims` stage: what the five abstracts claim (claims.yaml), beside what this study measures.

`measured` comes from the study's tables, in their units: fractions for rates and their differences, milliseconds,
ratios. Sizes, seconds and accuracies of other networks on other photographs cannot be reproduced here; the most that a
row may say of them is that the mechanism shows in ours as well. No table of results reads this one: it reads seconds.
"""

import math
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import yaml

from lrfr import formats
from lrfr.config import Study
from lrfr.errors import UserError
from lrfr.protocol.folds import OFFICIAL
from lrfr.report.tables import TEXTS, lr_eer

CONFIRMED, NOT_COMPARABLE = "not comparable here; mechanism confirmed", "not comparable here"
TIE, BETTER, WORSE, NOT_TESTED = "tie", "better", "worse", "not tested"
RESOLUTION = "16"  # pixels, of the study's ranking and headline
COLUMNS = ["paper", "claim", "claimed", "measured", "low", "high", "verdict", "note"]
ALIKE = "Both share recipe, faces and size of student; the paper's networks, photographs and small faces are others."
CLAIMS = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))  # paper -> its claims
Found = tuple[float, float, float, str, str]  # measured, low, high, verdict, unit: points, %, M, x, ms; for the page
NOTHING: Found = (math.nan, math.nan, math.nan, NOT_TESTED, "")


def single(value: float, unit: str, confirmed: bool = False) -> Found:
    """A number without an interval."""
    return float(value), math.nan, math.nan, CONFIRMED if confirmed else NOT_COMPARABLE, unit


class Tables:
    """The study's tables that claims are held against."""

    def __init__(self, study: Study) -> None:
        folder, names = study.reports / "tables", ("results", "comparisons", "ablation", "cost", "schemes")
        try:
            frames = {name: formats.read_table(folder / f"{name}.csv") for name in names}
        except FileNotFoundError as error:
            raise UserError(f"{Path(error.filename).as_posix()}: not there; run `dvc repro` first.") from None
        arms = frames["ablation"]  # in the form of comparisons.csv: the method minus its arm; one question an arm, so
        turned = {"diff": -arms["diff"], "low": -arms.diff_high, "high": -arms.diff_low, "p_holm": arms.p}  # p as it is
        arms = arms.assign(a=arms.method, b=arms.method + "-" + arms.arm, **turned)
        self.comparisons, self.results = pd.concat([frames["comparisons"], arms]), frames["results"]
        self.cost, self.schemes = frames["cost"].set_index("model"), frames["schemes"]
        numbers = self.cost[["params", "latency_ms"]]
        self.times = numbers.loc["teacher"] / numbers  # the teacher's over the student's

    def difference(self, a: str, b: str, resolution: str = RESOLUTION) -> Found:
        """EER of a minus that of b (a model, or an arm of a)."""
        rows = lr_eer(self.comparisons).query("a == @a and b == @b and resolution == @resolution")
        for row in rows.dropna(subset=["diff", "low", "high"]).itertuples():
            shown = row.p_holm < formats.SIGNIFICANT and (row.high < 0 or row.low > 0)
            return row.diff, row.low, row.high, TIE if not shown else BETTER if row.diff < 0 else WORSE, "points"
        return NOTHING

    def accuracy(self, paper: str, resolution: str, mechanism: bool = False) -> Found:
        """On the source's own pairs, if it has some. The mechanism: distillation lowers the EER."""
        rows = self.results[(self.results.protocol == OFFICIAL) & (self.results.metric == "accuracy")]
        confirmed = mechanism and self.difference(paper, "scratch", resolution)[3] == BETTER
        for row in rows.query("pairing == 'lr_lr' and model == @paper and resolution == @resolution").itertuples():
            return row.value, row.low, row.high, CONFIRMED if confirmed else NOT_COMPARABLE, "%"
        return NOTHING

    def measured(self, paper: str, claim: dict) -> Found:
        """What the study says to a claim, by its `measure`."""
        mechanism, times = claim.get("mechanism", False), self.times
        return {
            None: lambda: NOTHING,
            "difference": lambda: self.difference(paper, claim["against"]),
            "accuracy": lambda: self.accuracy(paper, claim["resolution"], mechanism),
            "speedup": lambda: single(claim["speedup"], "x", claim["speedup"] > 1) if "speedup" in claim else NOTHING,
            "size": lambda: single(self.cost.params[paper] / 1e6, "M"),
            "smaller": lambda: single(times.params[paper], "x"),
            "faster": lambda: single(times.latency_ms[paper], "x", times.latency_ms[paper] > 1),
            "latency": lambda: single(self.cost.latency_ms[paper], "ms", mechanism and times.latency_ms[paper] > 1),
        }[claim.get("measure")]()


def asked(tables: Tables, paper: str) -> Iterator[dict]:
    """The claims of a paper, one a row of the table."""
    schemes = tables.schemes
    tuned = "teacher_epochs" in schemes and schemes.teacher_epochs.iloc[0] > 0
    for claim in CLAIMS[paper]:
        if claim.get("measure") == "difference":
            for name in claim["against"]:
                words = f"{claim['claim']} (EER at {RESOLUTION} px, minus {name})"
                missing = f"This study holds no comparison of {paper} with {name}."
                yield claim | {"claim": words, "against": name, "note": ALIKE, "otherwise": missing}
        elif claim.get("measure") == "speedup" and tuned:  # a row for each scheme that tunes no teacher
            for row in schemes[1:].itertuples():
                yield claim | {"claim": f"{claim['claim']} ({row.scheme})", "speedup": row.speedup}
        else:
            yield claim


def shown(row) -> str:
    """`measured` and its interval for people."""
    if math.isnan(row.measured):
        return ""
    if row.unit in ("points", "%"):
        return f"{formats.per_cent(row.measured, row.low, row.high, '+' if row.unit == 'points' else '')} {row.unit}"
    return f"{row.measured:.3g}{row.unit}" if row.unit == "x" else f"{row.measured:.3g} {row.unit}"


def run(study: Study) -> None:
    """The `claims` stage: tables/claims.csv and claims.md; of a paper whose method the study does not train, one row.

    UserError if a table that it reads has not been made.
    """
    rows, tables = [], Tables(study)
    for paper, known in CLAIMS.items():
        trained = paper in study.models and paper in tables.cost.index
        unknown = known[0] | {"measure": None, "otherwise": "This study does not train the method."}
        for claim in asked(tables, paper) if trained else [unknown]:
            *numbers, unit = tables.measured(paper, claim)
            note = claim["otherwise" if numbers[3] == NOT_TESTED else "note"]
            rows.append((paper, claim["claim"], claim.get("claimed", "in words, no number"), *numbers, note, unit))
    table = pd.DataFrame(rows, columns=[*COLUMNS, "unit"])
    page = table.assign(measured=[shown(row) for row in table.itertuples()]).drop(columns=["low", "high", "unit"])
    formats.write_table(study.reports / "tables", "claims", table[COLUMNS], formats.page(*TEXTS["claims"], {"": page}))
