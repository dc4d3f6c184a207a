"""The notebook stage: refusals, clear failures, and pages that are the same bytes twice."""

from __future__ import annotations

import json
import re
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from lrfr.errors import UserError
from lrfr.report import notebooks, pages

SOURCES = sorted((Path(__file__).resolve().parents[2] / "notebooks").glob("*.ipynb"))
OPEN = "from lrfr.report import results\nreport = results.open_study(study, 'tiny', out)"
FIGURE = "from matplotlib import pyplot\nfig = pyplot.figure()\n"


def write(*codes: str, text: str = "# Tiny\n\nThe abstract.") -> None:
    parameters = new_code_cell("study = 'orl'\nfold = 0\nseed = 0\nout = ''", metadata={"tags": ["parameters"]})
    cells = [new_markdown_cell(text), parameters, *map(new_code_cell, codes)]
    nbformat.write(new_notebook(cells=cells), "notebooks/tiny.ipynb")


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_sources_carry_no_outputs_and_have_the_usual_parameters(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert set(notebook.metadata) <= {"kernelspec", "language_info"}
    assert all(not cell.outputs and cell.execution_count is None for cell in notebook.cells if cell.cell_type == "code")
    tagged = [cell.source for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    assert len(tagged) == 1 and re.findall(r"^(\w+) =", tagged[0], flags=re.MULTILINE) == [
        "study",
        "fold",
        "seed",
        "out",
    ]
    assert notebook.cells[0].source.startswith("# ")


def test_unknown_parameter_and_notebook_are_refused(project):
    write(OPEN)
    with pytest.raises(UserError, match="has no parameter 'fodl'; it takes study, fold, seed, out"):
        notebooks.run(project, "tiny", {"fodl": 1})
    with pytest.raises(UserError, match="no such notebook"):
        notebooks.run(project, "absent")


def test_a_failing_cell_is_named_and_the_old_report_survives(project):
    old = project.reports / "tiny"
    old.mkdir()
    (old / "index.html").write_text("old")
    write(OPEN, "value = 1 / 0")
    with pytest.raises(
        UserError, match=r"notebooks/tiny.ipynb: cell 4 stopped with ZeroDivisionError: division by zero"
    ) as error:
        notebooks.run(project, "tiny")
    assert "\n" not in str(error.value)
    assert "value = 1 / 0" in Path("notebooks/output/tiny/traceback.txt").read_text()
    assert (old / "index.html").read_text() == "old" and [path.name for path in project.reports.glob(".*")] == []


@pytest.mark.parametrize(
    "code, complaint",
    [
        (FIGURE + "fig.gca();", "cell 4: shows a figure without a caption"),
        ("object()", "cell 4: shows an object's address"),
        ("print(report.root)", "path"),
    ],
)
def test_what_differs_between_runs_is_refused(project, code, complaint):
    write(OPEN, code)
    with pytest.raises(UserError, match=complaint):
        notebooks.run(project, "tiny")


def test_runs_by_parameter_go_to_the_ignored_folder(project):
    write(OPEN, "print('fold', fold)")
    notebooks.run(project, "tiny", {"fold": 3})
    assert "fold 3" in Path("notebooks/output/tiny/index.html").read_text() and not (project.reports / "tiny").exists()


def test_two_runs_give_the_same_bytes(project):
    def files() -> dict[str, bytes]:
        notebooks.run(project, "tiny")
        return {path.name: path.read_bytes() for path in (project.reports / "tiny").iterdir()}

    table = "import pandas, sys\nreport.save_table(pandas.DataFrame({'a': [1.5]}), 'numbers', 'Some $x^2$.')"
    table += "\nprint('no' + 'ise', file=sys.stderr)"
    write(OPEN, FIGURE + "report.save(fig, 'empty', 'An empty figure.')", table)
    first = files()
    assert first == files() and set(first) == {
        "index.html",
        "empty.png",
        "figures.json",
        "numbers.csv",
        "numbers.md",
        "tables.json",
    }
    page = first["index.html"].decode()
    assert '<img src="empty.png"' in page and "data:image" not in page and "noise" not in page and "<math" in page
    assert (
        "out =" not in page and 'study = <span class="s2">' not in page
    )  # the injected parameters, without the folder


def test_a_solution_is_folded_and_sibling_links_are_followed(project):
    cell = new_code_cell("1", metadata={"tags": ["solution"]})
    cell.outputs = []
    write(OPEN, text="# Tiny\n\nSee [the start](00-start-here.ipynb) and [a stranger](99-none.ipynb).")
    notebook = nbformat.read("notebooks/tiny.ipynb", as_version=4)
    notebook.cells.append(cell)
    page = notebooks.notebook_html(notebook, "tiny", project)
    assert '<a href="../00-start-here/index.html">the start</a>' in page and "99-none" not in page
    assert "<details><summary>Solution</summary>" in page


def test_formulas_become_mathml_and_unknown_commands_are_refused():
    html = pages.markdown_html("Text $x_i$.\n\n$$\n\\begin{aligned} a &= b \\\\ c &= d \\end{aligned}\n$$\n")
    assert html.count("<math") == 2 and "<mtable" in html and "$" not in html
    with pytest.raises(UserError, match="cannot be drawn"):
        pages.markdown_html(r"$\nosuchcommand{x}$")


def test_pages_of_the_committed_notebooks(reported):
    folder, study = reported
    for name in study.notebooks:
        here = folder / study.reports / name
        page = (here / "index.html").read_text(encoding="utf-8")
        assert not re.search(r"""(src|href)=["']?(https?:)?//""", page) and str(folder) not in page
        assert {f"{key}.png" for key in json.loads((here / "figures.json").read_text())} == {
            path.name for path in here.glob("*.png")
        }
        assert "<math" in page and "<table" in page and "<img" in page


def test_pieces_of_one_stream_are_one():
    pieces = [nbformat.v4.new_output("stream", name="stdout", text=text) for text in ("a\n", "b\n")]
    other = nbformat.v4.new_output("stream", name="stderr", text="c\n")
    assert [(o.name, o.text) for o in notebooks.joined([*pieces, other, *pieces])] == [
        ("stdout", "a\nb\n"),
        ("stderr", "c\n"),
        ("stdout", "a\nb\n"),
    ]
