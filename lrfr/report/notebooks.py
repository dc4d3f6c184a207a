"""The `notebook` stage: run a notebook with the study's parameters and keep a page, its figures and its tables.

papermill runs it and nbconvert draws it. Beyond that, parameters that the notebook does not have are refused, the page
holds nothing that differs between two runs, and every figure has a name and a caption.
"""

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
from nbconvert import HTMLExporter
from nbconvert.filters import strip_ansi
from nbconvert.preprocessors import CoalesceStreamsPreprocessor, TagRemovePreprocessor
from nbformat import NotebookNode
from papermill.exceptions import PapermillExecutionError

import lrfr
from lrfr.config import Study
from lrfr.errors import UserError
from lrfr.files import atomic_folder, write_text
from lrfr.report import pages
from lrfr.report.results import FIGURE

# Notebooks, and tables of what was measured in seconds or that read such a table: no other notebook may read these.
TIMED, TIMES = ("09-cost-and-deployment",), ("cost", "schemes", "throughput", "latency", "claims")
ADDRESS = re.compile(r"\bat 0x[0-9a-f]{6,}")
OUTPUT = Path("notebooks") / "output"  # of runs by hand; git ignores it
KERNEL = "lrfr"  # not python3: that name may belong to another environment
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def source(name: str) -> NotebookNode:
    """A notebook as it is written, without outputs; UserError if there is none of that name."""
    path = Path("notebooks") / f"{name}.ipynb"
    if not path.is_file():
        known = ", ".join(sorted(other.stem for other in path.parent.glob("*.ipynb")))
        raise UserError(f"{path.as_posix()}: there is no notebook '{name}'; known are {known}.")
    return nbformat.read(path, as_version=4)


def abstract(name: str) -> tuple[str, str]:
    """Title and first paragraph of a notebook, from its first cell, as Markdown."""
    title, _, rest = source(name).cells[0].source.strip().partition("\n")
    return title.removeprefix("# ").strip(), rest.strip().split("\n\n")[0]


def captions(folder: Path, kind: str) -> dict[str, str]:
    """Of the "figures" or "tables" that a notebook has written to a folder, by name."""
    path = folder / f"{kind}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


@contextmanager
def environment(threads: int) -> Iterator[None]:
    """This interpreter's own kernel, a fixed number of threads, nobody's IPython profile, and this very package."""
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}", "--log-level=ERROR"]
    kernel = json.dumps({"argv": command, "display_name": KERNEL, "language": "python"})
    package, before = str(Path(lrfr.__file__).resolve().parents[1]), dict(os.environ)
    with tempfile.TemporaryDirectory() as folder:
        write_text(Path(folder) / "kernels" / KERNEL / "kernel.json", kernel)
        os.environ |= {"JUPYTER_PATH": folder, "IPYTHONDIR": folder} | dict.fromkeys(THREADS, str(threads))
        os.environ |= {"PYTHONHASHSEED": "0", "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
        try:
            yield
        finally:
            os.environ.clear()
            os.environ |= before


def execute(name: str, parameters: dict[str, object], threads: int) -> NotebookNode:
    """The notebook with its outputs, run in the current folder. UserError names the cell and where the traceback is."""
    cells = source(name).cells
    tagged = [cell.source for cell in cells if "parameters" in cell.metadata.get("tags", [])]
    known = re.findall(r"^(\w+)\s*=", "\n".join(tagged), flags=re.MULTILINE)
    if unknown := [key for key in parameters if key not in known]:
        raise UserError(f"notebooks/{name}.ipynb: has no parameter '{unknown[0]}'; it takes {', '.join(known)}.")
    logging.getLogger("papermill").setLevel(logging.ERROR)
    with environment(threads), tempfile.TemporaryDirectory() as folder:
        paths = f"notebooks/{name}.ipynb", str(Path(folder) / "executed.ipynb")
        how = {"kernel_name": KERNEL, "language": "python", "progress_bar": False, "cwd": os.getcwd()}
        try:
            return papermill.execute_notebook(*paths, parameters, **how)
        except PapermillExecutionError as error:
            cell = [cell.source for cell in cells].index(error.source) + 1 if error.source else error.cell_index
            log = OUTPUT / name / "traceback.txt"
            write_text(log, strip_ansi("\n".join(error.traceback)) + "\n")
            words = strip_ansi(error.evalue or "no message").splitlines()[0]
            stopped = f"cell {cell} stopped with {error.ename}: {words} (see {log.as_posix()})"
            raise UserError(f"notebooks/{name}.ipynb: {stopped}.") from None


def notebook_html(notebook: NotebookNode, name: str, study: Study) -> str:
    """The page of an executed notebook; the same bytes for the same outputs. UserError if it would differ by run."""
    siblings, number = {f"{other}.ipynb": f"../{other}/index.html" for other in study.notebooks}, 0
    for cell in notebook.cells:
        if "injected-parameters" in cell.metadata.get("tags", []):  # shown without the folder that they are written to
            cell.source = re.sub(r"^(#|out =).*\n?", "", cell.source, flags=re.MULTILINE).rstrip("\n")
        else:
            number += 1
        where = f"notebooks/{name}.ipynb: cell {number}: shows"
        for data in (output.get("data", {}) for output in cell.get("outputs", [])):
            if FIGURE not in data and any(kind.startswith("image/") for kind in data):
                raise UserError(f"{where} a figure without a caption; use report.save(figure, name, caption).")
            if ADDRESS.search(data.get("text/plain", "")) and not {FIGURE, "text/html"} & set(data):
                raise UserError(f"{where} an object's address; end its last line with a semicolon.")
    place = study.notebooks.index(name) if name in study.notebooks else len(study.notebooks) + 1
    beside = {"previous": study.notebooks[place - 1 : place], "next": study.notebooks[place + 1 : place + 2]}
    around = {arrow: other[0] for arrow, other in beside.items() if other}
    page = {"title": abstract(name)[0], "study": study.study, "around": around}

    def link(url: str) -> str | None:
        return siblings.get(url) if url.endswith(".ipynb") else url

    filters = {**pages.FILTERS, "markdown2html": lambda text: pages.markdown(text, link)}
    hide = TagRemovePreprocessor(enabled=True, remove_cell_tags={"parameters"})
    join = CoalesceStreamsPreprocessor(enabled=True)  # where a kernel cuts what is printed depends on its timing
    template = {"template_paths": [str(pages.TEMPLATES)], "template_file": "notebook.html.j2"}
    exporter = HTMLExporter(preprocessors=[hide, join], filters=filters, **template)
    try:
        html = exporter.from_notebook_node(notebook, {"page": page})[0] + "\n"
    except UserError as error:
        raise UserError(f"notebooks/{name}.ipynb: {error}") from None
    for private in (os.getcwd(), sys.prefix, str(Path.home())):
        if len(private) > 1 and re.search(re.escape(private) + r"(?![\w-])", html):
            raise UserError(f"notebooks/{name}.ipynb: its page would contain a path of this machine; print no paths.")
    return html


def run(study: Study, name: str, given: dict[str, object] | None = None) -> None:
    """The `notebook` stage: page, figures, tables and captions of notebooks/<name>.ipynb to reports/<study>/<name>/.

    Parameters are the study's first fold and seed. With others given, even {}, all goes to notebooks/output/<name>/.
    UserError if there is no such notebook, a cell fails, or the page would differ between runs.
    """
    usual = {"study": study.study, "fold": study.faces.run_folds[0], "seed": study.train.seeds[0]}
    start = time.perf_counter()
    with atomic_folder((OUTPUT if given is not None else study.reports) / name) as folder:
        executed = execute(name, usual | (given or {}) | {"out": folder.as_posix()}, study.threads)
        write_text(folder / "index.html", notebook_html(executed, name, study))
        if set(captions(folder, "figures")) != {path.stem for path in folder.glob("*.png")}:
            raise UserError(f"notebooks/{name}.ipynb: has a figure of its own; use report.save(figure, name, caption).")
    print(f"{name}: {time.perf_counter() - start:.0f} s")
