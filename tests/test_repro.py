"""`lrfr repro`: independent trainings really run at the same time, and DVC knows all of them afterwards."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from lrfr.errors import UserError
from lrfr.repro import changed, in_order, reproduce, side_by_side, stages

# each waits until the other one has started: one after the other they would wait in vain
TOGETHER = """import pathlib, sys, time
me = pathlib.Path(sys.argv[1])
other = pathlib.Path("b" if me.name == "a" else "a")
me.with_suffix(".started").touch()
for _ in range(1200):
    if other.with_suffix(".started").exists():
        me.with_suffix(".txt").touch()
        break
    time.sleep(0.1)
"""


@pytest.fixture
def graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    for command in (["git", "init", "-q"], [sys.executable, "-m", "dvc", "init", "-q"]):
        subprocess.run(command, check=True, capture_output=True)
    return tmp_path


def write(script: str) -> list[str]:
    """A matrix stage with the items a and b, each running the script with its own name; returns the stages' names.

    Both read what the stage `other` writes, as all trainings read the code's fingerprints; it has run.
    """
    Path("script.py").write_text(script, encoding="utf-8")
    Path("params.yaml").write_text("models: {a: 1, b: 1}\n", encoding="utf-8")
    Path("first.py").write_text(
        "from pathlib import Path; Path('read').mkdir(); Path('read/x').touch()", encoding="utf-8"
    )
    command = f'"{sys.executable}" script.py ${{item.model}}'
    outs = [{"${item.model}.txt": {"cache": False}}]
    stage = {"matrix": {"model": "${models}"}, "cmd": command, "deps": ["read/x"], "outs": outs}
    first = {"cmd": f'"{sys.executable}" first.py', "outs": ["read"]}
    Path("dvc.yaml").write_text(yaml.safe_dump({"stages": {"distill": stage, "other": first}}), encoding="utf-8")
    reproduce("other")
    return ["distill@a", "distill@b"]


def test_trainings_run_side_by_side_and_end_up_in_the_lock(graph: Path) -> None:
    names = write(TOGETHER)
    assert stages() == [*names, "other"]
    side_by_side(names, 2, "trainings")
    assert set(yaml.safe_load((graph / "dvc.lock").read_text(encoding="utf-8"))["stages"]) == {"other", *names}


def test_a_failed_training_is_named(graph: Path) -> None:
    names = write("import sys; sys.exit('no such face')")
    with pytest.raises(UserError, match="distill@a failed"):
        side_by_side(names, 1, "trainings")


def test_stages_in_order_are_numbered(graph: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = write("import pathlib, sys; pathlib.Path(sys.argv[1] + '.txt').touch()")
    in_order(stages())
    said = capsys.readouterr().out
    assert all(f"[{place} of 3] Running stage '{name}'" in said for place, name in enumerate(names, start=1))
    Path("script.py").write_text("import sys; sys.exit(1)", encoding="utf-8")
    Path("params.yaml").write_text("models: {a: 1, b: 1, c: 1}\n", encoding="utf-8")
    with pytest.raises(UserError, match="what is done stays"):
        in_order(stages())


def test_only_what_has_changed_is_asked_for_again(graph: Path) -> None:
    names = write("import pathlib, sys; pathlib.Path(sys.argv[1] + '.txt').touch()")
    assert changed(names) == names
    side_by_side(names[:1], 1, "trainings")
    assert changed(names) == names[1:]
