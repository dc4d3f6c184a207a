"""The `notebook` stage: run a notebook with the study's parameters and keep a page, its figures and its tables.

papermill runs it and nbconvert draws it; this wrapper adds what a reproducible study needs: parameters that the
notebook does not have are refused (papermill only warns), the page holds nothing that differs between two runs, and
every figure has a name and a caption.
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
import yaml
from nbconvert.filters import strip_ansi
from nbformat import NotebookNode
from papermill.exceptions import PapermillExecutionError

import lrfr
from lrfr.config import Study
from lrfr.errors import UserError
from lrfr.files import atomic_folder
from lrfr.report import pages
from lrfr.report.results import FIGURE

# Notebooks, and tables of what was measured in seconds or that read such a table: no other notebook may read these.
TIMED, TIMES = ("09-cost-and-deployment",), ("cost", "schemes", "throughput", "latency", "claims")
ADDRESS = re.compile(r"\bat 0x[0-9a-f]{6,}")
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
    if unknown := [key for key in parameters if key not in known]:
        takes = ", ".join(known) or "none"
        raise UserError(f"notebooks/{name}.ipynb: has no parameter '{unknown[0]}'; it takes {takes}.")


@contextmanager
def environment(threads: int) -> Iterator[None]:
    """This interpreter's own kernel, a fixed number of threads, nobody's IPython profile, and this very package."""
    with tempfile.TemporaryDirectory() as folder:
        kernel = Path(folder) / "kernels" / KERNEL
        kernel.mkdir(parents=True)
        command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}", "--log-level=ERROR"]
        (kernel / "kernel.json").write_text(json.dumps({"argv": command, "display_name": KERNEL, "language": "python"}))
        package = str(Path(lrfr.__file__).resolve().parents[1])
        before = dict(os.environ)
        os.environ |= {
            "JUPYTER_PATH": folder,
            "IPYTHONDIR": folder,
            "PYTHONPATH": os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")])),
            "PYTHONHASHSEED": "0",
            "PYDEVD_DISABLE_FILE_VALIDATION": "1",
            **dict.fromkeys(THREADS, str(threads)),
        }
        try:
            yield
        finally:
            os.environ.clear()
            os.environ |= before


def execute(name: str, parameters: dict[str, object], threads: int) -> NotebookNode:
    """Run a notebook in the current folder and return it with its outputs.

    UserError names the notebook, the cell and the error; the traceback goes to notebooks/output/<name>/traceback.txt.
    """
    path = str(source_path(name))
    source = nbformat.read(path, as_version=4)
    check_parameters(source, name, parameters)
    logging.getLogger("papermill").setLevel(logging.ERROR)
    with environment(threads), tempfile.TemporaryDirectory() as folder:
        how = {"kernel_name": KERNEL, "language": "python", "progress_bar": False, "cwd": os.getcwd()}
        try:
            return papermill.execute_notebook(path, str(Path(folder) / "executed.ipynb"), parameters, **how)
        except PapermillExecutionError as error:
            cell = [cell.source for cell in source.cells].index(error.source) + 1 if error.source else error.cell_index
            log = Path("notebooks") / "output" / name / "traceback.txt"
            log.parent.mkdir(parents=True, exist_ok=True)
            log.write_text(strip_ansi("\n".join(error.traceback)) + "\n", encoding="utf-8")
            words = strip_ansi(error.evalue).splitlines()[0] if error.evalue else "no message"
            stopped = f"cell {cell} stopped with {error.ename}: {words} (see {log.as_posix()})"
            raise UserError(f"notebooks/{name}.ipynb: {stopped}.") from None


def check_outputs(cell: NotebookNode, where: str) -> None:
    """Refuse outputs that have no caption or differ between runs; `where` names the cell in messages."""
    for data in (output.get("data", {}) for output in cell.get("outputs", []) if FIGURE not in output.get("data", {})):
        if any(kind.startswith("image/") for kind in data):
            what = "a figure without a caption; end the cell with report.save(figure, name, caption)"
        elif ADDRESS.search(data.get("text/plain", "")) and "text/html" not in data:
            what = "an object's address, which differs between runs; end its last line with a semicolon"
        else:
            continue
        raise UserError(f"{where}: shows {what}.")


def notebook_html(notebook: NotebookNode, name: str, study: Study) -> str:
    """The page of an executed notebook; the same bytes for the same outputs."""
    siblings, number, around = {f"{other}.ipynb": f"../{other}/index.html" for other in study.notebooks}, 0, {}
    for cell in notebook.cells:
        if "injected-parameters" in cell.metadata.get("tags", []):  # shown without the folder that they are written to
            lines = [line for line in cell.source.splitlines() if not line.startswith(("#", "out ="))]
            cell.source = "\n".join(lines)
        else:
            number += 1
        check_outputs(cell, f"notebooks/{name}.ipynb: cell {number}")
    if name in study.notebooks:
        place = study.notebooks.index(name)
        beside = {"previous": study.notebooks[:place][-1:], "next": study.notebooks[place + 1 :][:1]}
        around = {arrow: other[0] for arrow, other in beside.items() if other}
    page = {"title": abstract(name)[0], "study": study.study, "around": around}
    try:
        html = pages.notebook_html(notebook, page, lambda url: siblings.get(url) if url.endswith(".ipynb") else url)
    except UserError as error:
        raise UserError(f"notebooks/{name}.ipynb: {error}") from None
    for private in (os.getcwd(), sys.prefix, str(Path.home())):
        if len(private) > 1 and re.search(re.escape(private) + r"(?![\w-])", html):
            raise UserError(f"notebooks/{name}.ipynb: its page would contain a path of this machine; print no paths.")
    return html


def run(study: Study, name: str, parameters: dict[str, object] | None = None) -> None:
    """Run notebooks/<name>.ipynb and write its page, figures, tables and captions.

    Without `parameters`, this is the stage: the study's first fold and seed, and the folder reports/<study>/<name>/.
    With them (fold, seed, ...), the result goes to notebooks/output/<name>/, since only the stage writes to reports/.
    UserError if the notebook or a parameter does not exist, a cell fails, or the page would differ between runs.
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
        listed = json.loads(captions.read_text(encoding="utf-8")) if captions.exists() else {}
        if set(listed) != {path.stem for path in folder.glob("*.png")}:
            own = "writes a figure of its own; use report.save(figure, name, caption)"
            raise UserError(f"notebooks/{name}.ipynb: {own}.")
    print(f"{name}: {time.perf_counter() - start:.0f} s")


def by_hand(study: Study, name: str, pairs: list[str]) -> None:
    """`run` with parameters as a person types them, NAME=VALUE each, for example ["fold=1"]; values are YAML."""
    for pair in pairs:
        if "=" not in pair:
            raise UserError(f"--parameter {pair}: write NAME=VALUE, for example fold=1.")
    try:
        given = {key: yaml.safe_load(value) for key, value in (pair.split("=", 1) for pair in pairs)}
    except yaml.YAMLError:
        words = " ".join(pairs)
        raise UserError(f"--parameter {words}: a value is not valid YAML; write a number or a word.") from None
    run(study, name, given)
