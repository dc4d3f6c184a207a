"""The `notebook` stage: run a notebook with the study's parameters and keep a page, its figures and its tables.

papermill runs it; this wrapper adds what a reproducible study needs: parameters that the notebook does not have are refused
(papermill only warns), the page holds nothing that differs between two runs, and every figure has a name and a caption.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nbformat
import papermill
from nbformat import NotebookNode
from papermill.exceptions import PapermillExecutionError

import lrfr
from lrfr.config import Study
from lrfr.errors import UserError
from lrfr.files import atomic_folder
from lrfr.report import pages

ADDRESS = re.compile(r"\bat 0x[0-9a-f]{6,}")
ARROWS = ("previous", "next")
KERNEL = "lrfr"  # not python3: that name may belong to another environment
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def source_path(name: str) -> Path:
    path = Path("notebooks") / f"{name}.ipynb"
    if not path.is_file():
        raise UserError(f"{path.as_posix()}: no such notebook; correct `notebooks` in params.yaml.")
    return path


def abstract(name: str) -> tuple[str, str]:
    """Title and first paragraph of a notebook, from its first cell, as Markdown."""
    cells = nbformat.read(source_path(name), as_version=4).cells
    title, _, rest = cells[0].source.strip().partition("\n")
    return title.removeprefix("# ").strip(), rest.strip().split("\n\n")[0]


def check_parameters(notebook: NotebookNode, name: str, parameters: dict[str, object]) -> None:
    """Refuse parameters that the cell tagged "parameters" does not assign."""
    tagged = [cell.source for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    known = re.findall(r"^(\w+)\s*=", "\n".join(tagged), flags=re.MULTILINE)
    for key in parameters:
        if key not in known:
            raise UserError(f"notebooks/{name}.ipynb: has no parameter '{key}'; it takes {', '.join(known) or 'none'}.")


@contextmanager
def environment(threads: int) -> Iterator[None]:
    """This interpreter's own kernel, a fixed number of threads, nobody's IPython profile, and this very package."""
    with tempfile.TemporaryDirectory() as folder:
        kernel = Path(folder) / "kernels" / KERNEL
        kernel.mkdir(parents=True)
        command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}", "--log-level=ERROR"]
        (kernel / "kernel.json").write_text(json.dumps({"argv": command, "display_name": KERNEL, "language": "python"}))
        package = str(Path(lrfr.__file__).resolve().parents[1])
        changes = {
            "JUPYTER_PATH": folder,
            "IPYTHONDIR": folder,
            "PYTHONPATH": os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")])),
            "PYTHONHASHSEED": "0",
            "PYDEVD_DISABLE_FILE_VALIDATION": "1",
            **dict.fromkeys(THREADS, str(threads)),
        }
        before = {key: os.environ.get(key) for key in changes}
        os.environ.update(changes)
        try:
            yield
        finally:
            for key, value in before.items():
                os.environ.pop(key) if value is None else os.environ.__setitem__(key, value)


def execute(name: str, parameters: dict[str, object], threads: int) -> NotebookNode:
    """Run a notebook in the current folder and return it with its outputs.

    Raises
    ------
    UserError
        naming the notebook, the cell and the error; the whole traceback goes to notebooks/output/<name>/traceback.txt.
    """
    source = nbformat.read(source_path(name), as_version=4)
    check_parameters(source, name, parameters)
    logging.getLogger("papermill").setLevel(logging.ERROR)
    with environment(threads), tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "executed.ipynb"
        try:
            return papermill.execute_notebook(
                str(source_path(name)),
                str(result),
                parameters,
                kernel_name=KERNEL,
                language="python",
                progress_bar=False,
                cwd=os.getcwd(),
            )
        except PapermillExecutionError as error:
            cell = [cell.source for cell in source.cells].index(error.source) + 1 if error.source else error.cell_index
            log = Path("notebooks") / "output" / name / "traceback.txt"
            log.parent.mkdir(parents=True, exist_ok=True)
            log.write_text(pages.ANSI.sub("", "\n".join(error.traceback)) + "\n", encoding="utf-8")
            reason = (
                f"{error.ename}: {pages.ANSI.sub('', error.evalue).splitlines()[0] if error.evalue else 'no message'}"
            )
            raise UserError(
                f"notebooks/{name}.ipynb: cell {cell} stopped with {reason} (see {log.as_posix()})."
            ) from None


def output_html(output: NotebookNode, where: str) -> str:
    """One output of a cell as HTML; `where` names the cell in messages."""
    if output.output_type == "stream":
        return pages.text_html(output.text) if output.name == "stdout" else ""
    data = output.data
    if figure := data.get("application/vnd.lrfr.figure+json"):
        return pages.figure_html(f"{figure['name']}.png", figure["caption"])
    if any(kind.startswith("image/") for kind in data):
        raise UserError(
            f"{where}: shows a figure without a caption; end the cell with report.save(figure, name, caption)."
        )
    if ADDRESS.search(data.get("text/plain", "")) and "text/html" not in data:
        raise UserError(
            f"{where}: shows an object's address, which differs between runs; end its last line with a semicolon."
        )
    if table := data.get("application/vnd.lrfr.table+json"):
        note = f'<a href="{table["name"]}.csv">csv</a>'
        words = pages.inline_html(table["caption"])
        return f"<figure>{pages.frame_html(data['text/html'])}<figcaption>{words} {note}</figcaption></figure>\n"
    if "text/html" in data:
        return pages.frame_html(data["text/html"])
    if "text/markdown" in data:
        return pages.markdown_html(data["text/markdown"])
    return pages.text_html(data.get("text/plain", ""))


def joined(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Outputs with neighbouring pieces of one stream as one: where a kernel cuts what is printed depends on its timing."""
    whole: list[NotebookNode] = []
    for output in outputs:
        if whole and output.output_type == "stream" == whole[-1].output_type and output.name == whole[-1].name:
            whole[-1] = NotebookNode({**whole[-1], "text": whole[-1].text + output.text})
        else:
            whole.append(output)
    return whole


def cell_html(cell: NotebookNode, where: str, link) -> str:
    """A cell and what it showed. Tag "solution" folds it away; the injected parameters come without the output folder."""
    tags = cell.metadata.get("tags", [])
    if cell.cell_type == "markdown":
        html = pages.markdown_html(cell.source, link)
    elif "injected-parameters" in tags:
        lines = [line for line in cell.source.splitlines() if not line.startswith(("#", "out ="))]
        html = pages.code_html("\n".join(lines))
    elif cell.cell_type != "code" or "parameters" in tags or not cell.source.strip():
        return ""
    else:
        html = pages.code_html(cell.source) + "".join(output_html(output, where) for output in joined(cell.outputs))
    return f"<details><summary>Solution</summary>\n{html}</details>\n" if "solution" in tags else html


def notebook_html(notebook: NotebookNode, name: str, study: Study) -> str:
    """The page of an executed notebook; the same bytes for the same outputs."""
    siblings = {f"{other}.ipynb": f"../{other}/index.html" for other in study.notebooks}

    def link(url: str) -> str | None:
        return siblings.get(url) if url.endswith(".ipynb") else url

    position = study.notebooks.index(name) if name in study.notebooks else None
    steps = [f'<a href="../index.html">{study.study} study</a>']
    if position is not None:
        around = [study.notebooks[i] if 0 <= i < len(study.notebooks) else None for i in (position - 1, position + 1)]
        titles = [
            f'<a href="../{other}/index.html">{arrow}</a>' for other, arrow in zip(around, ARROWS, strict=True) if other
        ]
        steps.append("<span>" + " · ".join(titles) + "</span>")
    body, number = [], 0
    for cell in notebook.cells:
        number += "injected-parameters" not in cell.metadata.get("tags", [])
        where = f"notebooks/{name}.ipynb: cell {number}"
        try:
            body.append(cell_html(cell, where, link))
        except UserError as error:
            raise error if str(error).startswith(where) else UserError(f"{where}: {error}") from None
    html = pages.page("notebook", f"{abstract(name)[0]} · lrfr", "".join(body), f"<nav>{''.join(steps)}</nav>\n")
    for private in (os.getcwd(), sys.prefix, str(Path.home())):
        if len(private) > 1 and re.search(re.escape(private) + r"(?![\w-])", html):
            raise UserError(
                f"notebooks/{name}.ipynb: its page would contain a path of this machine; do not print paths."
            )
    return html


def run(study: Study, name: str, parameters: dict[str, object] | None = None) -> None:
    """Run notebooks/<name>.ipynb and write its page, figures, tables and captions.

    Without `parameters`, this is the stage: the study's first fold and seed, and the folder reports/<study>/<name>/. With
    them (fold, seed, ...), the result goes to notebooks/output/<name>/, since only the stage writes to reports/.

    Raises
    ------
    UserError
        if the notebook or a parameter does not exist, a cell fails, or the page would differ between runs.
    """
    values = {
        "study": study.study,
        "fold": study.faces.run_folds[0],
        "seed": study.train.seeds[0],
        **(parameters or {}),
    }
    target = Path("notebooks") / "output" / name if parameters else study.reports / name
    start = time.perf_counter()
    with atomic_folder(target) as folder:
        executed = execute(name, {**values, "out": folder.as_posix()}, study.threads)
        (folder / "index.html").write_text(notebook_html(executed, name, study), encoding="utf-8", newline="\n")
        captions = folder / "figures.json"
        listed = (
            {f"{key}.png" for key in json.loads(captions.read_text(encoding="utf-8"))} if captions.exists() else set()
        )
        if listed != {path.name for path in folder.glob("*.png")}:
            raise UserError(
                f"notebooks/{name}.ipynb: writes a figure of its own; use report.save(figure, name, caption)."
            )
    print(f"{name}: {time.perf_counter() - start:.0f} s")
