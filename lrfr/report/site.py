"""The `site` stage: reports/<study>/index.html, which ties together notebooks, tables and figures.

It enumerates what a study must have written, never what happens to lie in the folder: a missing piece stops it with the name
of the stage to run.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from lrfr.config import Study
from lrfr.errors import UserError
from lrfr.files import atomic_file
from lrfr.formats import headline, order, pixels, read_table
from lrfr.protocol.folds import DENSE
from lrfr.report import pages
from lrfr.report.notebooks import abstract
from lrfr.train.trainings import seeds_of

LONGEST = 150  # rows of a table that the page shows in full; our choice


class Table(NamedTuple):
    stage: str
    text: str


TABLES = {
    "results": Table(
        "summary", "Every metric of every model at every resolution, with intervals from a bootstrap over people."
    ),
    "comparisons": Table(
        "summary", "Paired differences between models, with intervals and p-values before and after Holm's correction."
    ),
    "teacher": Table(
        "summary", "The teacher as pretrained, with a fine-tuned head, and with head and last stage fine-tuned."
    ),
    "gradients": Table(
        "summary",
        "How strongly each weighted term pulls, relative to the face loss: is one dead, or does one drown the rest?",
    ),
    "runs": Table("summary", "One row per model, fold, seed, resolution and metric: what the other tables average."),
    "tuning": Table(
        "rank", "What the validation people chose: values of one number a model, and the order of the models."
    ),
    "cost": Table(
        "benchmark", "Size, arithmetic and measured time of every model. Times differ from machine to machine."
    ),
    "schemes": Table("benchmark", "What whole training schemes cost."),
    "latency": Table("benchmark", "What an engineer would use instead: networks and runtimes side by side, as ratios."),
    "ablation": Table("summary", "Every trained arm against its method: what a part of the method is worth."),
    "schedule": Table(
        "summary", "Models with another schedule against themselves, the teacher, and `scratch` with that schedule."
    ),
    "mirror": Table("mirror", "Every model with a face and its mirror image averaged, for twice the time."),
    "throughput": Table("benchmark", "Images a second in training: data path, forward and backward pass, whole loop."),
    "claims": Table("claims", "What the five abstracts claim, beside what this study measures."),
}
PERCENT = "in per cent, with the interval in brackets"


def read(study: Study, name: str) -> pd.DataFrame:
    path = study.reports / "tables" / f"{name}.csv"
    if not path.is_file():
        stage = TABLES[name].stage
        raise UserError(f"{path.as_posix()}: missing; run `dvc repro {stage}@{study.study}` (stage '{stage}').")
    return read_table(path)


def status(study: Study) -> str:
    """A link to the page that says what has run and what has not."""
    if not (study.reports / "STATUS.md").is_file():
        raise UserError(
            f"{study.reports.as_posix()}/STATUS.md: missing; run `dvc repro status@{study.study}` (stage 'status')."
        )
    return '<a href="STATUS.md">STATUS.md</a> lists what of the study has run and what has not.'


def groups(table: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Titled parts of a long table: one protocol, pairing and metric each."""
    keys = [key for key in ("protocol", "pairing", "metric") if key in table]
    parts = table.groupby(keys, sort=False, dropna=False)
    return [(" · ".join(str(k) for k in key if not pd.isna(k)), part) for key, part in parts]


def results_html(table: pd.DataFrame) -> str:
    """One model × resolution table per protocol, pairing and metric."""
    parts = []
    for title, part in groups(table):
        wide = headline(part.fillna({"pairing": ""}), part.metric.iloc[0], part.pairing.fillna("").iloc[0])
        parts.append(f"<details><summary>{escape(title)}</summary>\n{pages.table_html(wide)}</details>\n")
    return f"<p>Values {PERCENT}.</p>\n" + "".join(parts)


def comparisons_html(table: pd.DataFrame) -> str:
    """Differences to `scratch`, in per cent points, one table per protocol, pairing and metric."""
    parts = []
    for title, part in groups(table[table.b == "scratch"]):
        cells = [
            f"{100 * r.diff:+.1f} [{100 * r.low:+.1f}, {100 * r.high:+.1f}]{'*' if r.p_holm < 0.05 else ''}"
            for r in part.itertuples()
        ]
        wide = part.assign(cell=cells).pivot(index="a", columns="resolution", values="cell").fillna("")
        wide = (
            wide.loc[order(wide.index), sorted(wide.columns, key=pixels)]
            .rename_axis(columns=None, index="model")
            .reset_index()
        )
        parts.append(f"<details><summary>{escape(title)}</summary>\n{pages.table_html(wide)}</details>\n")
    words = (
        "Differences model − scratch in per cent points; * marks p &lt; 0.05 after Holm. Other pairs are in the file."
    )
    return f"<p>{words}</p>\n" + "".join(parts)


VIEWS: dict[str, Callable[[pd.DataFrame], str]] = {"results": results_html, "comparisons": comparisons_html}


def table_section(study: Study, name: str) -> str:
    table, about = read(study, name), TABLES[name]
    links = f'<a href="tables/{name}.csv">csv</a>'
    if (study.reports / "tables" / f"{name}.md").is_file():
        links += f' · <a href="tables/{name}.md">markdown</a>'
    note = (
        f'<p class="lead">{about.text} Made by the stage <code>{about.stage}</code>; {len(table)} rows: {links}.</p>\n'
    )
    if name in VIEWS:
        shown = VIEWS[name](table)
    elif len(table) <= LONGEST:
        shown = f"<details open><summary>{name}</summary>\n{pages.table_html(table)}</details>\n"
    else:
        shown = ""
    return f'<h3 id="table-{name}">{name}</h3>\n{note}{shown}'


def notebook_folder(study: Study, name: str) -> Path:
    folder = study.reports / name
    if not (folder / "index.html").is_file():
        raise UserError(f"{folder.as_posix()}/index.html: missing; run `dvc repro notebook@{study.study}-{name}`.")
    return folder


def captions(folder: Path, file: str) -> dict[str, str]:
    path = folder / file
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def notebooks_section(study: Study) -> str:
    items = []
    for name in study.notebooks:
        notebook_folder(study, name)
        title, words = abstract(name)
        text = pages.markdown_html(words, lambda url: None)
        items.append(f'<li><a href="{name}/index.html">{name[:2]} {escape(title)}</a>{text}</li>\n')
    return f'<ul class="cards">\n{"".join(items)}</ul>\n'


def figures_section(study: Study) -> str:
    parts = []
    for name in study.notebooks:
        folder = notebook_folder(study, name)
        figures = captions(folder, "figures.json")
        for figure in figures:
            if not (folder / f"{figure}.png").is_file():
                raise UserError(
                    f"{folder.as_posix()}/{figure}.png: missing; run `dvc repro notebook@{study.study}-{name}` first."
                )
        note = f'Made by notebook <a href="{name}/index.html">{name}</a>.'
        parts += [pages.figure_html(f"{name}/{figure}.png", caption, note) for figure, caption in figures.items()]
    return f'<div class="gallery">\n{"".join(parts)}</div>\n'


def notebook_tables(study: Study) -> str:
    items = [
        f'<li><a href="{name}/{table}.csv">{name}/{table}.csv</a> <span class="lead">{pages.inline_html(caption)}</span></li>\n'
        for name in study.notebooks
        for table, caption in captions(study.reports / name, "tables.json").items()
    ]
    return f"<h3>Tables made by notebooks</h3>\n<ul>\n{''.join(items)}</ul>\n" if items else ""


def index_html(study: Study) -> str:
    faces = study.faces
    more = [f"<code>{name}</code>" for name in study.models if seeds_of(study, name) != study.train.seeds]
    summary = (
        f"{faces.people} people of the source <code>{faces.source}</code>, {len(faces.run_folds)} of {faces.folds} folds, "
        f"{len(study.models)} trained models, {len(study.train.seeds)} seed{'s' if len(study.train.seeds) > 1 else ''} each"
        f"{', more of ' + ', '.join(more) if more else ''}. "
        "Test people are never trained on. Low-resolution faces are made from high-resolution ones by a stated degradation: "
        "nothing here is a result on natively low-resolution photographs."
    )
    navigation = "".join(f'<a href="#{part}">{part}</a>' for part in ("headline", "notebooks", "figures", "tables"))
    results = read(study, "results")
    top = headline(results[results.protocol == DENSE])
    tables = "".join(table_section(study, name) for name in TABLES)
    return pages.page(
        "index",
        f"Study {study.study} · lrfr",
        f"<h1>Knowledge distillation for low-resolution faces: the <code>{study.study}</code> study</h1>\n"
        f'<p class="lead">{summary} {status(study)}</p>\n'
        f'<h2 id="headline">Equal error rate, HR against LR</h2>\n{pages.table_html(top)}'
        f'<p class="lead">Equal error rate {PERCENT}; lower is better. Columns: pixels on a side of the aligned face.</p>\n'
        f'<h2 id="notebooks">Notebooks</h2>\n{notebooks_section(study)}'
        f'<h2 id="figures">Figures</h2>\n{figures_section(study)}'
        f'<h2 id="tables">Tables</h2>\n<p>Click a column\'s head to sort.</p>\n{tables}{notebook_tables(study)}',
        f"<nav>{navigation}</nav>\n",
    )


def run(study: Study) -> None:
    """Write reports/<study>/index.html from the study's tables, notebooks and figures; the same bytes for the same inputs.

    Raises
    ------
    UserError
        naming the missing file and the stage that makes it.
    """
    html = index_html(study)
    with atomic_file(study.reports / "index.html") as temporary:
        temporary.write_text(html, encoding="utf-8", newline="\n")
