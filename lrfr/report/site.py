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
from lrfr.report.notebooks import abstract
from lrfr.report.tables import arranged, marked
from lrfr.train.trainings import seeds_of

PUBLISHED = ("orl", "lfw")  # studies whose reports are in git; an index links the other one
LONGEST = 150  # rows of a table that the page shows in full; our choice
TABLES = {  # table -> the stage that makes it; the template says what each holds, in the order of the page
    **dict.fromkeys(("results", "comparisons", "teacher", "gradients", "runs", "ablation", "schedule"), "summary"),
    **dict.fromkeys(("cost", "schemes", "latency", "throughput"), "benchmark"),
    **{"tuning": "rank", "mirror": "mirror", "claims": "claims"},
}


def required(study: Study, file: str, stage: str, command: str = "") -> Path:
    """A file of the report that must be there; UserError with the command that makes it. command: of one item."""
    path = study.reports / file
    if not path.is_file():
        again = f"dvc repro {command or f'{stage}@{study.study}'}"
        raise UserError(f"{path.as_posix()}: missing; run `{again}` (stage '{stage}').")
    return path


def read(study: Study, name: str) -> pd.DataFrame:
    """A table of the study."""
    return read_table(required(study, f"tables/{name}.csv", TABLES[name]))


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


def captions(folder: Path, file: str) -> dict[str, str]:
    path = folder / file
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def notebook_entry(study: Study, name: str) -> dict[str, object]:
    """What the page says of a notebook: title and first words as Markdown, captions of its figures."""
    figures = captions(study.reports / name, "figures.json")
    for file in ("index.html", *(f"{figure}.png" for figure in figures)):
        required(study, f"{name}/{file}", "notebook", f"notebook@{study.study}-{name}")
    title, words = abstract(name)
    return {"name": name, "title": title, "words": words, "figures": figures}


def index_html(study: Study) -> str:
    """The page; the same bytes for the same inputs."""
    required(study, "STATUS.md", "status")
    tables = {name: read(study, name) for name in TABLES}
    results = tables["results"]
    folders = {name: study.reports.parent / name for name in PUBLISHED if name != study.study}
    made = {name: captions(study.reports / name, "tables.json") for name in study.notebooks}
    return pages.filled(
        "index.html.j2",
        study=study,
        more=[name for name in study.models if seeds_of(study, name) != study.train.seeds],
        others=[name for name, folder in folders.items() if (folder / "index.html").is_file()],
        headline=headline(results[results.protocol == DENSE], "eer", "hr_lr"),
        notebooks=[notebook_entry(study, name) for name in study.notebooks],
        tables=tables,
        stages=TABLES,
        parts={name: parts(name, table) for name, table in tables.items()},
        marked_down=[path.stem for path in (study.reports / "tables").glob("*.md")],
        made={f"{name}/{table}.csv": words for name, found in made.items() for table, words in found.items()},
    )


def run(study: Study) -> None:
    """Write reports/<study>/index.html from the study's tables, notebooks and figures.

    UserError names a missing file and the stage that makes it.
    """
    html = index_html(study)
    with atomic_file(study.reports / "index.html") as temporary:
        temporary.write_text(html, encoding="utf-8", newline="\n")
