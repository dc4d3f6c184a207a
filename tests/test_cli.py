"""The command line in a copy of the tree: what the user can mend is one sentence and exit 2, never a traceback."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from lrfr import cli, config
from lrfr.sources import lfw
from lrfr.stages import Stage
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
        (None, ["stage", "detect"], "params.yaml: no such file"),
        (("train.epohcs", 3), ["stage", "detect"], "unknown parameter 'train.epohcs'"),
        (("faces.validation_people", 5), ["stage", "prepare"], "without identities"),
        (
            (),
            ["stage", "distill", "--training", "kdd"],
            "there is no training 'kdd' in this study; known are hr_student",
        ),
        ((), ["study", "lwf"], "there is no study 'lwf'; known are celeba, lfw, orl, paper, smoke"),
        ((), ["stage", "notebook", "--notebook", "99-nothing"], "there is no notebook '99-nothing'"),
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
        (("models.kd.method", "kdd"), ["stage", "plan"], "models.kd.method: there is no method 'kdd'"),
        (("models.kd.options.wieght", 1), ["stage", "plan"], "models.kd.options.wieght is unknown"),
        (
            ("arms.hkdd-no_hfd", {"like": "hkdd", "studnet": "se"}),
            ["stage", "plan"],
            "arms.hkdd-no_hfd: unknown parameter 'studnet'",
        ),
        ((), ["notebook", "00-start-here", "-p", "fodl=1"], "has no parameter 'fodl'"),
        ((), ["notebook", "00-start-here", "-p", "fold"], "write NAME=VALUE"),
        ((), ["notebook", "00-start-here", "-p", "fold=[1"], "fold"),
    ],
    ids=["method", "option", "arm", "notebook-parameter", "no-value", "no-yaml"],
)
def test_refusals(clone: Path, capsys: pytest.CaptureFixture[str], change: tuple, arguments: list[str], reason: str):
    if change:
        edit(clone / "params.yaml", *change)
    code = cli.main(arguments)
    assert reason in in_one_sentence(code, *capsys.readouterr())


@pytest.mark.parametrize(
    "arguments", [["distill", "--training", "kd"], ["references"], ["embed"], ["evaluate"], ["rank"]]
)
def test_a_stage_before_its_time_names_what_is_missing(
    clone: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]
):
    code = cli.main(["stage", *arguments])
    assert "not there; an earlier stage makes it, so run `dvc repro`" in in_one_sentence(code, *capsys.readouterr())


@pytest.mark.parametrize(
    ("file", "old", "new", "reason"),
    [
        ("config.yaml", "teacher: dlib_resnet", "teacher: dlib", "conf: cannot be composed into the study 'orl'"),
        ("config.yaml", "method: kd\n", "method: [kd\n", "conf: cannot be composed into the study 'orl'"),
        (
            "config.yaml",
            "method: kd\n",
            "method: kdd\n",
            "conf, study 'orl': models.kd.method: there is no method 'kdd'",
        ),
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
    assert reason in in_one_sentence(cli.main(["study", "orl", "--force"]), *capsys.readouterr())
    assert (clone / "params.yaml").read_bytes() == before


@pytest.mark.parametrize(
    "arguments", [["stage", "detect", "--fast"], ["stage", "distill"], ["stage"], ["detect"], ["dance"], []]
)
def test_an_unknown_option_or_command_shows_the_usage(capsys: pytest.CaptureFixture[str], arguments: list[str]):
    with pytest.raises(SystemExit) as leave:
        cli.main(arguments)
    assert leave.value.code == 2 and capsys.readouterr().err.startswith("usage: lrfr")


def test_a_missing_package_is_named(clone: Path):
    script = "import sys; sys.modules['torch'] = None; from lrfr.cli import main; sys.exit(main(['stage', 'teacher']))"
    done = python(clone, "-c", script)
    assert "the package 'torch' is not installed" in in_one_sentence(done.returncode, done.stdout, done.stderr)


def test_a_missing_module_of_our_own_is_a_bug_and_not_an_installation(clone: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(cli.STAGES, "detect", Stage("lrfr.data.absent", "nothing"))
    with pytest.raises(ModuleNotFoundError):
        cli.main(["stage", "detect"])


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
    assert "unset it or leave that place out" in in_one_sentence(code, *capsys.readouterr())


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
        (cut, "cannot be read as a tar.gz archive"),
        (change, "1 files are missing, additional or changed (first 'B_Person/B_Person_0001.jpg')"),
        (add, "that leads elsewhere"),
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
        (["study", "lfw"], "LFW: it is not known where it is; run `lrfr study STUDY --lfw PATH`"),
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


def test_a_stage_gets_the_study_and_its_arguments(clone: Path, monkeypatch: pytest.MonkeyPatch):
    from lrfr.sources import SOURCES

    called, original = [], cli.import_module
    module = type("Module", (), {"run": staticmethod(lambda study, *rest: called.append((study.study, *rest)))})
    ours = {stage.module for stage in cli.STAGES.values()}
    monkeypatch.setattr(cli, "import_module", lambda n: called.append(n) or module if n in ours else original(n))
    for words in (["distill", "--training", "kd"], ["embed"], ["notebook", "--notebook", "00-start-here"], ["detect"]):
        assert cli.main(["stage", *words]) == 0
    assert called == [
        *("lrfr.train.distill", ("smoke", "kd")),
        *("lrfr.protocol.embed", ("smoke",)),
        *("lrfr.report.notebooks", ("smoke", "00-start-here")),
        *("lrfr.data.detect", ("smoke", {"orl": SOURCES["orl"]})),
    ]


def test_help_shows_the_verbs_with_an_example_each_and_no_stage(capsys: pytest.CaptureFixture[str]):
    for arguments in (["--help"], ["stage", "--help"]):
        with pytest.raises(SystemExit):
            cli.main(arguments)
    top, stages = capsys.readouterr().out.split("usage: ")[1:]
    assert all(verb.example in top and verb.text in top for verb in cli.VERBS.values())
    assert all(verb.example.split()[:2] == ["lrfr", name] for name, verb in cli.VERBS.items())
    for name in cli.STAGES:
        assert re.search(rf"^ +{name}\b", stages, re.MULTILINE) and not re.search(rf"^ +{name}\b", top, re.MULTILINE)


@pytest.mark.parametrize("verb", [name for name in cli.VERBS])
def test_every_verb_has_a_module_with_its_arguments(verb: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as leave:
        cli.main([verb, "--help"])
    assert leave.value.code == 0 and cli.VERBS[verb].example in capsys.readouterr().out
    parsed = cli.parser(verb).parse_args(cli.VERBS[verb].example.split()[1:]) if verb != "stage" else None
    assert parsed is None or parsed.verb == verb  # the example can be typed
