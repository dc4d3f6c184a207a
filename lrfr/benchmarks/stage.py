"""The `sets` stage: a benchmark set of the user by its own protocol, for the study's students and its teacher.

Scored are the students of the first fold and seed, and, fed with the low-resolution faces as they are, the teacher that
taught them: a student that does not beat it has learned nothing about small faces. All see the same images, by the
set's own policy, and nothing is chosen by any number here: the models are ranked before, by the validation people.

Writes, as CSV and as Markdown, tables/set-<name> with a row per protocol, model and metric, and
tables/set-<name>-comparisons with the paired differences that a study asks for (`lrfr.formats.families`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from lrfr.benchmarks.acquisition import Tested, direct_feed_teacher
from lrfr.benchmarks.sets import open_known
from lrfr.benchmarks.verb import Report, assess, front, rates
from lrfr.config import Study
from lrfr.deploy.find_faces import view
from lrfr.evaluate.scores import unit
from lrfr.formats import families, order, page, per_cent, wide, write_table
from lrfr.parallel import limit_threads
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
        return unit(embed_views(net, np.stack([view(face, study.views.size) for face in faces]))).astype(np.float32)

    return Tested(name, digest, study.views.size, study.student.embedding, embed)


def teacher(study: Study) -> Tested:
    """The teacher of the first fold, in the setting that taught the students.

    As in the verb: an image becomes the side that the network was made for, and similarity is the cosine of unit
    vectors, also for dlib's network, which the study itself compares by the distance of raw ones.
    """
    setting = study.teacher.setting
    net = load_trained(study, study.faces.run_folds[0], setting).net
    fed = direct_feed_teacher(study.teacher.name, study.teacher.weights, net)
    if setting == "pretrained":
        return fed
    digest = hashlib.sha256()  # fine-tuned weights have no file of their own in the published format
    for name, tensor in net.state_dict().items():
        digest.update(name.encode() + tensor.contiguous().numpy().tobytes())
    return fed._replace(sha256=digest.hexdigest())


def results_page(study: Study, report: Report) -> str:
    """The report for people: models in rows, metrics in columns."""
    fed = f"fold {study.faces.run_folds[0]}, and their teacher (`{study.teacher.name}`, {study.teacher.setting})"
    lead = f"Students of {fed} fed with the same faces. Per cent, with intervals where there are any."
    lead += f" Nothing was chosen by these numbers.\n\n{front(report)}"
    by_protocol = report.results.groupby("protocol", sort=False)
    return page(report.name, lead, {protocol: rates(rows, "model", "metric") for protocol, rows in by_protocol})


def comparisons_page(report: Report) -> str:
    """The differences for people: points of per cent, with p."""
    parts = {}
    for (question, protocol), rows in report.comparisons.groupby(["question", "protocol"], sort=False):
        cells = [f"{per_cent(row.diff, row.low, row.high, '+')}, {row.p_holm:.3f}" for row in rows.itertuples()]
        five = question == "five"
        title = "the five among each other" if five else f"against {question}"
        shown = rows.assign(pair=rows.a + " - " + rows.b if five else rows.a)
        parts[f"{protocol}, {title}"] = wide(shown, cells, "pair", "metric")
    lead = "Paired differences in points of per cent, [interval], p after Holm's correction."
    return page(f"{report.name}: differences", lead, parts)


def run(study: Study, name: str) -> None:
    """Score one set.

    Raises UserError if it is not where `lrfr study` found it, has other bytes, or is too small for its protocols.
    """
    limit_threads(study.threads)
    opened = open_known(name)
    models = [teacher(study), *(student(study, model) for model in order(study.models))]
    asked, how = families([model.name for model in models]), study.evaluate
    report = assess(opened, models, opened.policies[0], False, asked, how.draws, how.level, name)
    fed = f"{study.teacher.name}, {study.teacher.setting}"
    table = report.results.assign(
        study=study.study, teacher=fed, fold=study.faces.run_folds[0], seed=study.train.seeds[0]
    )
    folder = study.reports / "tables"
    write_table(folder, f"set-{name}", table, results_page(study, report))
    write_table(folder, f"set-{name}-comparisons", report.comparisons, comparisons_page(report))
