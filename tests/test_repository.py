"""Rules of the house that no linter knows."""

from __future__ import annotations

import ast
import json
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_walls import imported

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted((ROOT / "lrfr").rglob("*.py"))
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
MACHINE_PATH = re.compile(r"(?<![\w.+/=~-])/(?:home|root|Users|work|mnt|opt)/\w|\b[A-Z]:\\Users\\")


def ids(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def tracked() -> list[Path]:
    """Files that git has or would take."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    return [ROOT / name for name in names if name and (ROOT / name).is_file()]


def code_of(notebook: Path) -> str:
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    lines = [line for cell in cells if cell["cell_type"] == "code" for line in "".join(cell["source"]).splitlines()]
    return "\n".join("pass" if line.lstrip().startswith(("%", "!")) else line for line in lines)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=ids)
def test_a_source_notebook_carries_no_outputs_and_no_run_metadata(path):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        assert cell["cell_type"] != "code" or (cell["outputs"] == [] and cell["execution_count"] is None)
        assert not {"papermill", "execution"} & set(cell["metadata"])
    assert "papermill" not in notebook["metadata"]


def test_the_machine_path_pattern_knows_paths_from_look_alikes():
    for text in ("open('/" + "home/ann/x')", "see /" + "root/data", "C:" + "\\Users\\ann"):
        assert MACHINE_PATH.search(text), text
    for text in ("a/home/b", "https://example.org/work/x", "homework/home", "/dev/null", "abc+/opt/Qx9"):
        assert not MACHINE_PATH.search(text), text


def test_no_tracked_file_carries_a_path_of_somebodys_machine():
    hits = []
    for path in tracked():
        data = path.read_bytes()
        if b"\0" not in data and path != Path(__file__).resolve():
            found = MACHINE_PATH.search(data.decode("utf-8", errors="replace"))
            hits += [f"{ids(path)}: {found[0]}"] if found else []
    assert hits == []


def test_methods_know_nothing_about_files_or_data_sets():
    for path in sorted((ROOT / "lrfr" / "methods").glob("*.py")):
        used = imported(path)
        banned = ("dvc", "yaml", "pathlib", "os", "lrfr.data")
        outside = {name for name in used if name in banned or name.startswith(tuple(f"{module}." for module in banned))}
        assert not outside, path.name


def test_evaluate_works_without_torch():
    names = [f"lrfr.evaluate.{module.name}" for module in pkgutil.iter_modules([str(ROOT / "lrfr" / "evaluate")])]
    code = "import importlib, sys; sys.modules['torch'] = None\n"
    code += f"for name in {names!r}: importlib.import_module(name)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_config_has_no_defaults():
    """All numbers come from params.yaml: a field is bare, has constraints only, or is None for a block that may be
    absent.
    """
    trees = [ast.parse((ROOT / "lrfr" / name).read_text(encoding="utf-8")) for name in ("config.py",)]
    blocks = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    fields = [node for block in blocks for node in block.body if isinstance(node, ast.AnnAssign)]
    assert len(fields) > 20
    given = [field for field in fields if field.value is not None and ast.unparse(field.value) != "None"]
    for field in (field for field in given if field.target.id != "variants"):  # divided off `models`, never given
        call = field.value
        assert isinstance(call, ast.Call) and ast.unparse(call.func) == "Field" and not call.args, ast.unparse(field)
        assert not {"default", "default_factory"} & {keyword.arg for keyword in call.keywords}, ast.unparse(field)
