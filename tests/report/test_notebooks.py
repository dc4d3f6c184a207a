"""The notebook stage: refusals, clear failures, and pages that are the same bytes twice."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_output

from lrfr.cli import main
from lrfr.errors import UserError
from lrfr.report import notebooks, pages
from tests.report.conftest import OPEN, SECOND, write_notebook, write_second

SOURCES = sorted((Path(__file__).resolve().parents[2] / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_sources_carry_no_outputs_and_have_the_usual_parameters(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert set(notebook.metadata) <= {"kernelspec", "language_info"}
    assert all(not cell.outputs and cell.execution_count is None for cell in notebook.cells if cell.cell_type == "code")
    [tagged] = [cell.source for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    assert re.findall(r"^(\w+) =", tagged, flags=re.MULTILINE) == ["study", "fold", "seed", "out"]
    assert notebook.cells[0].source.startswith("# ")


def test_unknown_parameter_and_notebook_are_refused(project):
    write_notebook("tiny", OPEN)
    with pytest.raises(UserError, match="has no parameter 'fodl'; it takes study, fold, seed, out"):
        notebooks.run(project, "tiny", {"fodl": 1})
    with pytest.raises(UserError, match="there is no notebook 'absent'"):
        notebooks.run(project, "absent")


def test_a_failing_cell_is_named_and_the_old_report_survives(project):
    old = project.reports / "tiny"
    old.mkdir()
    (old / "index.html").write_text("old")
    write_notebook("tiny", "value = 1 / 0")
    before = dict(os.environ)
    stopped = r"notebooks/tiny.ipynb: cell 3 stopped with ZeroDivisionError: division by zero"
    with pytest.raises(UserError, match=stopped) as error:
        notebooks.run(project, "tiny")
    assert "\n" not in str(error.value) and dict(os.environ) == before
    assert "value = 1 / 0" in Path("notebooks/output/tiny/traceback.txt").read_text()
    assert (old / "index.html").read_text() == "old" and [path.name for path in project.reports.glob(".*")] == []


def executed(*outputs: nbformat.NotebookNode, tags: tuple[str, ...] = ()) -> nbformat.NotebookNode:
    """The notebook `tiny` with one more cell that has shown these outputs."""
    notebook = nbformat.read("notebooks/tiny.ipynb", as_version=4)
    notebook.cells.append(new_code_cell("1", outputs=list(outputs), metadata={"tags": list(tags)}))
    return notebook


@pytest.mark.parametrize(
    "data, complaint",
    [
        ({"image/png": "iVBORw0KGgo=", "text/plain": "<Figure>"}, "cell 3: shows a figure without a caption"),
        ({"text/plain": "<object object at 0x7f0123456789>"}, "cell 3: shows an object's address"),
        ({"text/plain": "{here}/runs"}, "its page would contain a path of this machine"),
    ],
)
def test_what_differs_between_runs_is_refused(project, data, complaint):
    write_notebook("tiny")
    data = {kind: value.format(here=Path.cwd()) for kind, value in data.items()}
    with pytest.raises(UserError, match=complaint):
        notebooks.notebook_html(executed(new_output("display_data", data)), "tiny", project)


def test_runs_by_parameter_go_to_the_ignored_folder(project):
    write_notebook("tiny", "print('fold', fold)")
    notebooks.run(project, "tiny", {"fold": 3})
    assert "fold 3" in Path("notebooks/output/tiny/index.html").read_text() and not (project.reports / "tiny").exists()


def test_the_verb_runs_a_notebook_and_names_its_page(project, capsys):
    write_notebook("tiny", "print('seed', seed)")
    assert main(["notebook", "tiny", "-p", "seed=5", "-p", "fold=1"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "notebooks/output/tiny/index.html"
    assert "seed 5" in Path("notebooks/output/tiny/index.html").read_text()
    for damaged in ("seed", "fold=[1"):
        assert main(["notebook", "tiny", "-p", damaged]) == 2 and "write NAME=VALUE" in capsys.readouterr().err


def test_a_run_in_another_folder_gives_the_same_bytes(reported, project):
    write_second()
    notebooks.run(project, SECOND)
    folder, study = reported
    first, second = (
        {path.name: path.read_bytes() for path in (root / study.reports / SECOND).iterdir()}
        for root in (folder, Path())
    )
    names = {"index.html", "empty.png", "figures.json", "numbers.csv", "numbers.md", "tables.json"}
    assert first == second and set(first) == names
    page = first["index.html"].decode()
    assert 'src="empty.png"' in page and "data:image" not in page and "noise" not in page and "<math" in page
    assert (
        "out =" not in page and 'study = <span class="s2">' not in page
    )  # the injected parameters, without the folder


def test_a_solution_is_folded_and_sibling_links_are_followed(project):
    write_notebook("tiny", text="# Tiny\n\nSee [the start](00-start-here.ipynb) and [a stranger](99-none.ipynb).")
    page = notebooks.notebook_html(executed(tags=("solution",)), "tiny", project)
    assert '<a href="../00-start-here/index.html">the start</a>' in page and "99-none" not in page
    assert "<details><summary>Solution</summary>" in page and '<h1 id="tiny">' in page


def test_formulas_become_mathml_and_unknown_commands_are_refused(project):
    html = pages.markdown("Text $x_i$.\n\n$$\n\\begin{aligned} a &= b \\\\ c &= d \\end{aligned}\n$$\n")
    assert html.count("<math") == 2 and "<mtable" in html and "$" not in html
    write_notebook("tiny", text="# Tiny\n\n$\\nosuchcommand{x}$")
    with pytest.raises(UserError, match=r"tiny.ipynb: formula .* cannot be drawn"):
        notebooks.notebook_html(executed(), "tiny", project)


def test_pages_hold_their_figures_and_ask_no_other_host(reported):
    folder, study = reported
    for name in study.notebooks:
        here = folder / study.reports / name
        page = (here / "index.html").read_text(encoding="utf-8")
        assert not re.search(r"""(src|href)=["']?(https?:)?//""", page) and str(folder) not in page
        assert "<script" not in page
        captions = json.loads((here / "figures.json").read_text())
        assert {f"{key}.png" for key in captions} == {path.name for path in here.glob("*.png")}
        assert "<math" in page and "<table" in page and "<img" in page


def test_pieces_of_one_stream_are_one_and_terminal_colours_go(project):
    write_notebook("tiny")
    pieces = [new_output("stream", name="stdout", text=text) for text in ("a\n", "\x1b[31mb\x1b[0m\n")]
    other = new_output("stream", name="stderr", text="c\n")
    page = notebooks.notebook_html(executed(*pieces, other, *pieces[:1]), "tiny", project)
    assert page.count('<pre class="printed">') == 2 and '<pre class="printed">a\nb\n</pre>' in page
