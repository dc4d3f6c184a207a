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

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted((ROOT / "lrfr").rglob("*.py"))
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
MACHINE_PATH = re.compile(r"(?<![\w.+/=~-])/(?:home|root|Users|work|mnt|opt)/\w|\b[A-Z]:\\Users\\")

# Who may import whom: a package imports from lower levels and from its own. What is not named here (cli, doctor, ...) is on top.
LEVELS = {
    "errors": 0, "progress": 0, "parallel": 0, "parameters": 0, "config": 0,
    "data": 1, "fingerprint": 1, "models": 2, "methods": 3, "evaluate": 4, "train": 5, "deploy": 6, "report": 6,
}  # fmt: skip
TOP = 7


def ids(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def tracked() -> list[Path]:
    """Files that git has or would take."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    return [ROOT / name for name in names if name and (ROOT / name).is_file()]


def part(module: str) -> str:
    """'lrfr.files' -> 'data'; 'lrfr' itself -> ''."""
    return (module.split(".") + [""])[1]


def imports(source: str, package: str) -> set[str]:
    """Modules that a source file imports anywhere, relative ones resolved against its package."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            found |= {module} | {f"{module}.{alias.name}" for alias in node.names}
    return found


def upward(path: Path) -> set[str]:
    """The parts of lrfr that this file may not import, and does."""
    relative = path.relative_to(ROOT).with_suffix("")
    own = part(".".join(relative.parts))
    modules = imports(path.read_text(encoding="utf-8"), ".".join(relative.parts[:-1]))
    used = {part(module) for module in modules if module.startswith("lrfr.")}
    known = {name for name in used if (ROOT / "lrfr" / name).is_dir() or (ROOT / "lrfr" / f"{name}.py").is_file()}
    level = LEVELS.get(own, TOP)
    return {name for name in known - {own} if LEVELS.get(name, TOP) > level}


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


@pytest.mark.parametrize("path", SOURCES, ids=ids)
def test_a_file_fits_in_250_lines(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 250


@pytest.mark.parametrize("path", SOURCES, ids=ids)
def test_imports_point_one_way(path):
    assert upward(path) == set()


def test_methods_know_nothing_about_files_or_data_sets():
    for path in sorted((ROOT / "lrfr" / "methods").glob("*.py")):
        used = imports(path.read_text(encoding="utf-8"), "lrfr.methods")
        banned = ("dvc", "yaml", "pathlib", "os", "lrfr.data")
        outside = {name for name in used if name in banned or name.startswith(tuple(f"{module}." for module in banned))}
        assert not outside, path.name


def test_evaluate_works_without_torch():
    names = [f"lrfr.evaluate.{module.name}" for module in pkgutil.iter_modules([str(ROOT / "lrfr" / "evaluate")])]
    code = f"import sys; sys.modules['torch'] = None\nimport importlib\nfor name in {names!r}: importlib.import_module(name)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_config_has_no_defaults():
    """All numbers come from params.yaml: a field is bare, has constraints only, or is None for a block that may be absent."""
    trees = [ast.parse((ROOT / "lrfr" / name).read_text(encoding="utf-8")) for name in ("config.py", "parameters.py")]
    blocks = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    fields = [node for block in blocks for node in block.body if isinstance(node, ast.AnnAssign)]
    assert len(fields) > 20
    for field in (field for field in fields if field.value is not None and ast.unparse(field.value) != "None"):
        call = field.value
        assert isinstance(call, ast.Call) and ast.unparse(call.func) == "Field" and not call.args, ast.unparse(field)
        assert not {"default", "default_factory"} & {keyword.arg for keyword in call.keywords}, ast.unparse(field)
