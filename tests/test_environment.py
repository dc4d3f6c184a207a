"""requirements.lock, pyproject.toml and environment.yml name the same versions, and every direct dependency has a
reason.
"""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name as canonical

from lrfr.doctor import PYTHON, pins

ROOT = Path(__file__).resolve().parents[1]
LOCK_TEXT = (ROOT / "requirements.lock").read_text(encoding="utf-8")
LOCK = pins(LOCK_TEXT)
PYPROJECT_TEXT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
PROJECT = tomllib.loads(PYPROJECT_TEXT)["project"]
# `test` holds the extra `export` too, so that its tests run.
DIRECT = PROJECT["dependencies"] + PROJECT["optional-dependencies"]["test"]
CONDA_TEXT = (ROOT / "environment.yml").read_text(encoding="utf-8")
CONDA = yaml.safe_load(CONDA_TEXT)["dependencies"]
PIP = next(item["pip"] for item in CONDA if isinstance(item, dict))


def test_every_line_of_the_lock_is_an_exact_pin():
    lines = [line for line in LOCK_TEXT.splitlines() if line and not line.startswith("#")]
    for line in lines:
        assert re.fullmatch(r'[A-Za-z0-9._-]+==[A-Za-z0-9.!+_]+( ; sys_platform == "linux")?', line), line
    assert len(lines) == len(LOCK), "a package is pinned twice"


@pytest.mark.parametrize("text", DIRECT)
def test_the_lock_pins_every_direct_dependency_within_its_range(text):
    requirement = Requirement(text)
    assert LOCK[canonical(requirement.name)] in requirement.specifier


@pytest.mark.parametrize("text", DIRECT)
def test_what_is_installed_is_what_the_lock_says_or_at_least_in_range(text):
    requirement = Requirement(text)
    assert requirement.specifier.contains(metadata.version(requirement.name), prereleases=True)


def test_whatever_lrfr_imports_is_a_direct_dependency():
    imported = set()
    for path in (ROOT / "lrfr").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                imported.add(node.module.split(".")[0])
    every = [text for texts in [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()] for text in texts]
    declared = {canonical(Requirement(text).name) for text in every}
    providers = metadata.packages_distributions() | {"dlib": ["dlib-bin"]}  # whose metadata name the extension inside
    for module in sorted(imported - set(sys.stdlib_module_names) - {"lrfr"}):
        packages = {canonical(name) for name in providers.get(module, [module])}
        assert packages & declared, f"{module} is imported but not declared in pyproject.toml"


def test_environment_yml_repeats_the_lock_for_every_direct_dependency():
    assert PIP[0] == "-c requirements.lock"
    named = {canonical(name): version for name, version in (item.split("==") for item in PIP[1:])}
    assert named == {canonical(Requirement(text).name): LOCK[canonical(Requirement(text).name)] for text in DIRECT}


def test_python_versions_agree():
    python = next(item for item in CONDA if isinstance(item, str) and item.startswith("python=")).removeprefix(
        "python="
    )
    assert PROJECT["requires-python"] == f">={python}" == f">={PYTHON[0]}.{PYTHON[1]}"


def test_every_direct_dependency_has_a_reason():
    for text in (
        text for texts in [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()] for text in texts
    ):
        assert re.search(rf'"{re.escape(text)}",\s+# \w.{{9,}}', PYPROJECT_TEXT), (
            f"pyproject.toml: no reason beside {text}"
        )
    for line in CONDA_TEXT.split("dependencies:")[1].splitlines():
        if line.strip() and line.strip() != "- pip:":
            assert re.search(r"\S\s+# \w.{9,}", line), f"environment.yml: no reason beside {line.strip()}"


def test_no_file_names_a_registry_or_an_index():
    for name in ("requirements.lock", "pyproject.toml", "environment.yml", "Makefile", ".ci/run"):
        text = (ROOT / name).read_text(encoding="utf-8")
        assert not re.search(r"index-url|find-links|trusted-host|https?://", text), name


def test_version_is_stated_once_more_only_in_the_package_and_the_citation():
    import lrfr

    assert lrfr.__version__ == PROJECT["version"]
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["version"] == PROJECT["version"]
    assert f"## {PROJECT['version']}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
