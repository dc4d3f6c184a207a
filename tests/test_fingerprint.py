"""A fingerprint is blind to moves, comments, docstrings and annotations, and to nothing that a stage computes with."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from lrfr import fingerprint
from lrfr.fingerprint import code_of, definitions, entry, parse, resolve, whole

ROOT = Path(__file__).resolve().parents[1]
DISTILL, TEACHER, EVALUATE = "lrfr.train.distill", "lrfr.train.teacher", "lrfr.protocol.study"
METHODS = ("scratch", "kd", "feature", "hkdd", "mkmmd", "icd_face", "acs_review")


def forget() -> None:
    for cached in (parse, definitions, resolve, whole):
        cached.cache_clear()


def taken() -> dict[str, list[str]]:
    """Fingerprints of the training of each method, of two other stages, and of the bank of views."""
    forget()
    teachers = {"TEACHERS": {"dlib_resnet"}}
    found = {m: fingerprint.fingerprint(entry(DISTILL), {"METHODS": {m}, **teachers}) for m in METHODS}
    found |= {name: fingerprint.fingerprint(entry(name), teachers) for name in (TEACHER, EVALUATE)}
    return found


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of lrfr/ that a test may edit; fingerprints are taken of it."""
    shutil.copytree(
        ROOT / "lrfr", tmp_path / "lrfr", ignore=shutil.ignore_patterns("__pycache__", "manifests", "weights")
    )
    monkeypatch.setattr(fingerprint, "ROOT", tmp_path / "lrfr")
    yield tmp_path / "lrfr"
    forget()


@pytest.fixture(scope="module")
def before() -> dict[str, list[str]]:
    return taken()


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text, f"{path.name} has no {old!r}"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def stale(before: dict[str, list[str]]) -> set[str]:
    after = taken()
    return {name for name in before if before[name] != after[name]}


def cut(path: Path, function: str) -> str:
    """Take a function out of a file; its code."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    node = next(n for n in ast.parse("".join(lines)).body if isinstance(n, ast.FunctionDef) and n.name == function)
    code = "".join(lines[node.lineno - 1 : node.end_lineno])
    path.write_text("".join(lines[: node.lineno - 1] + lines[node.end_lineno :]), encoding="utf-8")
    return code


def test_a_function_that_moves_to_another_file_changes_nothing(tree: Path, before: dict[str, list[str]]):
    for function in ("halved", "gradient_ratios"):
        code = cut(tree / "train/distill.py", function)
        with (tree / "train/checkpoint.py").open("a", encoding="utf-8") as file:
            file.write("\n\n" + code)
        replace(
            tree / "train/distill.py",
            "from lrfr.train.checkpoint import",
            f"from lrfr.train.checkpoint import {function}\nfrom lrfr.train.checkpoint import",
        )
    assert stale(before) == set()


def test_a_file_that_is_renamed_changes_nothing(tree: Path, before: dict[str, list[str]]):
    (tree / "data" / "degrade.py").rename(tree / "data" / "smaller.py")
    for path in tree.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace("lrfr.data.degrade", "lrfr.data.smaller"), encoding="utf-8")
    assert stale(before) == set()


def test_comments_docstrings_and_annotations_change_nothing(tree: Path, before: dict[str, list[str]]):
    path = tree / "train" / "distill.py"
    replace(path, '"""', '"""Another first sentence. ')
    replace(path, "MARGIN_RAMP = ", "# a comment\nMARGIN_RAMP: float = ")
    replace(path, "def halved(state: dict[str, Tensor]) -> dict[str, Tensor]:", "def halved(state: 'object'):")
    assert stale(before) == set()


@pytest.mark.parametrize(
    ("file", "old", "new", "expected"),
    [
        ("train/distill.py", "MARGIN_RAMP = ", "MARGIN_RAMP = 1 + ", set(METHODS)),
        ("train/distill.py", "SAVE_EVERY = ", "SAVE_EVERY = 1 + ", set(METHODS)),
        ("methods/mkmmd.py", "SMALLEST_VARIANCE = ", "SMALLEST_VARIANCE = 2 * ", {"mkmmd"}),
        ("data/draws.py", "PER_PERSON = ", "PER_PERSON = 1 + ", set(METHODS)),
        ("data/align.py", "CHIP = ", "CHIP = 1 + ", set(METHODS)),  # the middle of a chip with its margin
        ("data/align.py", "PADDING = ", "PADDING = 1 + ", set()),  # the chips themselves are data
        ("train/tuning.py", "best = ", "best = 0 * ", set()),
        ("train/ranking.py", "RANKED_AT = ", "RANKED_AT = 1 + ", set()),
        ("models/inception.py", "CHANNELS = ", "CHANNELS = 2 * ", set()),  # a teacher that is not in use
        ("config.py", "def load(", "def load(encoding=None, *, ", set()),
    ],
)
def test_a_changed_constant_changes_exactly_what_uses_it(
    tree: Path, before: dict[str, list[str]], file: str, old: str, new: str, expected: set[str]
):
    path = tree / file
    if old not in path.read_text(encoding="utf-8"):
        pytest.fail(f"{file} has no {old!r} any more: name another constant")
    replace(path, old, new)
    assert stale(before) & set(METHODS) == expected


def test_a_function_that_several_methods_use_changes_these(tree: Path, before: dict[str, list[str]]):
    replace(tree / "methods" / "baselines.py", "temperature**2", "temperature**3")
    found = stale(before)
    assert {"kd", "mkmmd"} <= found and not found & {"scratch", "feature", "icd_face", "acs_review", TEACHER}


def test_naming_another_function_of_the_same_name_is_a_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Both are reached, so the set of definitions alone would not tell."""
    room = tmp_path / "lrfr"
    room.mkdir()
    (room / "__init__.py").write_text("")
    (room / "one.py").write_text("def f():\n    return 1\n")
    (room / "two.py").write_text("def f():\n    return 2\n")
    monkeypatch.setattr(fingerprint, "ROOT", room)
    found = []
    for first, second in (("one", "two"), ("two", "one")):
        (room / "main.py").write_text(
            f"from lrfr.{first} import f\nfrom lrfr.{second} import f as g\n\ndef run():\n    return f() - g()\n"
        )
        forget()
        found.append(fingerprint.fingerprint(entry("lrfr.main"), {}))
    forget()
    assert found[0] != found[1] and len(found[0]) == len(found[1]) == 3


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("X = 1", "X: int = 1", True),
        ("def f(a: int) -> str:\n    'says'\n    return a", "def f(a):\n    # nothing\n    return (a)", True),
        ("X = 'a'", "X = 'b'", False),
        ("X = 1", "X = 1.0", False),
        ("def f(a, b=1): return a", "def f(a, b=2): return a", False),
        ("def f(a):\n    return a", "def f(a):\n    'no docstring'.join(a)\n    return a", False),
        (
            "class A:\n    x: int\n    y: int",
            "class A:\n    y: int\n    x: int",
            False,
        ),  # the order of a tuple's fields
        ("class A:\n    x: int = 1", "class A:\n    x: int = 2", False),
        ("X = f'{a:.2f}'", "X = f'{a:.3f}'", False),
    ],
)
def test_what_counts_as_the_same_code(first: str, second: str, same: bool):
    texts = [fingerprint.text(ast.parse(code).body) for code in (first, second)]
    assert (texts[0] == texts[1]) is same


def test_what_a_module_does_on_import_counts(tree: Path, before: dict[str, list[str]]):
    path = tree / "methods" / "mkmmd.py"
    path.write_text(path.read_text(encoding="utf-8") + "\nprint('on import')\n", encoding="utf-8")
    assert stale(before) & set(METHODS) == {"mkmmd"}


def test_only_chosen_entries_of_a_registry_are_followed():
    from lrfr.methods import METHODS as REGISTRY

    names = {
        name: {line.split()[1] for line in fingerprint.fingerprint(entry(DISTILL), {"METHODS": {name}})}
        for name in REGISTRY
    }
    for name, method in REGISTRY.items():
        others = {other.__name__ for other in REGISTRY.values()} - {method.__name__}
        assert method.__name__ in names[name] and not others & names[name]
    whole_registry = {line.split()[1] for line in fingerprint.fingerprint(entry(DISTILL), {})}
    assert whole_registry >= {method.__name__ for method in REGISTRY.values()}


def test_parameters_are_found_in_the_code():
    code = code_of(
        "lrfr", [ast.parse("x = study.train\ny = study.evaluate.draws + other.evaluate.far\nz = study.views.size[0]")]
    )
    assert code.paths == {("train",), ("evaluate", "draws"), ("views", "size")}


def test_imports_are_of_the_kind_that_the_walk_sees():
    for path in (ROOT / "lrfr").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            assert not (isinstance(node, ast.ImportFrom) and (node.level or any(a.name == "*" for a in node.names)))
            dynamic = isinstance(node, ast.Name) and node.id in ("import_module", "__import__")
            optional = path.name == "onnx_graph.py"  # packages that may be missing, none of this one
            assert not dynamic or optional or path.name == "cli.py", f"{path.name}: an import by name"


@cache
def other_pythons() -> list[str]:
    """Interpreters of other versions on this machine, which need none of the packages."""
    found = [shutil.which(f"python3.{minor}") for minor in range(11, 16)]
    found += sorted(map(str, Path.home().glob(".pyenv/versions/3.1[1-9]*/bin/python3")))
    kept: dict[str, str] = {}
    for python in filter(None, found):
        done = subprocess.run([python, "-c", "import sys; print(sys.version_info[:2])"], capture_output=True, text=True)
        if done.returncode == 0 and done.stdout.strip() not in (str(sys.version_info[:2]), ""):
            kept.setdefault(done.stdout.strip(), python)
    return list(kept.values())


PRINT = """
from lrfr import fingerprint as f
for module in ("lrfr.train.distill", "lrfr.protocol.study", "lrfr.report.tables", "lrfr.deploy.export"):
    print(*f.fingerprint(f.entry(module), {}), sep="\\n")
"""


@pytest.mark.skipif(not other_pythons(), reason="no other Python on this machine")
@pytest.mark.parametrize("python", other_pythons(), ids=lambda path: Path(path).parts[-3])
def test_another_version_of_python_takes_the_same_fingerprints(python: str, run_python: Callable[[str], str]):
    assert run_python(python) == run_python(sys.executable) != ""


@pytest.fixture(scope="module")
def run_python() -> Callable[[str], str]:
    @cache
    def run(python: str) -> str:
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        return subprocess.run([python, "-c", PRINT], env=environment, capture_output=True, text=True, check=True).stdout

    return run
