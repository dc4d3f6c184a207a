"""`lrfr export`: two files, a card that knows them, and a comparison that can be checked against the study's own numbers."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from lrfr import cli
from lrfr.config import Study
from lrfr.data.align import TEMPLATE
from lrfr.data.splits import identity_folds
from lrfr.deploy import export, release
from lrfr.deploy.recognizer import Recognizer
from lrfr.errors import UserError
from lrfr.evaluate.scores import similarity, unit
from lrfr.evaluate.verification import equal_error_rate
from lrfr.models.student import build_student
from lrfr.protocol import embed
from lrfr.protocol.folds import build_fold
from lrfr.train.checkpoint import save_tensors
from lrfr.train.fold import read_fold
from tests.deploy import students

for package in ("onnx", "onnxruntime", "onnxscript"):
    pytest.importorskip(package)

ROOT = Path(__file__).resolve().parents[2]
NAMES = ["tiny-kd-int8.onnx", "tiny-kd.json", "tiny-kd.onnx"]


def write_students(study: Study) -> None:
    """Two untrained students as `distill` stores them, their embeddings, and every table that a card reads."""
    tables, embeddings = study.reports / "tables", study.runs / "embeddings"
    tables.mkdir(parents=True)
    embeddings.mkdir()
    for seed, name in enumerate(("kd", "scratch")):
        state = build_student(study.student, "plain", study.views.size, seed).state_dict()
        halves = {key: tensor.half() if tensor.is_floating_point() else tensor for key, tensor in state.items()}
        save_tensors(study.reports / "students" / name / "fold0-seed0.safetensors", halves)
        embed.student_embeddings(study, name, None, embeddings)
    rows = [("ranking", "model", name, "validation_eer@16", 0.1, int(name == "kd")) for name in ("kd", "scratch")]
    columns = ["method", "weight", "candidate", "metric", "value", "chosen"]
    pd.DataFrame(rows, columns=columns).to_csv(tables / "tuning.csv", index=False)
    results = [
        ("dense", name, "lr_lr", side, "eer", 0.2, 0.1, 0.3) for name in ("kd", "scratch") for side in ("8", "16")
    ]
    columns = ["protocol", "model", "pairing", "resolution", "metric", "value", "low", "high"]
    pd.DataFrame(results, columns=columns).assign(seeds=1).to_csv(tables / "results.csv", index=False)
    known = [embeddings, tables / "tuning.csv", tables / "results.csv", *(study.reports / "students").iterdir()]
    outs = [{"path": path.as_posix(), "md5": release.dvc_md5(path)} for path in known]
    lock = {"schema": "2.0", "stages": {"all": {"params": {"params.yaml": {"seed": 0}}, "outs": outs}}}
    Path("dvc.lock").write_text(yaml.safe_dump(lock), encoding="utf-8")


@pytest.fixture
def study(tiny: Study, changed: Callable[..., Study]) -> Study:
    """The tiny study with two people in each role, students and results."""
    study = changed(tiny, {"faces.folds": 3, "evaluate.far": (0.5, 0.01)})
    identity_folds(study.faces.people, 3, 2, study.seed).to_csv(study.runs / "folds.csv", index=False)
    write_students(study)
    return study


def test_the_stage_writes_files_a_card_and_a_table(study: Study):
    export.run(study)
    folder = study.runs / "export"
    assert sorted(path.name for path in folder.iterdir()) == NAMES
    card = json.loads((folder / "tiny-kd.json").read_text(encoding="utf-8"))
    assert [(row["file"], row["weights"]) for row in card["files"]] == [(NAMES[2], "float32"), (NAMES[0], "int8")]
    for row in card["files"]:
        data = (folder / row["file"]).read_bytes()
        assert (row["bytes"], row["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
    assert card["input"]["shape"] == ["batch", "height", "width", 3] and card["input"]["type"] == "uint8"
    np.testing.assert_allclose(card["input"]["template"], TEMPLATE, atol=0.005)
    assert [(row["resolution"], row["far"]) for row in card["thresholds"]] == [
        (name, 0.5) for name in study.resolutions
    ]
    assert card["study"] == "tiny" and card["measured"] and card["terms"] and card["trained_on"]

    table = pd.read_csv(study.reports / "tables" / "export.csv", dtype={"resolution": str})
    assert table.resolution.tolist() == list(study.resolutions)
    assert (table.distance_float <= 1e-4).all() and (table.diff_float.abs() <= 0.005).all()
    # the bound of a rotation on both sides: two unit vectors that turn by acos(1 - d) change their cosine by 2 sqrt(2 d) at most
    assert (table.shift_int8 <= 2 * np.sqrt(2 * table.distance_int8) * 1.05 + 1e-6).all() and (
        table.shift_int8 > 0
    ).any()
    assert (table.shift_float <= 1e-4).all()
    fold = build_fold(study, 0, draws=0)
    with np.load(study.runs / "embeddings" / "kd.npz") as archive:
        for row in table.itertuples():
            x = unit(archive[f"fold0/seed0/{row.resolution}"])[fold.test]
            expected = equal_error_rate(fold.test_pairs.scores(similarity(x, x)), fold.test_pairs.same)
            assert row.eer_torch == pytest.approx(expected, abs=1e-6)
            assert row.diff_int8 == pytest.approx(row.eer_int8 - row.eer_torch, abs=1e-5)
    assert card["exported"][0]["eer_int8"] == pytest.approx(table.eer_int8[0], abs=1e-5)
    page = (study.reports / "tables" / "export.md").read_text(encoding="utf-8")
    assert "`kd`" in page and f"| 8 | {100 * table.eer_torch[0]:.2f} |" in page


def test_by_hand_any_model_goes_anywhere_and_the_bytes_are_the_same(study: Study, tmp_path: Path):
    for out in ("one", "two"):
        export.run(study, "scratch", tmp_path / out)
    first, second = ({path.name: path.read_bytes() for path in (tmp_path / out).iterdir()} for out in ("one", "two"))
    assert first == second and set(first) == {name.replace("kd", "scratch") for name in NAMES}
    assert not (study.runs / "export").exists() and not (study.reports / "tables" / "export.csv").exists()


def test_a_released_student_is_exported_from_its_own_file(study: Study, tmp_path: Path):
    """In a clone that has run nothing; what comes out is a model with a card, for the recogniser and for everybody."""
    released = students.write_student(tmp_path / "weights", "lfw-kd")
    shutil.rmtree(study.runs)
    export.run(study, str(released), tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["lfw-kd.json", "lfw-kd.onnx"]
    torch, onnx = Recognizer.load(released), Recognizer.load(tmp_path / "out" / "lfw-kd.onnx")
    images = [np.asarray(students.orl_photograph(1, 1).resize((side, side))) for side in (12, 32, 90)]
    assert np.abs(torch.embed(images) - onnx.embed(images)).max() < 1e-4
    assert onnx.card["thresholds"] == torch.card["thresholds"] and onnx.card["input"]["type"] == "uint8"
    with pytest.raises(UserError, match="absent.safetensors: cannot be read"):
        export.run(study, str(tmp_path / "absent.safetensors"), tmp_path / "more")
    assert not (tmp_path / "more").exists()


@pytest.mark.parametrize(
    ("model", "out", "reason"),
    [
        ("scratch", None, "--model: say with --out DIR"),
        ("kdd", "out", "there is no model 'kdd'"),
        ("at", "out", "students/at/fold0-seed0.safetensors: not there"),
        (None, "dvc.lock", "--out dvc.lock: is not a folder"),
    ],
)
def test_what_cannot_be_exported_is_refused(study: Study, model: str | None, out: str | None, reason: str):
    with pytest.raises(UserError, match=re.escape(reason)):
        export.run(study, model, out and Path(out))
    assert not (study.runs / "export").exists() and not Path("out").exists()


def test_other_embeddings_than_dvc_knows_are_refused(study: Study):
    shutil.copy(study.runs / "embeddings" / "kd.npz", study.runs / "embeddings" / "more.npz")
    with pytest.raises(UserError, match="embeddings: differs from dvc.lock"):
        export.run(study)


def test_without_the_extra_nothing_is_written(study: Study, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match="onnxruntime: not installed; it belongs to the optional extra `export`"):
        export.run(study)
    assert not (study.runs / "export").exists()


def test_calibration_sees_training_people_alone(study: Study, monkeypatch: pytest.MonkeyPatch):
    fold = read_fold(study, 0)
    faces = export.calibration_faces(study, fold)
    assert faces.shape == (len(fold.images), study.views.size, study.views.size, 3) and faces.dtype == np.uint8
    bank = {view.tobytes() for view in np.asarray(fold.views[fold.images]).reshape(-1, *faces.shape[1:])}
    assert {view.tobytes() for view in faces} <= bank
    np.testing.assert_array_equal(faces, export.calibration_faces(study, fold))
    monkeypatch.setattr(export, "CALIBRATION", 5)
    assert len(export.calibration_faces(study, fold)) == 5


def test_the_command_hands_its_options_over(study: Study, monkeypatch: pytest.MonkeyPatch):
    called = []
    monkeypatch.setattr(export, "run", lambda study, *rest: called.append(rest))
    Path("params.yaml").write_text(yaml.safe_dump(json.loads(study.model_dump_json())), encoding="utf-8")
    assert cli.main(["export"]) == cli.main(["export", "--model", "kd", "--out", "x"]) == 0
    assert called == [(None, None), ("kd", Path("x"))]


def test_the_example_of_the_page_runs(study: Study, tmp_path: Path, chips: np.ndarray, monkeypatch, capsys):
    """The Python of docs/export.md, with the files that it names; two photographs of one size and two of another."""
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "export.md").read_text(encoding="utf-8"), re.DOTALL)
    export.run(study, "kd", tmp_path / "out")
    monkeypatch.chdir(tmp_path / "out")
    for name in NAMES:
        Path(name).rename(name.replace("tiny-kd", "student"))
    card = Path("student.json")
    card.write_text(card.read_text(encoding="utf-8").replace('"far": 0.5', '"far": 0.01'), encoding="utf-8")
    Image.fromarray(chips[0]).resize((20, 20)).save("a.png")
    Image.fromarray(chips[1]).resize((16, 16)).save("b.png")
    capsys.readouterr()
    exec(compile(code, "export.md", "exec"), {})
    assert re.fullmatch(r"similarity -?\d\.\d{3}: (same person|two people)\n", capsys.readouterr().out)
