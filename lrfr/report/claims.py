"""The `claims` stage: what the five abstracts claim, beside what this study measures.

Only what an abstract says is called a paper's claim. `measured` comes from the study's tables, in their units: fractions for
rates and their differences, milliseconds, ratios. Sizes, seconds and accuracies of other networks on other photographs cannot be
reproduced here; the most that a row may say of them is that the mechanism shows in ours as well. Since it reads what was measured
in seconds, no table of results reads it.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import pandas as pd

from lrfr.config import Study
from lrfr.errors import UserError
from lrfr.formats import SIGNIFICANT, markdown, read_table
from lrfr.protocol.folds import DENSE, OFFICIAL
from lrfr.report.table_pages import per_cent
from lrfr.report.tables import write_table

CONFIRMED, NOT_COMPARABLE = "not comparable here; mechanism confirmed", "not comparable here"
TIE, BETTER, WORSE, NOT_TESTED = "tie", "better", "worse", "not tested"
VERDICTS = (CONFIRMED, NOT_COMPARABLE, TIE, BETTER, WORSE, NOT_TESTED)
RESOLUTION = "16"  # pixels, of the study's ranking and headline
COLUMNS = ["paper", "claim", "claimed", "measured", "low", "high", "verdict", "note"]
NONE = (math.nan, math.nan, math.nan)
WORDS = "in words, no number"
HELPS = {  # paper -> (its claim of accuracy, as far as its abstract is known to us; what is claimed)
    "hkdd": ("superior recognition rate", WORDS),
    "se_dfd": ("a large teacher guides a small student by its deep features", WORDS),
    "mkmmd": ("accuracy at the same level as other methods", "same level"),
    "icd_face": ("feature and similarity consistency hand down what the teacher knows", WORDS),
    "acs_review": ("attention maps, reviewed across stages, guide the student", WORDS),
}
ARMS = {  # paper -> (what its abstract says of one part, the arm without that part)
    "hkdd": ("a split softmax loss no longer suppresses the other classes", "kd_instead"),
    "se_dfd": ("squeeze-and-excitation in both networks lifts accuracy", "no_se"),
    "mkmmd": ("a penalty on the distance between the outputs' distributions", "no_mmd"),
    "icd_face": ("feature consistency alone leaves faces of a person too far apart", "no_sdc"),
    "acs_review": ("attention is handed down through a review path", "no_review"),
}
ALIKE = "Both share recipe, faces and size of student; the paper's networks, photographs and small faces are others."
NO_SET = "This table reads no benchmark set; one that you bring has tables of its own."
UNLIKE = "The paper's network and processor are unknown to us, and its student is not ours."


class Claim(NamedTuple):
    """One row of claims.csv; `unit` (points, %, M, x, ms) is for the page alone."""

    paper: str
    claim: str
    claimed: str
    measured: float
    low: float
    high: float
    verdict: str
    note: str
    unit: str


def untested(paper: str, claim: str, claimed: str, note: str) -> Claim:
    return Claim(paper, claim, claimed, *NONE, NOT_TESTED, note, "")


class Tables:
    """The study's tables that claims are held against."""

    def __init__(self, study: Study) -> None:
        """Read them.

        Raises
        ------
        UserError
            if one of them has not been made.
        """
        frames = {}
        for name in ("results", "comparisons", "ablation", "cost", "schemes"):
            path = study.reports / "tables" / f"{name}.csv"
            if not path.is_file():
                raise UserError(f"{path.as_posix()}: not there; run `dvc repro` first.")
            frames[name] = read_table(path)
        self.results, self.comparisons, self.schemes = (frames[name] for name in ("results", "comparisons", "schemes"))
        self.cost, self.ablation = frames["cost"].set_index("model"), frames["ablation"]

    def difference(self, a: str, b: str, resolution: str) -> tuple[float, float, float, str] | None:
        """EER of a minus that of b, its interval and what it says; None where the two have not been compared."""
        table = self.comparisons if "-" not in b else self.without(a, b)
        cell = (table.protocol == DENSE) & (table.pairing == "lr_lr") & (table.resolution == resolution)
        rows = table[cell & (table.metric == "eer") & (table.a == a) & (table.b == b)].dropna(
            subset=["diff", "low", "high"]
        )
        if rows.empty:
            return None
        row = rows.iloc[0]
        shown = row.p_holm < SIGNIFICANT and (row.high < 0 or row.low > 0)
        verdict = TIE if not shown else BETTER if row["diff"] < 0 else WORSE
        return float(row["diff"]), float(row.low), float(row.high), verdict

    def without(self, method: str, arm: str) -> pd.DataFrame:
        """ablation.csv's rows of one arm, <method>-<arm>, in the form of comparisons.csv: the method minus its arm."""
        rows = self.ablation[(self.ablation.method == method) & (self.ablation.arm == arm.removeprefix(f"{method}-"))]
        turned = {"diff": -rows["diff"], "low": -rows.diff_high, "high": -rows.diff_low}
        return rows.assign(a=method, b=arm, **turned, p_holm=rows.p)  # one question an arm: nothing to correct for

    def official(self, model: str, resolution: str) -> tuple[float, float, float] | None:
        """Accuracy on the source's own pairs, with its interval; None for a source that has none."""
        table = self.results
        cell = (table.protocol == OFFICIAL) & (table.pairing == "lr_lr") & (table.metric == "accuracy")
        rows = table[cell & (table.model == model) & (table.resolution == resolution)]
        return None if rows.empty else tuple(float(rows.iloc[0][name]) for name in ("value", "low", "high"))


def against(tables: Tables, paper: str, claim: str, claimed: str, reference: str) -> Claim:
    """The row about one paired difference."""
    claim = f"{claim} (EER at {RESOLUTION} px, minus {reference})"
    found = tables.difference(paper, reference, RESOLUTION)
    if found is None:
        return untested(paper, claim, claimed, f"This study holds no comparison of {paper} with {reference}.")
    return Claim(paper, claim, claimed, *found, ALIKE, "points")


def shown(larger: float, smaller: float) -> str:
    return CONFIRMED if larger > smaller else NOT_COMPARABLE


def size_claims(tables: Tables, paper: str = "se_dfd") -> list[Claim]:
    """A size, a ratio of sizes and an accuracy on LFW."""
    student, teacher = (float(tables.cost.params[name]) for name in (paper, "teacher"))
    choice = "A network's size is chosen, here as in the paper, and whether its figure counts parameters or bytes is unclear."
    ratio = "A network's size is chosen, here as in the paper, so the ratio describes two networks and tests nothing."
    rows = [
        Claim(
            paper, "small student (million parameters)", "3.22 M", student / 1e6, *NONE[1:], NOT_COMPARABLE, choice, "M"
        ),
        Claim(
            paper,
            "student 4 times smaller (parameters)",
            "4x",
            teacher / student,
            *NONE[1:],
            NOT_COMPARABLE,
            ratio,
            "x",
        ),
    ]
    claim, accuracy = "accuracy on LFW (official pairs, high resolution)", tables.official(paper, "hr")
    if accuracy is None:
        return [*rows, untested(paper, claim, "99.66 %", "This study does not read the official pairs of LFW.")]
    gain = tables.difference(paper, "scratch", "hr")
    verdict = CONFIRMED if gain is not None and gain[3] == BETTER else NOT_COMPARABLE
    note = "Another network, trained on other faces; the mechanism counts as confirmed if distillation lowers its EER at hr."
    return [*rows, Claim(paper, claim, "99.66 %", *accuracy, verdict, note, "%")]


def speed_claims(tables: Tables, paper: str = "mkmmd") -> list[Claim]:
    """Training and inference in time, and accuracy on two sets."""
    rows, schemes = [], tables.schemes
    tuned = "teacher_epochs" in schemes and schemes.teacher_epochs.iloc[0] > 0
    for name, speedup in zip(schemes.scheme[1:], schemes.speedup[1:], strict=True) if tuned else ():
        note = "Networks, data and the number of epochs for tuning a teacher are ours, and the factor hangs on that number."
        claim = f"faster training than with a tuned teacher ({name})"
        rows.append(Claim(paper, claim, "about 5x", float(speedup), *NONE[1:], shown(speedup, 1), note, "x"))
    if not tuned:
        why = "No model of this study tunes its teacher on small faces, so there is nothing to be faster than."
        rows.append(untested(paper, "faster training than with a tuned teacher", "about 5x", why))
    own, teacher = (float(tables.cost.latency_ms[name]) for name in (paper, "teacher"))
    claim = "faster inference than the teacher (latency, one face)"
    rows.append(Claim(paper, claim, "3x", teacher / own, *NONE[1:], shown(teacher, own), UNLIKE, "x"))
    rows.append(Claim(paper, "latency on a CPU (one face)", "35 ms", own, *NONE[1:], NOT_COMPARABLE, UNLIKE, "ms"))
    claim, accuracy = f"accuracy on LFW (official pairs, {RESOLUTION} px)", tables.official(paper, RESOLUTION)
    if accuracy is None:
        rows.append(untested(paper, claim, "same level", "This study does not read the official pairs of LFW."))
    else:
        note = "The paper's small faces, and the methods that it compares with, are not known to us."
        rows.append(Claim(paper, claim, "same level", *accuracy, NOT_COMPARABLE, note, "%"))
    return [*rows, untested(paper, "accuracy on SCface", "same level", f"{NO_SET} SCface asks for a signed form.")]


def claims(study: Study, tables: Tables) -> list[Claim]:
    """All rows, by paper; of a paper whose method the study does not train, one that says so."""
    rows = []
    for paper, (claim, claimed) in HELPS.items():
        if paper not in study.models or paper not in tables.cost.index:
            rows.append(untested(paper, claim, claimed, "This study does not train the method."))
            continue
        rows += [against(tables, paper, claim, claimed, reference) for reference in ("scratch", "kd")]
        rows.append(against(tables, paper, ARMS[paper][0], WORDS, f"{paper}-{ARMS[paper][1]}"))
        if paper == "hkdd":
            native = f"{NO_SET} Photographs made small by software say little about native ones."
            rows.append(untested(paper, "superior recognition rate on TinyFace and QMUL-SurvFace", WORDS, native))
            own, teacher = (float(tables.cost.latency_ms[name]) for name in (paper, "teacher"))
            note = f"{UNLIKE[:-1]}; the mechanism counts as confirmed if the student is faster than the teacher."
            claim = "real-time performance (latency, one face)"
            rows.append(Claim(paper, claim, WORDS, own, *NONE[1:], shown(teacher, own), note, "ms"))
        rows += {"se_dfd": size_claims, "mkmmd": speed_claims}.get(paper, lambda tables: [])(tables)
    return rows


def figure(row: Claim) -> str:
    """`measured` and its interval for people."""
    if math.isnan(row.measured):
        return ""
    if row.unit in ("points", "%"):
        text = per_cent(row.measured, row.low, row.high, "+" if row.unit == "points" else "")
        return text + (" points" if row.unit == "points" else " %")
    return f"{row.measured:.3g}{row.unit}" if row.unit == "x" else f"{row.measured:.3g} {row.unit}"


def page(rows: list[Claim]) -> str:
    """claims.csv for people."""
    cells = [(r.paper, r.claim, r.claimed, figure(r), r.verdict, r.note) for r in rows]
    table = pd.DataFrame(cells, columns=["paper", "claim", "claimed", "measured", "verdict", "note"])
    text = "# The five abstracts' claims, beside what this study measures\n\n"
    text += f"Intervals in brackets. *Better* and *worse*: a difference of p < {SIGNIFICANT} after Holm's correction, with an "
    text += "interval without zero\n(a row about an arm is one question, so nothing is corrected there). *Tie*: no such difference "
    text += "shown. No row is a\nreproduction: the papers' full texts, networks and photographs were not at hand.\n\n"
    return text + markdown(table)


def run(study: Study) -> None:
    """The `claims` stage: tables/claims.csv and claims.md.

    Raises
    ------
    UserError
        if a table that it reads has not been made.
    """
    rows = claims(study, Tables(study))
    table = pd.DataFrame(rows, columns=Claim._fields)[COLUMNS]
    write_table(study.reports / "tables", "claims", table, page(rows))
