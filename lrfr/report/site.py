"""The `site` stage: reports/<study>/index.html, which ties together notebooks, tables and figures; and the last words.

The page enumerates what a study must have written, never what happens to lie in the folder: a missing piece stops it
with the name of the stage to run. The last words of `make study` say whether the report is the published one.
"""

import subprocess
from pathlib import Path

import pandas as pd

from lrfr.config import Study
from lrfr.errors import UserError
from lrfr.files import write_text
from lrfr.formats import headline, per_cent, read_table, wide
from lrfr.protocol.folds import DENSE
from lrfr.report import pages
from lrfr.report.notebooks import TIMED, TIMES, abstract, captions
from lrfr.report.tables import arranged, marked
from lrfr.train.trainings import seeds_of

PUBLISHED = ("orl", "lfw")  # studies whose reports are in git; an index links the other one
LONGEST = 150  # rows of a table that the page shows in full; our choice
TABLES = {  # table -> the stage that makes it; the template says what each holds, in the order of the page
    **dict.fromkeys(("results", "comparisons", "teacher", "gradients", "runs"), "summary"),
    **dict.fromkeys(("ablation", "degradations", "schedule"), "summary"),
    **dict.fromkeys(("cost", "schemes", "latency", "throughput"), "benchmark"),
    **{"tuning": "rank", "mirror": "mirror", "claims": "claims"},
}
# files of a report that hold times, or that name the machine: they differ from run to run
TIMED_FILES = [
    "environment.json",
    "index.html",
    *(f"{name}/*" for name in TIMED),
    *(f"tables/{name}.*" for name in TIMES),
]


def required(study: Study, file: str, stage: str, item: str = "") -> Path:
    """A file of the report that must be there; UserError with the command that makes it."""
    path = study.reports / file
    if not path.is_file():
        raise UserError(f"{path.as_posix()}: missing; run `dvc repro {stage}@{study.study}{item}`.")
    return path


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


def index_html(study: Study) -> str:
    """The page; the same bytes for the same inputs."""
    required(study, "STATUS.md", "status")
    tables = {name: read_table(required(study, f"tables/{name}.csv", stage)) for name, stage in TABLES.items()}
    figures = {name: captions(study.reports / name, "figures") for name in study.notebooks}
    made = {name: captions(study.reports / name, "tables") for name in study.notebooks}
    for name in study.notebooks:
        for file in ("index.html", *(f"{figure}.png" for figure in figures[name])):
            required(study, f"{name}/{file}", "notebook", f"-{name}")
    results = tables["results"]
    folders = {name: study.reports.parent / name for name in PUBLISHED if name != study.study}
    return pages.filled(
        "index.html.j2",
        study=study,
        more=[name for name in study.models if seeds_of(study, name) != study.train.seeds],
        others=[name for name, folder in folders.items() if (folder / "index.html").is_file()],
        headline=headline(results[results.protocol == DENSE], "eer", "hr_lr"),
        notebooks={name: abstract(name) for name in study.notebooks},
        figures=figures,
        tables=tables,
        stages=TABLES,
        parts={name: parts(name, table) for name, table in tables.items()},
        marked_down=[path.stem for path in (study.reports / "tables").glob("*.md")],
        made={f"{name}/{table}.csv": words for name, found in made.items() for table, words in found.items()},
    )


def run(study: Study) -> None:
    """Write the page. UserError names a missing file and the stage that makes it."""
    write_text(study.reports / "index.html", index_html(study))


def git(*arguments: str) -> list[str]:
    """Files that a git command names; OSError or CalledProcessError where there is no git or no repository."""
    return subprocess.run(["git", *arguments], capture_output=True, text=True, check=True).stdout.split("\0")[:-1]


def ending(study: Study) -> str:
    """The end of `make study`: where the report is, which files differ from those published, and what to open next."""
    folder = study.reports.as_posix()
    paths = ["--", folder, *(f":(exclude){folder}/{pattern}" for pattern in TIMED_FILES)]
    try:
        files = git("ls-files", "-z", *paths)
        other = git("diff", "-z", "--relative", "--name-only", "HEAD", *paths) if files else []
    except (OSError, subprocess.CalledProcessError):
        files, other = None, []  # git cannot say
    names = [name.removeprefix(f"{folder}/") for name in other]
    return pages.filled(
        "ending.txt.j2",
        study=study,
        index=(study.reports / "index.html").resolve().as_posix(),
        files=files,
        other=sorted(names, key=lambda name: not name.startswith("tables/")),
        chapters=[name for name in study.notebooks if name[:2] in ("03", "04", "05", "06", "07")],
    )
