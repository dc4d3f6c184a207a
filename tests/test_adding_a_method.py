"""docs/adding-a-method.md, followed literally in a copy of the tree."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "adding-a-method.md").read_text(encoding="utf-8")
STEP = re.compile(
    r"^(?:Create `(?P<create>[^`]+)`|[^\n]*?Replace `(?P<old>[^`]+)` in\s`(?P<file>[^`]+)`)[^\n]*"
    r"(?:\n(?!```)[^\n]*)*?\n+```\w+\n(?P<block>.*?)\n```$",
    re.MULTILINE | re.DOTALL,
)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("copy")
    for top in ("lrfr", "conf", "tests/methods"):
        for source in (ROOT / top).rglob("*"):
            if source.suffix in (".py", ".yaml", ".csv"):
                target = folder / source.relative_to(ROOT)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(source.read_bytes())
    for step in STEP.finditer(PAGE):
        if step["create"]:
            (folder / step["create"]).write_text(step["block"] + "\n", encoding="utf-8")
        else:
            path = folder / step["file"]
            text = path.read_text(encoding="utf-8")
            assert text.count(step["old"]) == 1, step["old"]
            path.write_text(text.replace(step["old"], step["block"]), encoding="utf-8")
    return folder


def run(folder: Path, *arguments: str) -> str:
    environment = os.environ | {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def test_the_page_has_its_steps() -> None:
    assert [step["create"] or step["file"] for step in STEP.finditer(PAGE)] == [
        "lrfr/methods/mse.py",
        "lrfr/methods/__init__.py",
        "lrfr/methods/__init__.py",
        "conf/model/mse.yaml",
        "conf/config.yaml",
        "tests/methods/test_mse.py",
        "tests/methods/test_contract.py",
    ]


def test_its_test_and_the_contract_suite_pass(copy: Path) -> None:
    assert "passed" in run(
        copy,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "tests/methods/test_mse.py",
        "tests/methods/test_contract.py",
        "-k",
        "mse",
    )


def test_the_study_has_the_new_model_and_fingerprints_it_alone(copy: Path) -> None:
    run(copy, "-m", "lrfr", "study", "orl")
    assert yaml.safe_load((copy / "params.yaml").read_text(encoding="utf-8"))["models"]["mse"]["options"] == {
        "weight": 1.0
    }
    code = "from lrfr import fingerprint as f; print(*f.modules({f.DISTILL}, {'mse'}), sep='\\n')"
    modules = run(copy, "-c", code).split()
    assert "lrfr.methods.mse" in modules and "lrfr.methods.hkdd" not in modules
