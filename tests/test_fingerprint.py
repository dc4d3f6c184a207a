"""A fingerprint is blind to comments and docstrings, and to nothing that a stage computes with."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from lrfr import fingerprint
from lrfr.config import Model, Study
from lrfr.errors import UserError
from lrfr.train.trainings import with_arms

ROOT = Path(__file__).resolve().parents[1]
ENTRIES = {*fingerprint.ENTRIES.values(), fingerprint.DISTILL, fingerprint.TUNE, fingerprint.NOTEBOOK}
ALL_METHODS = {"lrfr.methods." + name for name in ("acs_review", "baselines", "hkdd", "icd_face", "mkmmd", "se_dfd")}


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of lrfr/ and notebooks/ that a test may edit; the fingerprints are taken of it."""
    shutil.copytree(
        ROOT / "lrfr", tmp_path / "lrfr", ignore=shutil.ignore_patterns("__pycache__", "manifests", "weights")
    )
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks", ignore=shutil.ignore_patterns("output"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(fingerprint, "ROOT", tmp_path / "lrfr")
    fingerprint.parse.cache_clear()
    yield tmp_path / "lrfr"
    fingerprint.parse.cache_clear()


@pytest.fixture
def study(composed: Callable[[str], dict]) -> Study:
    names = sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))
    return Study(**composed("smoke") | {"result_notebooks": names, "cost_notebooks": []})


UNCACHED = getattr(fingerprint.normalised, "__wrapped__", fingerprint.normalised)


def taken(study: Study) -> dict[str, str]:
    """The files of the stage, as a new process would write them (modules are parsed once a call, which only saves time)."""
    fingerprint.parse.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fingerprint, "normalised", cache(UNCACHED))
        fingerprint.run(study)
    return {path.stem: path.read_text(encoding="utf-8") for path in (study.runs / "code").iterdir()}


def edited(study: Study, path: Path, old: str, new: str) -> set[str]:
    """Which fingerprints an edit changes."""
    before, text = taken(study), path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    after = taken(study)
    assert before.keys() == after.keys()
    return {name for name in before if before[name] != after[name]}


def armed(study: Study, *methods: str) -> dict[str, Model]:
    """Everything that is trained: models, arms, further seeds; only of some methods, if any are named."""
    further = {name: study.for_training(name).models[name] for name in study.run_seeds}
    trained = with_arms(study).models | further
    return {name: model for name, model in trained.items() if not methods or model.method in methods}


def test_there_is_one_for_every_stage_model_and_notebook(tree: Path, study: Study):
    expected = {
        *fingerprint.ENTRIES,
        *(f"distill-{m}" for m in armed(study)),
        *(f"notebook-{n}" for n in study.notebooks),
    }
    expected |= {f"tune-{m}" for m in study.tuning.grid}
    found = taken(study)
    assert set(found) == expected and all(found.values())


def test_comments_and_docstrings_change_nothing(tree: Path, study: Study):
    path = tree / "methods" / "hkdd.py"
    assert edited(study, path, '"""', '"""Another first sentence. ') == set()
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    function = next(
        n for n in ast.parse("".join(lines)).body if isinstance(n, ast.FunctionDef) and ast.get_docstring(n)
    )
    start, end = function.body[0].lineno, function.body[0].end_lineno
    before = taken(study)
    lines[start - 1 : end] = ['    """Shorter."""  # and a comment\n', "    # another\n\n"]
    path.write_text("# on top\n" + "".join(lines), encoding="utf-8")
    assert taken(study) == before


def test_a_string_that_is_no_docstring_counts(tree: Path, study: Study):
    assert edited(study, tree / "methods" / "hkdd.py", '"logits"', '"logist"') >= {"distill-hkdd"}


def users(study: Study, module: str) -> set[str]:
    """Notebooks that use a module, by their fingerprint's own list."""
    return {name for name, text in taken(study).items() if name.startswith("notebook-") and module in text}


def test_a_constant_of_one_method_changes_that_method_alone(tree: Path, study: Study):
    path = tree / "methods" / "hkdd.py"
    path.write_text(path.read_text(encoding="utf-8") + "\nCONSTANT = 1\n", encoding="utf-8")
    readers = users(study, "lrfr.methods.hkdd")
    own = {f"distill-{name}" for name in armed(study, "hkdd")}
    assert edited(study, path, "CONSTANT = 1", "CONSTANT = 2") == own | {"benchmark"} | readers


def test_a_constant_that_several_methods_use_changes_all_of_them(tree: Path, study: Study):
    path = tree / "methods" / "baselines.py"
    path.write_text(path.read_text(encoding="utf-8") + "\nCONSTANT = 1\n", encoding="utf-8")
    own = armed(
        study, "scratch", "kd", "feature", "fitnet", "at", "rkd", "hkdd", "mkmmd"
    )  # the last two import soft_targets
    found = edited(study, path, "CONSTANT = 1", "CONSTANT = 2") - users(study, "lrfr.methods.baselines")
    assert found == {"benchmark", "tune-feature"} | {f"distill-{name}" for name in own}


def test_a_constant_of_the_loop_changes_every_training_and_no_teacher(tree: Path, study: Study):
    for file, constant, other in (("trainer", "MARGIN_RAMP", {"benchmark"}), ("distill", "SAVE_EVERY", set())):
        found = edited(study, tree / "train" / f"{file}.py", f"{constant} = ", f"{constant} = 1 + ")
        expected = {f"distill-{name}" for name in armed(study)} | {"tune-feature"} | other
        assert expected == {n for n in found if not n.startswith("notebook-")}


def test_a_change_of_tuning_changes_no_training_and_none_of_ranking_does(tree: Path, study: Study):
    found = edited(study, tree / "train" / "tuning.py", "RECIPE = ", "RECIPE = 1 * ")
    assert found - users(study, "lrfr.train.tuning") == {"tune-feature"}
    found = edited(study, tree / "train" / "ranking.py", "RANKED_AT = ", "RANKED_AT = 1 * ")
    assert not {name for name in found if name.startswith("distill-")} and "rank" in found


def grids(study: Study, changed: Callable[..., Study], models: dict[str, object] | None = None) -> dict[str, str]:
    """Fingerprints of tuning hkdd by one of its options and scratch by the recipe, with other options of the models."""
    grid = {
        "hkdd": {"option": "beta", "values": (1, 4, 8)},
        "scratch": {"option": "train.margin", "values": (0.1, 0.2, 0.3)},
    }
    found = taken(
        changed(study, {"result_notebooks": (), "run_arms": (), "run_seeds": (), "tuning.grid": grid} | (models or {}))
    )
    assert {name for name in found if name.startswith("tune-")} == {"tune-hkdd", "tune-scratch"}
    return found


@pytest.mark.parametrize(
    ("change", "stale"),
    [
        ({"models.hkdd.options.beta": 3}, set()),  # what is tuned: copying the choice asks for no other trial
        ({"models.hkdd.options.hfd": 9}, {"tune-hkdd"}),
        ({"models.hkdd.options.temperature": 9}, {"tune-hkdd"}),
        ({"models.hkdd.teacher": "shuffled"}, {"tune-hkdd"}),
        ({"models.hkdd.views": "hr"}, {"tune-hkdd"}),
        ({"models.hkdd.recipe": {"margin": 0.1}}, {"tune-hkdd"}),
        ({"models.scratch.student": "se"}, {"tune-scratch"}),
        ({"models.scratch.recipe": {"margin": 0.1}}, set()),
        ({"models.kd.options.weight": 9}, set()),  # another model
    ],
    ids=str,
)
def test_tuning_depends_on_the_models_options_but_for_the_tuned_one(
    tree: Path, study: Study, changed: Callable[..., Study], change: dict[str, object], stale: set[str]
):
    before, after = grids(study, changed), grids(study, changed, change)
    assert {name for name in before if before[name] != after[name]} == stale


@pytest.mark.parametrize(
    ("change", "stale"),
    [
        ({"models.hkdd.options.beta": 3}, {"distill-hkdd-no_hfd"}),  # the model's own block is a parameter of its stage
        ({"arms.hkdd.no_hfd": {"options": {"hfd": 0, "beta": 3}}}, {"distill-hkdd-no_hfd"}),
        ({"arms.hkdd.beta_1": {"options": {"beta": 3}}}, set()),  # an arm that is not trained
        ({"models.kd.options.weight": 3}, {"distill-kd-seed1"}),  # a further seed's block as well
    ],
    ids=str,
)
def test_an_arm_depends_on_both_blocks_that_it_is_put_together_from(
    tree: Path, study: Study, changed: Callable[..., Study], change: dict[str, object], stale: set[str]
):
    study = changed(study, {"result_notebooks": (), "tuning.grid": {}})
    assert study.run_arms == ("hkdd-no_hfd",)
    before, after = taken(study), taken(changed(study, change))
    assert {name for name in before if before[name] != after[name]} == stale


def test_a_figure_changes_no_training(tree: Path, study: Study):
    path = tree / "report" / "figures.py"
    path.write_text(path.read_text(encoding="utf-8") + "\nCONSTANT = 1\n", encoding="utf-8")
    found = edited(study, path, "CONSTANT = 1", "CONSTANT = 2")
    assert all(name.startswith("notebook-") for name in found)


def test_the_registry_is_read_from_its_source():
    from lrfr.methods import METHODS

    assert fingerprint.registry() == {name: method.__module__ for name, method in METHODS.items()}


def test_only_the_chosen_method_is_followed():
    found = set(fingerprint.modules({fingerprint.DISTILL}, {"icd_face"}))
    assert found & ALL_METHODS == {"lrfr.methods.icd_face", "lrfr.methods.se_dfd"}  # it uses feature_distillation
    assert set(fingerprint.modules({fingerprint.DISTILL}, set(fingerprint.registry()))) >= ALL_METHODS
    assert not found & fingerprint.IGNORED


def test_what_is_ignored_is_pinned():
    assert {"lrfr", "lrfr.config", "lrfr.config", "lrfr.errors", "lrfr.progress"} == fingerprint.IGNORED


LOADED = """
import importlib, json, sys
found = {}
for entry in sys.argv[1:]:
    for name in [name for name in sys.modules if name.split(".")[0] == "lrfr"]:
        del sys.modules[name]
    importlib.import_module(entry)
    found[entry] = sorted(name for name in sys.modules if name.split(".")[0] == "lrfr")
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def loaded() -> dict[str, list[str]]:
    """entry -> the lrfr modules that importing it really loads, in one other process (third-party packages load once)."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", LOADED, *sorted(ENTRIES)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("entry", sorted(ENTRIES))
def test_everything_that_an_entry_loads_is_in_its_fingerprint(loaded: dict[str, list[str]], entry: str):
    fingerprint.parse.cache_clear()
    listed = set(fingerprint.modules({entry}, {"scratch"}))
    unused = ALL_METHODS - {"lrfr.methods.baselines"}
    for module in set(loaded[entry]) - listed - fingerprint.IGNORED - unused:
        code = (ROOT / fingerprint.source_file(module).relative_to(fingerprint.ROOT.parent)).read_text(encoding="utf-8")
        assert ast.unparse(ast.parse(code)) == "", f"{module} is loaded by {entry}, has code, and is in no fingerprint"
    assert entry in loaded[entry] and entry in listed


def test_imports_are_of_the_kind_that_the_walk_sees():
    for path in (ROOT / "lrfr").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            assert not (isinstance(node, ast.ImportFrom) and node.level), f"{path.name}: a relative import"
            dynamic = isinstance(node, ast.Name) and node.id in ("import_module", "__import__")
            optional = path.name == "onnx_graph.py"  # packages that may be missing, none of this one
            assert not dynamic or optional or path.name == "cli.py", f"{path.name}: an import by name"


def test_a_notebook_counts_what_it_imports(tree: Path, study: Study):
    source = {
        "cells": [
            {"cell_type": "markdown", "source": ["import lrfr.protocol.embed"]},
            {"cell_type": "code", "source": []},
        ]
    }
    path = Path("notebooks/00-start-here.ipynb")
    path.write_text(json.dumps(source))
    assert fingerprint.notebook_imports(path) == set()
    source["cells"][1]["source"] = ["from lrfr.methods import hkdd\n", "import lrfr.data.degrade"]
    path.write_text(json.dumps(source))
    assert fingerprint.notebook_imports(path) >= {"lrfr.methods.hkdd", "lrfr.data.degrade"}
    alone = study.model_copy(update={"result_notebooks": ("00-start-here",)})
    assert "lrfr.methods.hkdd" in taken(alone)["notebook-00-start-here"]


def test_a_notebook_that_does_not_exist_is_refused_and_the_old_fingerprints_stay(tree: Path, study: Study):
    before = taken(study)
    with pytest.raises(UserError, match="notebooks/99-nothing.ipynb"):
        fingerprint.run(study.model_copy(update={"result_notebooks": ("99-nothing",)}))
    assert {path.stem: path.read_text(encoding="utf-8") for path in (study.runs / "code").iterdir()} == before
