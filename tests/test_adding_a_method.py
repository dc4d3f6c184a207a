"""docs/adding-a-method.md, followed literally in a copy of the tree."""

from __future__ import annotations

import json
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
LOWEST, HIGHEST = (float(number) for number in re.search(r"outside (\S+) to\s(\S+) on the stage", PAGE).groups())
# a student as in conf/, invented faces of 8 people and of their teacher: gradient ratios before and after ten steps
RATIOS = """
import torch, yaml
from lrfr.config import Student
from lrfr.methods import METHODS
from lrfr.models.features import Features, Shapes, Targets
from lrfr.models.heads import FaceHead
from lrfr.models.student import build_student, kind_of
from lrfr.train.distill import gradient_ratios

torch.manual_seed(0)
conf = yaml.safe_load(open("conf/config.yaml", encoding="utf-8"))
spec, block = Student(**conf["student"]), conf["models"]["mse"]
maps, labels = kind_of(spec, "plain", 32).maps, torch.arange(32) % 8
student, head = build_student(spec, "plain", 32, 0), FaceHead(8, spec.embedding, 8.0)
method = METHODS[block["method"]](Shapes(maps, maps, spec.embedding, 128, 8, 32), **block["options"])
coarse = torch.randn(8, 3, 8, 8)[labels] + 0.3 * torch.randn(32, 3, 8, 8)
faces = coarse.repeat_interleave(4, 2).repeat_interleave(4, 3)
targets = Targets(torch.arange(32), embedding=torch.randn(8, 128)[labels] + 0.5 * torch.randn(32, 128))
optimizer = torch.optim.AdamW([p for m in (student, head, method) for p in m.parameters()], lr=0.002)
for step in range(11):
    features = Features(*student(faces))
    terms = method(features, head(features.embedding), targets, labels, step / 10)
    terms = {"face": head.loss(features.embedding, labels, 0.3), **terms}
    if step in (0, 10):
        print(max(gradient_ratios(terms, student.stages).values()))
    optimizer.zero_grad()
    sum(terms.values()).backward()
    optimizer.step()
"""
CODE = """
import json
from lrfr.fingerprint import entry, fingerprint
print(json.dumps({name: fingerprint(entry("lrfr.train.distill"), {"METHODS": {name}}) for name in NAMES}))
"""


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
        "conf/config.yaml",
        "tests/methods/test_mse.py",
    ]


def test_its_test_the_contract_suite_and_its_example_pass(copy: Path) -> None:
    files = ["lrfr/methods/mse.py", *(f"tests/methods/test_{name}.py" for name in ("mse", "contract", "options"))]
    found = run(copy, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--doctest-modules", *files, "-k", "mse")
    assert "passed" in found


def test_the_study_has_the_new_model_and_fingerprints_it_alone(copy: Path) -> None:
    run(copy, "-m", "lrfr", "study", "orl")
    options = yaml.safe_load((copy / "params.yaml").read_text(encoding="utf-8"))["models"]["mse"]["options"]
    assert options == {"weight": 500}
    before = json.loads(run(ROOT, "-c", CODE.replace("NAMES", "['hkdd', 'scratch']")))
    after = json.loads(run(copy, "-c", CODE.replace("NAMES", "['hkdd', 'scratch', 'mse']")))
    names = {line.split()[1] for line in after.pop("mse")}
    assert {"Mse", "embedding_mse"} <= names and "decoupled_kd" not in names
    assert after == before, "no other training is done again"


def test_its_weight_obeys_the_rule_of_the_page_and_weight_one_would_not(copy: Path) -> None:
    ratios = [float(line) for line in run(copy, "-c", RATIOS).split()]
    assert len(ratios) == 2 and all(LOWEST < ratio < HIGHEST for ratio in ratios), ratios
    assert ratios[0] / 500 < LOWEST  # gradients are linear in the weight
