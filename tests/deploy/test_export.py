"""`lrfr export`: two files, a card that knows them, and a comparison that can be checked against the study's own
numbers."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from lrfr import cli
from lrfr.config import Study
from lrfr.data.align import TEMPLATE
from lrfr.deploy import export
from lrfr.deploy.recognizer import Recognizer
from lrfr.errors import UserError
from lrfr.evaluate.verification import equal_error_rate
from lrfr.protocol.cells import similarity, unit
from lrfr.protocol.folds import build_fold
from lrfr.train.fold import read_fold
from tests.deploy import students

for package in ("onnx", "onnxruntime", "onnxscript"):
    pytest.importorskip(package)

ROOT = Path(__file__).resolve().parents[2]
NAMES = ["tiny-kd-int8.onnx", "tiny-kd.json", "tiny-kd.onnx"]


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
    # two unit vectors that turn by acos(1 - d) each change their cosine by 2 sqrt(2 d) at most
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


def test_a_released_student_is_exported_from_its_own_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    """In a folder without any study; what comes out is a model with a card, for the recogniser and for everybody."""
    monkeypatch.chdir(tmp_path)
    released = students.write_student(tmp_path / "weights", "lfw-kd")
    assert cli.main(["export", "--model", str(released), "--out", "out"]) == 0
    assert sorted(path.name for path in Path("out").iterdir()) == ["lfw-kd.json", "lfw-kd.onnx"]
    torch, onnx = Recognizer.load(released), Recognizer.load(Path("out", "lfw-kd.onnx"))
    images = [np.asarray(students.orl_photograph(1, 1).resize((side, side))) for side in (12, 32, 90)]
    assert np.abs(torch.embed(images) - onnx.embed(images)).max() < 1e-4
    assert onnx.card["thresholds"] == torch.card["thresholds"] and onnx.card["input"]["type"] == "uint8"
    assert cli.main(["export", "--model", "absent.safetensors", "--out", "more"]) == 2
    assert "absent.safetensors: cannot be read" in capsys.readouterr().err and not Path("more").exists()


@pytest.mark.parametrize(
    ("model", "out", "reason"),
    [
        ("kdd", "out", "there is no model 'kdd'"),
        ("at", "out", "students/at: not there"),
        (None, "dvc.lock", "--out dvc.lock: is not a folder"),
    ],
)
def test_what_cannot_be_exported_is_refused(study: Study, capsys, model: str | None, out: str, reason: str):
    assert cli.main(["export", "--out", out, *(["--model", model] if model else [])]) == 2
    assert reason in capsys.readouterr().err
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
    bank = {view.tobytes() for view in np.asarray(fold.views["area"][fold.images]).reshape(-1, *faces.shape[1:])}
    assert {view.tobytes() for view in faces} <= bank
    np.testing.assert_array_equal(faces, export.calibration_faces(study, fold))
    monkeypatch.setattr(export, "CALIBRATION", 5)
    assert len(export.calibration_faces(study, fold)) == 5


def test_any_model_goes_anywhere_and_the_example_of_the_page_runs(
    study: Study, tmp_path: Path, chips: np.ndarray, monkeypatch: pytest.MonkeyPatch, capsys
):
    """The Python of docs/export.md, with the files that it names; two photographs of one size and two of another."""
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "export.md").read_text(encoding="utf-8"), re.DOTALL)
    assert cli.main(["export", "--model", "scratch", "--out", "out"]) == 0
    assert not (study.runs / "export").exists() and not (study.reports / "tables" / "export.csv").exists()
    monkeypatch.chdir("out")
    for name in NAMES:
        Path(name.replace("kd", "scratch")).rename(name.replace("tiny-kd", "student"))
    card = Path("student.json")
    card.write_text(card.read_text(encoding="utf-8").replace('"far": 0.5', '"far": 0.01'), encoding="utf-8")
    Image.fromarray(chips[0]).resize((20, 20)).save("a.png")
    Image.fromarray(chips[1]).resize((16, 16)).save("b.png")
    capsys.readouterr()
    exec(compile(code, "export.md", "exec"), {})
    assert re.fullmatch(r"similarity -?\d\.\d{3}: (same person|two people)\n", capsys.readouterr().out)
