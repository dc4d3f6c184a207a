"""The command line in a copy of the tree: what the user can mend is one sentence and exit 2, never a traceback."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from lrfr import cli, config
from lrfr.errors import UserError
from lrfr.sources import lfw
from tests.sources.small_lfw import SmallLfw, make_small_lfw

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, composed: Callable[[str], dict]) -> Path:
    """A folder with conf/, notebooks/ and the parameters of `smoke`; the test runs inside."""
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks", ignore=shutil.ignore_patterns("output"))
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(composed("smoke"), sort_keys=False), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def edit(path: Path, key: str, value: object) -> None:
    whole = yaml.safe_load(path.read_text(encoding="utf-8"))
    block, names = whole, key.split(".")
    for name in names[:-1]:
        block = block[name]
    block[names[-1]] = value
    path.write_text(yaml.safe_dump(whole, sort_keys=False), encoding="utf-8")


def python(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True)


def in_one_sentence(code: int, out: str, err: str) -> str:
    assert code == 2 and out == ""
    assert err.startswith("lrfr: ") and err.endswith(".\n") and err.count("\n") == 1
    return err


@pytest.mark.parametrize(
    ("change", "arguments", "reason"),
    [
        (None, ["detect"], "params.yaml: no such file"),
        (("train.epohcs", 3), ["detect"], "unknown parameter 'train.epohcs'"),
        (("faces.validation_people", 5), ["prepare"], "without identities"),
        ((), ["distill", "--model", "kdd"], "there is no model 'kdd' in models; known are hr_student"),
        ((), ["study", "lwf"], "there is no study 'lwf'; known are lfw, orl, paper, smoke"),
        ((), ["notebook", "--notebook", "99-nothing"], "there is no notebook '99-nothing'"),
    ],
    ids=["params", "parameter", "fold", "model", "study", "notebook"],
)
def test_refusals_of_the_whole_program(clone: Path, change: tuple | None, arguments: list[str], reason: str):
    if change is None:
        (clone / "params.yaml").unlink()
    elif change:
        edit(clone / "params.yaml", *change)
    done = python(clone, "-m", "lrfr", *arguments)
    assert reason in in_one_sentence(done.returncode, done.stdout, done.stderr)
    assert not (clone / "runs").exists() and not (clone / "reports").exists()


@pytest.mark.parametrize(
    ("change", "arguments", "reason"),
    [
        (("models.kd.method", "kdd"), ["distill", "--model", "kd"], "models.kd.method: there is no method 'kdd'"),
        (("models.kd.method", "kdd"), ["fingerprint"], "no method 'kdd'"),
        (("models.kd.options.wieght", 1), ["distill", "--model", "kd"], "models.kd.options.wieght is unknown"),
        (("arms.hkdd.no_hfd", {"studnet": "se"}), ["distill", "--model", "kd"], "arms.hkdd.no_hfd"),
        ((), ["notebook", "--notebook", "00-start-here", "-p", "fodl=1"], "has no parameter 'fodl'"),
        ((), ["notebook", "--notebook", "00-start-here", "-p", "fold"], "write NAME=VALUE"),
        ((), ["notebook", "--notebook", "00-start-here", "-p", "fold=[1"], "fold"),
    ],
    ids=["method", "method-first-stage", "option", "arm", "notebook-parameter", "no-value", "no-yaml"],
)
def test_refusals(clone: Path, capsys: pytest.CaptureFixture[str], change: tuple, arguments: list[str], reason: str):
    if change:
        edit(clone / "params.yaml", *change)
    code = cli.main(arguments)
    assert reason in in_one_sentence(code, *capsys.readouterr())


@pytest.mark.parametrize("arguments", [["distill", "--model", "kd"], ["embed"], ["evaluate"], ["rank"]])
def test_a_stage_before_its_time_names_what_is_missing(
    clone: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]
):
    code = cli.main(arguments)
    assert "not there; an earlier stage makes it, so run `dvc repro`" in in_one_sentence(code, *capsys.readouterr())


@pytest.mark.parametrize(
    ("file", "old", "new", "reason"),
    [
        (
            "config.yaml",
            "model: [hr_student",
            "model: [mse, hr_student",
            "conf: cannot be composed into the study 'orl'",
        ),
        ("model/kd.yaml", "method: kd", "method: [kd", "conf: cannot be composed into the study 'orl'"),
        ("model/kd.yaml", "method: kd", "method: kdd", "conf, study 'orl': models.kd.method: there is no method 'kdd'"),
        ("study/orl.yaml", "seed: 0", "seed: -1", "conf, study 'orl': seed: "),
    ],
)
def test_a_study_that_cannot_be_is_not_written(
    clone: Path, capsys: pytest.CaptureFixture[str], file: str, old: str, new: str, reason: str
):
    path, before = clone / "conf" / file, (clone / "params.yaml").read_bytes()
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    assert reason in in_one_sentence(cli.main(["study", "orl"]), *capsys.readouterr())
    assert (clone / "params.yaml").read_bytes() == before


@pytest.mark.parametrize("arguments", [["detect", "--fast"], ["distill"], ["dance"], []])
def test_an_unknown_option_or_command_shows_the_usage(capsys: pytest.CaptureFixture[str], arguments: list[str]):
    with pytest.raises(SystemExit) as leave:
        cli.main(arguments)
    assert leave.value.code == 2 and capsys.readouterr().err.startswith("usage: lrfr")


def test_a_missing_package_is_named(clone: Path):
    script = "import sys; sys.modules['torch'] = None; from lrfr.cli import main; sys.exit(main(['teacher']))"
    done = python(clone, "-c", script)
    assert "the package 'torch' is not installed" in in_one_sentence(done.returncode, done.stdout, done.stderr)


def test_a_missing_module_of_our_own_is_a_bug_and_not_an_installation(clone: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(cli.STAGES, "detect", ("lrfr.data.absent", "nothing"))
    with pytest.raises(ModuleNotFoundError):
        cli.main(["detect"])


def test_a_study_is_composed_into_the_parameters(
    clone: Path, composed: Callable[[str], dict], capsys: pytest.CaptureFixture[str]
):
    assert cli.main(["study", "orl"]) == 0
    assert yaml.safe_load((clone / "params.yaml").read_text(encoding="utf-8")) == composed("orl")
    assert (clone / "params.yaml").read_bytes() == (ROOT / "params.yaml").read_bytes()
    assert config.load().study == "orl" and "dvc repro" in capsys.readouterr().out
    assert sorted(path.name for path in clone.iterdir()) == [
        "conf",
        "notebooks",
        "params.yaml",
    ]  # no temporary file stays


@pytest.fixture
def small_lfw(clone: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> SmallLfw:
    """A small LFW outside of the clone, which is what `lrfr study lfw` compares with."""
    small = make_small_lfw(tmp_path_factory.mktemp("elsewhere"), monkeypatch)
    monkeypatch.setattr(lfw.check, "__defaults__", (small.manifest,))
    return small


def test_a_study_with_a_root(
    clone: Path, small_lfw: SmallLfw, composed: Callable[[str], dict], capsys: pytest.CaptureFixture[str], monkeypatch
):
    monkeypatch.delenv("LRFR_CACHE")
    monkeypatch.chdir(small_lfw.root.parent)
    shutil.copytree(clone / "conf", "conf")
    assert cli.main(["study", "lfw", "--root", "lfw"]) == 0 and "'lfw'" in capsys.readouterr().out
    text = Path("params.yaml").read_text(encoding="utf-8")
    assert yaml.safe_load(text) == composed("lfw") and str(small_lfw.root.parent) not in text
    assert Path(".cache/lfw-root").read_text(encoding="utf-8") == f"{small_lfw.root}\n"  # absolute
    Path("params.yaml").unlink()
    assert cli.main(["study", "lfw"]) == 0 and Path("params.yaml").is_file()  # the stored one


def test_a_study_with_a_root_in_the_environment(
    clone: Path, small_lfw: SmallLfw, monkeypatch: pytest.MonkeyPatch, capsys
):
    monkeypatch.setenv("LRFR_LFW_ROOT", str(small_lfw.root))
    assert cli.main(["study", "lfw"]) == 0 and cli.main(["study", "lfw", "--root", str(small_lfw.root)]) == 0
    capsys.readouterr()
    code = cli.main(["study", "lfw", "--root", str(clone)])
    assert "unset it or leave out --root" in in_one_sentence(code, *capsys.readouterr())


def cut(small: SmallLfw) -> None:
    path = small.root / lfw.ARCHIVE
    path.write_bytes(path.read_bytes()[:-50])


def change(small: SmallLfw) -> None:
    small.photographs["B_Person/B_Person_0001.jpg"] += b"x"
    small.write()


def add(small: SmallLfw) -> None:
    small.photographs["../../evil.jpg"] = b"x"
    small.write()


def other_pairs(small: SmallLfw) -> None:
    (small.root / lfw.PAIRS).write_text("10\t300\n")


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (cut, "not a complete tar archive"),
        (change, "1 changed (first 'B_Person/B_Person_0001.jpg')"),
        (add, "has a name with '..'"),
        (other_pairs, "not the published View 2"),
        (lambda small: shutil.rmtree(small.root), "neither lfw-deepfunneled.tgz nor"),
    ],
    ids=["cut", "changed", "hostile", "pairs", "absent"],
)
def test_a_root_that_is_wrong_changes_nothing(
    clone: Path, small_lfw: SmallLfw, capsys: pytest.CaptureFixture[str], spoil: Callable[[SmallLfw], None], reason: str
):
    lfw.PLACE.file.parent.mkdir()
    lfw.PLACE.file.write_text("/before\n")
    before = (clone / "params.yaml").read_bytes()
    spoil(small_lfw)
    code = cli.main(["study", "lfw", "--root", str(small_lfw.root)])
    assert reason in in_one_sentence(code, *capsys.readouterr())
    assert (clone / "params.yaml").read_bytes() == before and lfw.PLACE.file.read_text() == "/before\n"
    assert sorted(path.name for path in clone.iterdir()) == ["conf", "notebooks", "params.yaml"]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["study", "lfw"], "LFW: it is not known where it is; run `lrfr study lfw --root PATH`"),
        (["study", "orl", "--root", "."], "--root: the study 'orl' brings its photographs with it; leave --root out"),
    ],
)
def test_a_root_missing_or_not_needed(
    clone: Path, small_lfw: SmallLfw, capsys: pytest.CaptureFixture[str], arguments: list[str], reason: str
):
    before = (clone / "params.yaml").read_bytes()
    assert reason in in_one_sentence(cli.main(arguments), *capsys.readouterr())
    assert (clone / "params.yaml").read_bytes() == before and not lfw.PLACE.file.exists()


def test_an_archive_is_unpacked_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        archive.writestr("TinyFace/readme.txt", "hello")
    command = ["unpack", str(tmp_path / "set.zip"), str(tmp_path / "set")]
    assert cli.main(command) == 0 and (tmp_path / "set" / "TinyFace" / "readme.txt").read_text() == "hello"
    assert cli.main(command) == 2 and "already there" in capsys.readouterr().err


def test_a_reader_who_has_seen_enough_is_no_error(clone: Path):
    read, write = os.pipe()
    os.close(read)  # as `| head` does
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "lrfr", "study", "smoke"]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, env=environment, text=True)
    os.close(write)
    assert (done.returncode, done.stderr) == (1, "")


def test_notebook_parameters_are_yaml():
    found = cli.notebook_parameters(["fold=1", "rate=0.5", "name=a=b", "seeds=[0, 1]"])
    assert found == {"fold": 1, "rate": 0.5, "name": "a=b", "seeds": [0, 1]}
    with pytest.raises(UserError, match="NAME=VALUE"):
        cli.notebook_parameters(["fold"])


def test_a_stage_gets_the_study_and_its_arguments(clone: Path, monkeypatch: pytest.MonkeyPatch):
    called = []
    module = type("Module", (), {"run": staticmethod(lambda study, *rest: called.append((study.study, *rest)))})
    monkeypatch.setattr(cli, "import_module", lambda name: called.append(name) or module)
    assert cli.main(["distill", "--model", "kd"]) == 0 and cli.main(["embed"]) == 0
    assert cli.main(["notebook", "--notebook", "00-start-here", "-p", "fold=1"]) == 0
    assert called == [
        *("lrfr.train.distill", ("smoke", "kd")),
        *("lrfr.protocol.embed", ("smoke",)),
        *("lrfr.report.notebooks", ("smoke", "00-start-here", {"fold": 1})),
    ]


def test_every_stage_of_the_graph_is_a_command_with_existing_parameters(composed: Callable[[str], dict]):
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    values, seen = composed("smoke"), set()
    for stage in stages.values():
        command = stage["cmd"].replace("${item.model}", "feature").replace("${item.notebook}", "00-start-here").split()
        assert command[:3] == ["python", "-m", "lrfr"]
        seen.add(cli.parser().parse_args(command[3:]).command)
        for key in stage["params"]:
            block = values
            for name in key.replace("${item.model}", "feature").split("."):
                block = block[name]
    assert seen == set(cli.STAGES)
