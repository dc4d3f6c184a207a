"""The `sets` stage: a benchmark set of the user by its own protocol, for the study's students and its teacher.

Scored are the students of the first fold and seed, and, fed with the low-resolution faces as they are, the teacher that
taught them: a student that does not beat it has learned nothing about small faces. Writes, as CSV and as Markdown,
tables/set-<name> with a row per protocol, model and metric, and tables/set-<name>-comparisons with paired differences.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lrfr.benchmarks.sets import open_known
from lrfr.benchmarks.verb import Report, Tested, assess, direct_feed_teacher, rates
from lrfr.config import Study
from lrfr.deploy.find_faces import view
from lrfr.evaluate.scores import unit
from lrfr.formats import families, markdown, order, per_cent, render, wide, write_table
from lrfr.parallel import limit_threads
from lrfr.protocol.embed import embed_views, load_student
from lrfr.train.teacher import load_trained
from lrfr.train.trainings import folds_of


def student(study: Study, name: str) -> Tested:
    """A student of the study's first fold and seed, in the values of its float16 file."""
    fold, seed = folds_of(study, name)[0], study.train.seeds[0]
    net, side = load_student(study, name, fold, seed), study.views.size
    file = study.reports / "students" / name / f"fold{fold}-seed{seed}.safetensors"

    def embed(faces: Sequence[np.ndarray]) -> np.ndarray:
        return unit(embed_views(net, np.stack([view(face, side) for face in faces]))).astype(np.float32)

    return Tested(name, hashlib.sha256(file.read_bytes()).hexdigest(), side, study.student.embedding, embed)


def teacher(study: Study) -> Tested:
    """The teacher of the first fold, in the setting that taught the students; similarity is the cosine, also of dlib's
    network, which the study itself compares by the distance of raw vectors.
    """
    net = load_trained(study, study.faces.run_folds[0], study.teacher.setting).net
    fed = direct_feed_teacher(study.teacher.name, study.teacher.weights, net)
    if study.teacher.setting == "pretrained":
        return fed
    digest = hashlib.sha256()  # fine-tuned weights have no file of their own in the published format
    for name, tensor in net.state_dict().items():
        digest.update(name.encode() + tensor.contiguous().numpy().tobytes())
    return fed._replace(sha256=digest.hexdigest())


def comparisons_page(report: Report) -> str:
    """The differences for people: points of per cent, with p."""
    tables = {}
    for (question, protocol), rows in report.comparisons.groupby(["question", "protocol"], sort=False):
        cells = [f"{per_cent(row.diff, row.low, row.high, '+')}, {row.p_holm:.3f}" for row in rows.itertuples()]
        five = question == "five"
        title = f"{protocol}, {'the five among each other' if five else f'against {question}'}"
        pairs = rows.assign(pair=rows.a + " - " + rows.b if five else rows.a)
        tables[title] = wide(pairs, cells, "pair", "metric")
    return render("set-comparisons.md.j2", report=report, tables=tables, markdown=markdown)


def run(study: Study, name: str) -> None:
    """Score one set; UserError if it is not as `lrfr study` found it, or is too small for its protocols."""
    limit_threads(study.threads)
    opened = open_known(name)
    models = [teacher(study), *(student(study, model) for model in order(study.models))]
    asked, how = families([model.name for model in models]), study.evaluate
    report = assess(opened, models, opened.policies[0], asked, how.draws, how.level, name)
    # a place on somebody's machine is no part of a result: of the path the file's name is left
    report = report._replace(problems=[Path(p.partition(": ")[0]).name + p[p.find(": ") :] for p in report.problems])
    fed, fold = f"{study.teacher.name}, {study.teacher.setting}", study.faces.run_folds[0]
    table = report.results.assign(study=study.study, teacher=fed, fold=fold, seed=study.train.seeds[0])
    values = {"report": report, "study": study, "tables": rates(report, "model", "metric"), "markdown": markdown}
    folder = study.reports / "tables"
    write_table(folder, f"set-{name}", table, render("set.md.j2", **values))
    write_table(folder, f"set-{name}-comparisons", report.comparisons, comparisons_page(report))
