"""The `site` stage: reports/<study>/index.html, which ties together notebooks, tables and figures.

It enumerates what a study must have written, never what happens to lie in the folder: a missing piece stops it with the
name of the stage to run.
"""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

from lrfr.config import Study
from lrfr.errors import UserError
from lrfr.files import atomic_file
from lrfr.formats import headline, per_cent, read_table, wide
from lrfr.protocol.folds import DENSE
from lrfr.report import pages
from lrfr.report.ablation import marked
from lrfr.report.evaluation import arranged
from lrfr.report.notebooks import abstract
from lrfr.train.trainings import seeds_of

PUBLISHED = ("orl", "lfw")  # studies whose reports are in git; an index links the other one
LONGEST = 150  # rows of a table that the page shows in full; our choice
TABLES = {  # table -> the stage that makes it; the template says what each holds, in the order of the page
    **dict.fromkeys(("results", "comparisons", "teacher", "gradients", "runs", "ablation", "schedule"), "summary"),
    **dict.fromkeys(("cost", "schemes", "latency", "throughput"), "benchmark"),
    **{"tuning": "rank", "mirror": "mirror", "claims": "claims"},
}


def required(path: Path, stage: str, command: str) -> Path:
    """The path of a file that must be there; UserError with the command that makes it."""
    if not path.is_file():
        raise UserError(f"{path.as_posix()}: missing; run `dvc repro {command}` (stage '{stage}').")
    return path


def read(study: Study, name: str) -> pd.DataFrame:
    """A table of the study."""
    path, stage = study.reports / "tables" / f"{name}.csv", TABLES[name]
    return read_table(required(path, stage, f"{stage}@{study.study}"))


def parts(name: str, table: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """What the page shows of a table, under titles: the long ones by protocol, pairing and metric, or not at all."""
    if name not in ("results", "comparisons"):
        return [(name, table)] if len(table) <= LONGEST else []
    table, shown = table if name == "results" else table[table.b == "scratch"].rename(columns={"a": "model"}), []
    for key, rows in table.groupby(["protocol", "pairing", "metric"], sort=False):
        rows = arranged(rows, ["model"])
        values = [per_cent(row.value, row.low, row.high) for row in rows.itertuples()] if name == "results" else None
        shown.append((" · ".join(key), wide(rows, values or marked(rows))))
    return shown


def table_entry(study: Study, name: str) -> dict[str, object]:
    """What the page needs of a table."""
    table, page = read(study, name), study.reports / "tables" / f"{name}.md"
    return {"stage": TABLES[name], "rows": len(table), "page": page.is_file(), "parts": parts(name, table)}


def captions(folder: Path, file: str) -> dict[str, str]:
    path = folder / file
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def notebook_entry(study: Study, name: str) -> dict[str, object]:
    """What the page says of a notebook: title and first words as Markdown, captions of its figures."""
    folder, command = study.reports / name, f"notebook@{study.study}-{name}"
    required(folder / "index.html", "notebook", command)
    figures = captions(folder, "figures.json")
    for figure in figures:
        required(folder / f"{figure}.png", "notebook", command)
    title, words = abstract(name)
    return {"name": name, "title": title, "words": words, "figures": figures}


def index_html(study: Study) -> str:
    """The page; the same bytes for the same inputs."""
    required(study.reports / "STATUS.md", "status", f"status@{study.study}")
    results = read(study, "results")
    folders = {name: study.reports.parent / name for name in PUBLISHED if name != study.study}
    made = {name: captions(study.reports / name, "tables.json") for name in study.notebooks}
    return pages.index_html(
        study=study,
        more=[name for name in study.models if seeds_of(study, name) != study.train.seeds],
        others=[name for name, folder in folders.items() if (folder / "index.html").is_file()],
        headline=headline(results[results.protocol == DENSE], "eer", "hr_lr"),
        notebooks=[notebook_entry(study, name) for name in study.notebooks],
        tables={name: table_entry(study, name) for name in TABLES},
        made={f"{name}/{table}.csv": words for name, found in made.items() for table, words in found.items()},
    )


def run(study: Study) -> None:
    """Write reports/<study>/index.html from the study's tables, notebooks and figures.

    UserError names a missing file and the stage that makes it.
    """
    html = index_html(study)
    with atomic_file(study.reports / "index.html") as temporary:
        temporary.write_text(html, encoding="utf-8", newline="\n")
