"""`lrfr study` with what a user brings: places are stored, lists written, and whatever is wrong changes nothing."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml

from lrfr import cli, config, studies
from lrfr.benchmarks import miniatures
from lrfr.benchmarks import sets as user_sets
from lrfr.config import Study
from lrfr.errors import UserError
from lrfr.gate import trees
from lrfr.models import edgeface, teachers
from lrfr.models.teachers import build_teacher
from lrfr.sources import SOURCES, celeba, cfp, lfw
from lrfr.sources.places import checked
from lrfr.studies import check

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def brought(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("brought")
    miniatures.write_records(folder / "training", 5, 2)
    miniatures.write_tinyface(folder / "tinyface")
    miniatures.write_scface(folder / "scface")
    miniatures.write_bin(folder / "cfp_fp.bin")
    torch.save(build_teacher("inception_resnet_v1", "random").net.state_dict(), folder / "weights.pt")
    return folder


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with conf/ and the committed parameters; the test runs inside, and no place is known."""
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LRFR_CACHE", raising=False)
    for name in ("RECORDIO", "CELEBA", "LFW", "CFP", "SET_TINYFACE", "SET_SCFACE", "SET_CFP_FP"):
        monkeypatch.delenv(f"LRFR_{name}_ROOT", raising=False)
    return tmp_path


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} - {
        path.relative_to(folder).as_posix() for path in (folder / "conf").rglob("*")
    }


def test_everything_that_a_user_brings(
    clone: Path, brought: Path, composed: Callable[[str], dict], capsys: pytest.CaptureFixture[str]
):
    options = ["--weights", "weights.pt", "--tinyface", "tinyface", "--scface", "scface", "--bin", "cfp_fp.bin"]
    given = [str(brought / word) if not word.startswith("--") else word for word in ["--root", "training", *options]]
    assert cli.main(["study", "paper", *given]) == 0
    said = capsys.readouterr().out
    for line in ("recordio: training images 10", "recordio: training people 5 of 5", "tinyface: probes 24 of 3728"):
        assert line in said.splitlines()
    study, text = config.load(), Path("params.yaml").read_text(encoding="utf-8")
    assert study.benchmark_sets == ("tinyface", "scface", "cfp_fp") and Path(study.teacher.weights).is_file()
    assert (
        Path(study.teacher.weights).read_bytes() == (brought / "weights.pt").read_bytes() and str(brought) not in text
    )
    values = yaml.safe_load(text)
    values["benchmark_sets"], values["teacher"]["weights"] = [], "vggface2"
    assert values == composed("paper")  # nothing else differs
    sets = {"tinyface", "scface", "cfp_fp"}
    assert files(clone) == {"params.yaml", "data/recordio.csv", study.teacher.weights, ".cache/recordio-root"} | {
        name for each in sets for name in (f"data/sets/{each}.csv", f".cache/set-{each}-root")
    }
    assert Path(".cache/set-cfp_fp-root").read_text(encoding="utf-8") == f"{brought / 'cfp_fp.bin'}\n"
    listed = pd.read_csv("data/sets/tinyface.csv")
    assert "tinyface/Testing_Set/Probe/1_3.jpg" in set(listed["name"]) and len(pd.read_csv("data/sets/cfp_fp.csv")) == 1
    assert [user_sets.open_known(name).name for name in study.benchmark_sets] == list(study.benchmark_sets)
    # the training set's place is known now; the sets are named each time
    assert cli.main(["study", "paper"]) == 0 and config.load().benchmark_sets == ()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["paper"], "the training set: it is not known where it is; run `lrfr study paper --root PATH`"),
        (["paper", "--root", "{}"], "property: cannot be read"),
        (["paper", "--root", "{}/absent"], "property: cannot be read"),
        (["paper", "--root", "{}/training", "--tinyface", "{}/scface"], "no folder Testing_Set there"),
        (["paper", "--root", "{}/training", "--survface", "{}/absent"], "no folder Face_Verification_Test_Set there"),
        (["paper", "--root", "{}/training", "--bin", "{}/absent.bin"], "absent.bin: no such file"),
        (["paper", "--root", "{}/training", "--bin", "{}/tinyface.bin"], "name a file like cfp_fp.bin"),
        (["paper", "--root", "{}/training", "--bin", "{}/weights.pt"], "name a file like cfp_fp.bin"),
        (["paper", "--root", "{}/training", "--bin", "a.bin", "--bin", "b/a.bin"], "a second set called a"),
        (["paper", "--root", "{}/training", "--weights", "{}/absent.pt"], "absent.pt: no such file"),
        (
            ["paper", "--root", "{}/training", "--weights", "{}/cfp_fp.bin"],
            "cfp_fp.bin: cannot be read as a safetensors file",
        ),
        (["orl", "--root", "{}/training"], "--root: the study 'orl' brings its photographs with it; leave --root out"),
        (["orl", "--weights", "{}/weights.pt"], "--weights: the study 'orl' has its teacher's weights with it"),
        (["orl", "--lfw", "{}"], "--lfw: the study 'orl' does not read it; leave --lfw out"),
        (["lfw", "--cfp", "{}"], "--cfp: the study 'lfw' does not read it; leave --cfp out"),
        (["celeba"], "--weights: the study 'celeba' uses edgeface_xs (faces.searcher); give the path of its"),
        (
            ["celeba", "--weights", "{}/weights.pt"],
            "weights.pt: not the published checkpoint of edgeface_xs, edgeface_xxs; fetch it again",
        ),
    ],
)
def test_what_is_wrong_changes_nothing(
    clone: Path, brought: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], reason: str
):
    before = (clone / "params.yaml").read_bytes()
    code = cli.main(["study", *(word.format(brought) for word in arguments)])
    out, err = capsys.readouterr()
    assert code == 2 and out == "" and reason in err and err.startswith("lrfr: ") and err.count("\n") == 1
    assert (clone / "params.yaml").read_bytes() == before and files(clone) == {"params.yaml"}
    assert sorted(path.name for path in clone.iterdir()) == ["conf", "params.yaml"]


@pytest.fixture
def places(clone: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two small files are EdgeFace's checkpoints, and sources are what they should be, wherever they are."""
    monkeypatch.setattr(teachers, "build_teacher", lambda name, weights: None)
    for name, module in (("celeba", celeba), ("lfw", lfw), ("cfp", cfp)):
        choose_root = partial(checked, module.PLACE, lambda root: None)
        monkeypatch.setitem(SOURCES, name, SOURCES[name]._replace(choose_root=choose_root))
        (clone / name).mkdir()
    known = dict(edgeface.NETWORKS)
    for name, (network, _, channels) in edgeface.NETWORKS.items():
        (clone / f"{name}.pt").write_text(name)
        known[name] = (network, hashlib.sha256(name.encode()).hexdigest(), channels)
    monkeypatch.setattr(edgeface, "NETWORKS", known)
    return clone


WEIGHTS = ["--weights", "edgeface_xs.pt", "--weights", "edgeface_xxs.pt"]
GIVEN = ["--root", "celeba", "--lfw", "lfw", "--cfp", "cfp", *WEIGHTS]


def test_a_study_that_tests_people_of_other_sources(places: Path, composed: Callable[[str], dict]):
    assert cli.main(["study", "celeba", *GIVEN]) == 0
    study = config.load()
    assert study.faces.searcher is not None and study.teacher.weights == "embedded"
    assert Path(study.faces.searcher.weights).read_text() == "edgeface_xs"
    assert Path(study.references["edgeface_xxs"].weights).read_text() == "edgeface_xxs"
    values = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))
    for network in (values["faces"]["searcher"], values["student"]["pretrained"], *values["references"].values()):
        network["weights"] = f"{network['name']}_q.pt"
    assert values == composed("celeba")
    for name in ("celeba", "lfw", "cfp"):
        assert Path(f".cache/{name}-root").read_text() == f"{places / name}\n"
    assert cli.main(["study", "celeba", *WEIGHTS]) == 0  # the places are known now
    assert cli.main(["study", "orl"]) == 0  # nothing to lose


def test_one_network_may_search_and_teach(places: Path):
    path = Path("conf/study/celeba.yaml")
    text = path.read_text(encoding="utf-8").replace("teacher:\n", "teacher:\n  name: edgeface_xs\n  weights: a\n")
    path.write_text(text.replace("  se: {epochs: 1}\n", "  se: null\n"))
    assert cli.main(["study", "celeba", *GIVEN]) == 0
    study = config.load()
    assert study.faces.searcher is not None and study.teacher.weights == study.faces.searcher.weights


@pytest.mark.parametrize(
    ("missing", "reason"),
    [
        ("root", "CelebA: it is not known where it is; run `lrfr study celeba --root PATH` or set LRFR_CELEBA_ROOT"),
        ("lfw", "LFW: it is not known where it is; run `lrfr study STUDY --lfw PATH` or set LRFR_LFW_ROOT"),
        ("cfp", "CFP: it is not known where it is; run `lrfr study STUDY --cfp PATH` or set LRFR_CFP_ROOT"),
    ],
)
def test_a_place_that_is_missing_is_named(places: Path, capsys: pytest.CaptureFixture[str], missing: str, reason: str):
    first = GIVEN.index(f"--{missing}")
    assert cli.main(["study", "celeba", *GIVEN[:first], *GIVEN[first + 2 :]]) == 2
    error = capsys.readouterr().err
    assert reason in error and error.count("\n") == 1 and not Path(".cache").exists()


def test_a_set_goes_with_every_study(clone: Path, brought: Path, composed: Callable[[str], dict]):
    assert cli.main(["study", "orl", "--tinyface", str(brought / "tinyface")]) == 0
    assert yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8")) == composed("orl") | {
        "benchmark_sets": ["tinyface"]
    }


def test_a_set_that_was_not_named_is_no_stage(clone: Path, capsys: pytest.CaptureFixture[str]):
    assert cli.main(["stage", "sets", "--set", "tinyface"]) == 2
    assert "there is no set 'tinyface' in this study; known are none" in capsys.readouterr().err


def test_the_options_are_the_sets_that_are_known():
    assert list(studies.TREES) == list(user_sets.TREES)


def test_a_set_called_like_the_source_hides_nothing(clone: Path, brought: Path):
    shutil.copy(brought / "cfp_fp.bin", brought / "recordio.bin")
    assert (
        cli.main(["study", "paper", "--root", str(brought / "training"), "--bin", str(brought / "recordio.bin")]) == 0
    )
    assert {"data/recordio.csv", ".cache/recordio-root", "data/sets/recordio.csv", ".cache/set-recordio-root"} <= files(
        clone
    )


def test_a_set_may_be_called_null(clone: Path, brought: Path):
    shutil.copy(brought / "cfp_fp.bin", brought / "null.bin")
    assert cli.main(["study", "orl", "--bin", str(brought / "null.bin")]) == 0
    assert config.load().benchmark_sets == ("null",)


def test_what_stands_in_the_way_leaves_the_parameters(clone: Path, brought: Path, capsys: pytest.CaptureFixture[str]):
    before = (clone / "params.yaml").read_bytes()
    (clone / ".cache" / "set-tinyface-root").mkdir(parents=True)
    assert cli.main(["study", "orl", "--tinyface", str(brought / "tinyface")]) == 2
    assert "cannot be written" in capsys.readouterr().err and (clone / "params.yaml").read_bytes() == before


def test_everything_in_the_named_folder_is_listed(clone: Path, brought: Path, tmp_path: Path):
    twice = tmp_path / "twice"  # unpacked twice: which of the two is read is the reader's choice
    shutil.copytree(brought / "tinyface" / "tinyface", twice)
    shutil.copytree(brought / "tinyface" / "tinyface", twice / "tinyface")
    assert cli.main(["study", "orl", "--tinyface", str(twice)]) == 0
    probe = next(twice.glob("Testing_Set/Probe/*.jpg"))
    probe.write_bytes(probe.read_bytes() + b"changed")
    with pytest.raises(UserError, match="not those in"):
        user_sets.open_known("tinyface")


def test_a_link_to_a_folder_is_no_part_of_a_set(tmp_path: Path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "loop").symlink_to(tmp_path)
    with pytest.raises(UserError, match="a link to a folder"):
        trees.make_listing(tmp_path / "set")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            lambda v: v["models"]["kd"].update(method="kdd"),
            "models.kd.method: there is no method 'kdd'; known are scratch, kd",
        ),
        (
            lambda v: v["models"]["kd"]["options"].update(tau=2),
            "models.kd.options.tau is unknown; 'kd' takes temperature, weight",
        ),
        (lambda v: v["models"]["kd"]["options"].pop("weight"), "models.kd.options.weight is missing"),
        (
            lambda v: v["models"]["scratch"]["options"].update(weight=1),
            "options.weight is unknown; 'scratch' takes none",
        ),
        (lambda v: v["arms"]["hkdd-no_dkd"]["options"].update(hdf=0), "arms.hkdd-no_dkd.options.hdf is unknown"),
        (lambda v: v["models"]["hkdd-no_hfd"]["options"].update(hdf=0), "models.hkdd-no_hfd.options.hdf is unknown"),
        (
            lambda v: v["models"]["hkdd-no_hfd"].update(teacher="tuned"),
            "models.hkdd-no_hfd: the file: a block `tuned` and `teacher: tuned` belong together",
        ),
        # a resolution without a view would be read from another one
        (
            lambda v: (v["views"].update(smallest=12), v["evaluate"].update(resolutions=[16, 32])),
            "views: from 12 to 32 pixels; training is validated at 8, 12, 16, so take smallest at most 8",
        ),
        (
            lambda v: (v["views"].update(largest=15), v["evaluate"].update(resolutions=[8])),
            "views: from 8 to 15 pixels",
        ),
        # logits are computed from embeddings
        (
            lambda v: v["targets"].update(store=["maps", "attention"]),
            "targets.store lacks 'embedding', which models.kd needs",
        ),
        (lambda v: v["targets"].update(store=["embedding", "attention"]), "targets.store lacks 'maps', which models"),
        (lambda v: v["targets"].update(store=["embedding", "maps"]), "targets.store lacks 'attention', which models"),
    ],
)
def test_what_does_not_fit_is_named(composed: Callable[[str], dict], change: Callable[[dict], object], reason: str):
    values = composed("smoke")
    change(values)
    with pytest.raises(UserError) as error:
        check(Study(**values), "params.yaml")
    assert str(error.value).startswith("params.yaml: ") and reason in str(error.value) and "\n" not in str(error.value)


def test_changes_by_hand_are_not_thrown_away(clone: Path, capsys: pytest.CaptureFixture[str]):
    path = clone / "params.yaml"
    edited = (
        path.read_text(encoding="utf-8")
        .replace("epochs: 10\n  batch: 64", "epochs: 3\n  batch: 64")
        .replace("hfd: 5", "hfd: 7")
    )
    path.write_text(edited, encoding="utf-8")
    for name in ("smoke", "orl"):
        assert cli.main(["study", name]) == 2 and path.read_text(encoding="utf-8") == edited
        error = capsys.readouterr().err
        assert "differs from conf/ in 2 place(s)" in error and error.count("\n") == 1
        assert "train.epochs: 3 instead of 10" in error and "models.hkdd.options.hfd: 7 instead of 5" in error
    assert cli.main(["study", "orl", "--force"]) == 0 and config.load().train.epochs == 10
    assert cli.main(["study", "smoke"]) == 0 and cli.main(["study", "orl"]) == 0  # nothing to lose
