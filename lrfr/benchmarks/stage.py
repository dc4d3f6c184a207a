"""The `sets` stage: a benchmark set of the user by its own protocol, for the students of the study and for its teacher.

Scored are the students of the first fold and seed, and, fed with the low-resolution faces as they are, the teacher that taught
them: a student that does not beat it has learned nothing about small faces. All see the same images, by the set's own policy,
and nothing is chosen by any number here: the models are ranked before, by the validation people (`lrfr.train.ranking`).

The code is that of the verb `benchmark-set`. Writes, as CSV and as Markdown, tables/set-<name> with a row per protocol, model and
metric, and tables/set-<name>-comparisons with the paired differences that a study asks for (`lrfr.formats.families`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import pandas as pd

from lrfr.benchmarks import acquisition
from lrfr.benchmarks.acquisition import Tested
from lrfr.benchmarks.user_sets import open_known
from lrfr.benchmarks.verb import Report, Ways, assess, cell
from lrfr.config import Study
from lrfr.deploy.find_faces import view
from lrfr.evaluate.statistics import holm
from lrfr.formats import families, markdown, order, per_cent, write_table
from lrfr.parallel import limit_threads
from lrfr.protocol.cells import unit
from lrfr.protocol.embed import embed_views, load_student
from lrfr.train.teacher import load_trained
from lrfr.train.trainings import folds_of


def student(study: Study, name: str) -> Tested:
    """A student of the study's first fold and seed, in the values of its float16 file."""
    fold, seed = folds_of(study, name)[0], study.train.seeds[0]
    net = load_student(study, name, fold, seed)
    file = study.reports / "students" / name / f"fold{fold}-seed{seed}.safetensors"
    digest = hashlib.sha256(file.read_bytes()).hexdigest()

    def embed(faces: Sequence[np.ndarray]) -> np.ndarray:
        x = embed_views(net, np.stack([view(face, study.views.size) for face in faces]))
        return unit(x.astype(np.float64)).astype(np.float32)

    return Tested(name, digest, study.views.size, study.student.embedding, embed)


def teacher(study: Study) -> Tested:
    """The teacher of the first fold, in the setting that taught the students.

    As in the verb: an image becomes the side that the network was made for, and similarity is the cosine of unit vectors, also
    for dlib's network, which the study itself compares by the distance of raw ones.
    """
    fold, setting = study.faces.run_folds[0], study.teacher.setting
    net = load_trained(study, fold, setting).net
    digest = hashlib.sha256()
    for (
        name,
        tensor,
    ) in net.state_dict().items():  # fine-tuned weights have no file of their own in the published format
        digest.update(name.encode() + tensor.contiguous().numpy().tobytes())
    fed = acquisition.direct_feed_teacher(study.teacher.name, study.teacher.weights, net)
    return fed if setting == "pretrained" else fed._replace(sha256=digest.hexdigest())


def page(study: Study, report: Report) -> str:
    """The report for people: models in rows, metrics in columns."""
    fold, setting = study.faces.run_folds[0], study.teacher.setting
    text = (
        f"# {report.name}\n\nStudents of fold {fold}, and their teacher (`{study.teacher.name}`, {setting}) fed with the same "
        "faces. Per cent, with intervals where there are any. Nothing was chosen by these numbers.\n\n"
    )
    text += f"{markdown(report.counts.astype(object).where(report.counts.notna(), '-'))}\n"
    text += "".join(f"- {policy}: {value}\n" for policy, value in report.policies.items())
    if report.problems:
        text += f"\n{len(report.problems)} images failed and count as failed acquisitions; `lrfr benchmark-set` names one.\n"
    for protocol, rows in report.results.groupby("protocol", sort=False):
        wide = rows.assign(cell=[cell(row) for row in rows.itertuples()]).pivot(
            index="model", columns="metric", values="cell"
        )
        wide = wide.loc[order(wide.index), rows.metric.unique()].rename_axis(columns=None).reset_index()
        text += f"\n## {protocol}\n\n{markdown(wide)}"
    return text


def turned(table: pd.DataFrame) -> pd.DataFrame:
    """The same differences as b - a."""
    names = {"a": "b", "b": "a", "low": "high", "high": "low", "only_a": "only_b", "only_b": "only_a"}
    return table.rename(columns=names)[table.columns].assign(diff=-table["diff"], low=-table.high, high=-table.low)


def comparisons(report: Report) -> pd.DataFrame:
    """Paired differences a - b of the verb's table, one question after the other, with Holm's correction within a question."""
    both = pd.concat([report.comparisons, turned(report.comparisons)])
    parts = []
    for question, pairs in families(list(report.results.model.unique())).items():
        asked = pd.MultiIndex.from_tuples(pairs, names=["a", "b"])
        rows = both[pd.MultiIndex.from_frame(both[["a", "b"]]).isin(asked)].copy()
        for p in ("p", "mcnemar"):  # no test where a metric counts no single decisions
            grouped = rows.groupby(["protocol", "metric"], sort=False)[p]
            rows[f"{p}_holm"] = grouped.transform(lambda family: family if family.isna().any() else holm(family))
        parts.append(rows.assign(question=question))
    return pd.concat(parts, ignore_index=True)


def comparisons_page(report: Report, table: pd.DataFrame) -> str:
    """The differences for people: points of per cent, with p."""
    text = f"# {report.name}: differences\n\nPaired differences in points of per cent, [interval], p after Holm's correction.\n"
    for (question, protocol), rows in table.groupby(["question", "protocol"], sort=False):
        cells = [f"{per_cent(row.diff, row.low, row.high, '+')}, {row.p_holm:.3f}" for row in rows.itertuples()]
        title = "the five among each other" if question == "five" else f"against {question}"
        shown = rows.assign(cell=cells, pair=rows.a + ("" if question != "five" else " - " + rows.b))
        wide = shown.pivot(index="pair", columns="metric", values="cell").loc[shown.pair.unique(), rows.metric.unique()]
        text += f"\n## {protocol}, {title}\n\n{markdown(wide.rename_axis(columns=None).reset_index())}"
    return text


def run(study: Study, name: str) -> None:
    """Score one set.

    Raises
    ------
    UserError
        if it is not where `lrfr study` found it, has other bytes, or is too small for its protocols.
    """
    limit_threads(study.threads)
    opened = open_known(name)
    models = [teacher(study), *(student(study, model) for model in order(study.models))]
    report = assess(opened, models, Ways(opened.policies[0], False, study.evaluate.draws, study.evaluate.level), name)
    fed = f"{study.teacher.name}, {study.teacher.setting}"
    table = report.results.assign(
        study=study.study, teacher=fed, fold=study.faces.run_folds[0], seed=study.train.seeds[0]
    )
    differences, folder = comparisons(report), study.reports / "tables"
    write_table(folder, f"set-{name}", table, page(study, report))
    write_table(folder, f"set-{name}-comparisons", differences, comparisons_page(report, differences))
