"""The `sets` stage: a benchmark set of the user by its own protocol, for the students of the study and for its teacher.

Scored are the students of the first fold and seed, and, fed with the low-resolution faces as they are, the teacher that taught
them: a student that does not beat it has learned nothing about small faces. All see the same images, by the set's own policy,
and nothing is chosen by any number here: the models are ranked before, by the validation people (`lrfr.train.ranking`).

The code is that of the verb `benchmark-set`. Writes tables/set-<name>.csv (a row per protocol, model, metric) and set-<name>.md.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from lrfr.config import Study
from lrfr.deploy import acquisition
from lrfr.deploy.acquisition import Tested
from lrfr.deploy.benchmark_verb import Report, assess, cell
from lrfr.deploy.faces import view
from lrfr.deploy.user_sets import open_known
from lrfr.parallel import limit_threads
from lrfr.report.formats import markdown, order
from lrfr.report.tables import write_table
from lrfr.train.embed import embed_views, load_student
from lrfr.train.teacher import load_trained


def unit(x: np.ndarray) -> np.ndarray:
    """Rows of float (n, D) as unit vectors float32."""
    x = x.astype(np.float64)
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def student(study: Study, name: str) -> Tested:
    """A student of the study's first fold and seed, in the values of its float16 file."""
    fold, seed = study.folds_of(name)[0], study.train.seeds[0]
    net = load_student(study, name, fold, seed)
    file = study.reports / "students" / name / f"fold{fold}-seed{seed}.safetensors"
    digest = hashlib.sha256(file.read_bytes()).hexdigest()

    def embed(faces: Sequence[np.ndarray]) -> np.ndarray:
        return unit(embed_views(net, np.stack([view(face, study.views.size) for face in faces])))

    return Tested(name, digest, study.views.size, study.student.embedding, embed)


def teacher(study: Study) -> Tested:
    """The teacher of the first fold, in the setting that taught the students."""
    net = load_trained(study, study.faces.run_folds[0], study.teacher.setting).net
    return acquisition.direct_feed_teacher(study.teacher.name, study.teacher.weights, net)


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
        first = report.problems[0]
        text += f"\n{len(report.problems)} images failed and count as failed acquisitions; the first: {first}\n"
    for protocol, rows in report.results.groupby("protocol", sort=False):
        wide = rows.assign(cell=[cell(row) for row in rows.itertuples()]).pivot(index="model", columns="metric", values="cell")
        wide = wide.loc[order(wide.index), rows.metric.unique()].rename_axis(columns=None).reset_index()
        text += f"\n## {protocol}\n\n{markdown(wide)}"
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
    report = assess(opened, models, opened.policies[0], False, name)
    table = report.results.assign(study=study.study, fold=study.faces.run_folds[0], seed=study.train.seeds[0])
    write_table(study.reports / "tables", f"set-{name}", table, page(study, report))
