"""No pickle is loaded unrestricted anywhere: a walk over the source of the package and of the notebooks."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted((ROOT / "lrfr").rglob("*.py"))
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
# Modules that load pickles, or are pickles under another name.
LOADERS = {
    "pickle",
    "_pickle",
    "cPickle",
    "dill",
    "joblib",
    "cloudpickle",
    "shelve",
    "marshal",
    "jsonpickle",
    "torch.package",
}
CALLS = {"read_pickle", "unpickle", "Unpickler", "_Unpickler"}  # under any module's name
# The restricted unpickler, and the writer of a miniature that only dumps: file -> what of `pickle` it may use.
ALLOWED = {
    "lrfr/gate/insightface_bin.py": {"class Symbolic(pickle.Unpickler)"},
    "lrfr/benchmarks/miniatures.py": {"pickle.dumps"},
}


def dotted(node: ast.expr) -> str:
    """`a.b.c` of an expression of names and attributes, else ''."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return ""


def is_constant(call: ast.Call, name: str, value: bool) -> bool:
    return any(k.arg == name and isinstance(k.value, ast.Constant) and k.value.value is value for k in call.keywords)


def loads(source: str) -> set[str]:
    """What of a source could load a pickle, by the full names that its imports give to its own."""
    tree, full, found = ast.parse(source), {}, set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                full[alias.asname or alias.name.split(".")[0]] = (
                    alias.name if alias.asname else alias.name.split(".")[0]
                )
                if alias.name in LOADERS - {"pickle"}:
                    found.add(f"import {alias.name}")
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                full[alias.asname or alias.name] = f"{node.module}.{alias.name}"
                if node.module in LOADERS or f"{node.module}.{alias.name}" in LOADERS:
                    found.add(f"from {node.module} import {alias.name}")

    def name_of(node: ast.expr) -> str:
        first, _, rest = dotted(node).partition(".")
        return ".".join(part for part in (full.get(first, first), rest) if part)

    bases = {id(base) for node in ast.walk(tree) if isinstance(node, ast.ClassDef) for base in node.bases}
    parts = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            found |= {
                f"class {node.name}({name_of(base)})" for base in node.bases if name_of(base).endswith("Unpickler")
            }
        elif isinstance(node, ast.Constant) and node.value in LOADERS:
            found.add(f"the text {node.value!r}")  # import_module("pickle"), __import__("pickle")
        elif isinstance(node, (ast.Name, ast.Attribute)) and id(node) not in bases and id(node) not in parts:
            name = name_of(node)
            module, _, last = name.rpartition(".")
            if module == "pickle" or name == "pickle" or (last in CALLS and name not in ("", last)):
                found.add(name)
        if isinstance(node, ast.Call):
            name = name_of(node.func)
            if name in ("torch.load", "torch.serialization.load") and not is_constant(node, "weights_only", True):
                found.add(f"{name} without weights_only=True")
            if any(k.arg == "allow_pickle" for k in node.keywords) and not is_constant(node, "allow_pickle", False):
                found.add(f"{name or dotted(node.func)} with allow_pickle")
            if name in ("numpy.load", "numpy.lib.format.read_array") and len(node.args) > 2:
                found.add(f"{name} with allow_pickle by position")
    return found


@pytest.mark.parametrize(
    "source",
    [
        "import pickle\npickle.load(f)",
        "import pickle\npickle.loads(b)",
        "import pickle as p\np.loads(b)",
        "import pickle\nf = pickle.loads",
        "import pickle\ng = getattr(pickle, 'lo' + 'ads')",
        "from pickle import loads\nloads(b)",
        "from pickle import loads as read",
        "import pickle\nclass Any(pickle.Unpickler): pass",
        "import pickle\npickle.Unpickler(f).load()",
        "from importlib import import_module\nimport_module('pickle')",
        "__import__('dill')",
        "import dill",
        "import joblib\njoblib.load(p)",
        "import pandas as pd\npd.read_pickle(p)",
        "import numpy as np\nnp.load(p, allow_pickle=True)",
        "import numpy as np\nnp.load(p, allow_pickle=flag)",
        "import numpy as np\nnp.load(p, None, True)",
        "import torch\ntorch.load(p)",
        "import torch\ntorch.load(p, weights_only=False)",
        "from torch import load\nload(p)",
        "import torch as t\nt.load(p)",
        "from torch import package",
        "import shelve",
        "def f():\n    import marshal\n    marshal.loads(b)",
    ],
)
def test_what_loads_a_pickle_is_found(source):
    assert loads(source)


@pytest.mark.parametrize(
    "source",
    [
        "import json\njson.load(f)",
        "import numpy as np\nnp.load(p)\nnp.load(p, mmap_mode='r', allow_pickle=False)",
        "import torch\ntorch.load(p, weights_only=True)",
        "import pickletools\npickletools.genops(f)",
        "import yaml\nyaml.safe_load(f)",
    ],
)
def test_what_loads_none_is_left_alone(source):
    assert loads(source) == set()


def test_nothing_in_the_package_loads_a_pickle_but_the_restricted_unpickler():
    found = {path.relative_to(ROOT).as_posix(): loads(path.read_text(encoding="utf-8")) for path in SOURCES}
    assert len(found) > 60
    assert {path: uses for path, uses in found.items() if uses} == ALLOWED


def test_nor_does_a_test_with_torch():
    """Tests make pickles by the dozen, but none reads one with torch."""
    sources = [path.read_text(encoding="utf-8") for path in sorted((ROOT / "tests").rglob("*.py"))]
    assert [use for source in sources for use in loads(source) if use.startswith("torch.")] == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_nor_does_a_notebook(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    lines = [line for cell in cells if cell["cell_type"] == "code" for line in "".join(cell["source"]).splitlines()]
    assert loads("\n".join("pass" if line.lstrip().startswith(("%", "!")) else line for line in lines)) == set()
