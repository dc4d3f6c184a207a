"""`lrfr verify`, `identify` and `embed DIR` in a folder that is no clone: answers, tables, and what is refused."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from lrfr import cli, config
from lrfr.deploy.recognizer import Recognizer
from tests.deploy import students

ROOT = Path(__file__).resolve().parents[2]
GREY = (120, 120, 120)


def make_folder(folder: Path) -> None:
    """Photographs of every kind, a gallery and a student."""
    students.write_student(folder, "model")
    one, other = students.orl_photograph(1, 1), students.orl_photograph(2, 1)
    for name, image in {"one": one, "again": students.orl_photograph(1, 2), "other": other}.items():
        image.save(folder / f"{name}.png")
    pair = Image.new("RGB", (330, 240), GREY)  # two faces side by side, the second one larger
    pair.paste(one, (10, 60))
    pair.paste(other.resize((184, 224), Image.Resampling.BICUBIC), (130, 8))
    pair.save(folder / "pair.png")
    tiny = Image.new("RGB", (96, 72), GREY)
    tiny.paste(one.resize((10, 12), Image.Resampling.BOX), (40, 30))
    tiny.save(folder / "tiny.png")
    Image.new("RGB", (90, 90), GREY).save(folder / "nobody.png")
    (folder / "text.jpg").write_text("no image", encoding="utf-8")
    (folder / "empty.png").touch()
    (folder / "cut.png").write_bytes((folder / "pair.png").read_bytes()[:2000])
    for person in (1, 2, 3):
        for photograph in (3, 4):
            path = folder / "chips" / f"person {person}" / f"{photograph}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            students.orl_photograph(person, photograph).crop((0, 20, 92, 112)).save(path)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("photographs")
    make_folder(folder)
    return folder


@pytest.fixture
def ask(made, monkeypatch, capsys):
    """Arguments -> exit code, standard output, standard error; no parameters of a study are read."""
    monkeypatch.chdir(made)
    monkeypatch.setattr(config, "load", lambda *_: pytest.fail("params.yaml was asked for"))

    def run(*arguments: str) -> tuple[int, str, str]:
        code = cli.main([*arguments, "--model", "model.safetensors"])
        return code, *capsys.readouterr()

    return run


def refused(answer: tuple[int, str, str]) -> str:
    code, out, err = answer
    assert code == 2 and out == "" and err.startswith("lrfr: ") and err.endswith(".\n") and err.count("\n") == 1
    return err


def answered(answer: tuple[int, str, str]) -> dict:
    code, out, _ = answer
    assert code == 0 and out.count("\n") == 1
    return json.loads(out)


def test_verify_answers_for_programs(ask):
    answer = answered(ask("verify", "one.png", "pair.png", "--json"))
    assert answer["a"]["faces_found"] == 1 and answer["b"]["faces_found"] == 2
    left, top, right, bottom = answer["b"]["box"]
    assert left > 120 and bottom > 120  # the larger face is on the right
    assert answer["b"]["pixels"] > 1.5 * answer["a"]["pixels"] > 100
    assert answer["resolution"] == "hr" and answer["threshold"] == 0.2 and answer["far"] == 0.01
    assert answer["same_person"] == (answer["similarity"] >= 0.2) and answer["model"] == "model"
    assert answer["thresholds_from"] == students.FROM
    assert len(answer["notes"]) == 1 and "2 faces found, the largest" in answer["notes"][0]


def test_a_tiny_face_is_found_and_judged_by_its_own_threshold(ask):
    answer = answered(ask("verify", "one.png", "tiny.png", "--json"))
    assert 7 <= answer["b"]["pixels"] <= 15 and answer["resolution"] == "8" and answer["threshold"] == 0.5


def test_verify_answers_for_people_and_different_people_are_an_answer(made, ask, capsys):
    paths = ("chips/person 1/3.png", "chips/person 2/3.png")
    x, y = (np.asarray(Image.open(made / path)) for path in paths)
    similarity = Recognizer.load(made / "model.safetensors").similarity(x, y)
    answer = answered(ask("verify", *paths, "--aligned", "--json"))
    assert answer["similarity"] == pytest.approx(similarity, abs=1e-6)
    assert answer["a"] == {"photograph": paths[0], "faces_found": 1, "pixels": 92, "box": None, "probability": None}
    for threshold, word in ((similarity - 0.001, "same person"), (similarity + 0.001, "different people")):
        students.write_student(made, "strict", thresholds=students.rows({"8": threshold, "hr": threshold}))
        assert cli.main(["verify", *paths, "--aligned", "--model", "strict.json"]) == 0
        assert word in capsys.readouterr().out
    code, out, err = ask("verify", *paths, "--aligned")
    assert code == 0 and err == ""
    assert {line[:16].strip() for line in out.splitlines()} >= {
        "decision",
        "similarity",
        "threshold",
        "threshold from",
        "model",
    }
    assert "at FAR 0.01" in out and students.FROM in out and "92 and 92 pixels" in out


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("verify", "one.png", "nobody.png"), "nobody.png: no face found"),
        (("verify", "text.jpg", "one.png", "--json"), "text.jpg: cannot be read as an image"),
        (("verify", "one.png", "empty.png", "--aligned"), "empty.png: cannot be read as an image"),
        (("verify", "one.png", "cut.png", "--aligned"), "cut.png: cannot be read as an image"),
        (("verify", "one.png", "none.png", "--aligned"), "none.png: cannot be read"),
        (("verify", "one.png", "chips", "--aligned"), "chips: not a file"),
        (("verify", "one.png", "other.png", "--aligned", "--far", "0.5"), "known are 0.001, 0.01"),
        (("identify", "one.png", "--gallery", "none"), "none: no folder with an image"),
        (("identify", "one.png", "--gallery", "chips", "--top", "0"), "--top 0"),
        (("embed", "chips", "--out", "x.xlsx"), "ends in .parquet or .csv"),
        (("embed", "chips", "--out", "none/x.csv"), "folder does not exist"),
        (("embed", "none", "--out", "x.csv"), "none: no folder with an image"),
    ],
)
def test_what_the_user_can_mend_is_one_sentence(ask, made, arguments, reason):
    before = sorted(made.rglob("*"))
    assert reason in refused(ask(*arguments))
    assert sorted(made.rglob("*")) == before


def test_a_missing_model_is_refused(made, monkeypatch, capsys):
    monkeypatch.chdir(made)
    code = cli.main(["verify", "one.png", "other.png", "--model", "none.safetensors"])
    assert "none.safetensors: cannot be read" in refused((code, *capsys.readouterr()))


def test_identify_finds_the_person_of_the_same_photograph(ask):
    found = answered(ask("identify", "chips/person 2/4.png", "--gallery", "chips", "--aligned", "--top", "2", "--json"))
    (face,) = found["faces"]
    assert [c["person"] for c in face["candidates"]][0] == "person 2" and len(face["candidates"]) == 2
    best = face["candidates"][0]
    assert best["similarity"] == pytest.approx(1, abs=1e-5) and best["same_person"] is True
    assert (
        best["photograph"] == str(Path("chips", "person 2", "4.png"))
        and best["similarity"] >= face["candidates"][1]["similarity"]
    )
    assert found["gallery"] == {"people": 3, "photographs": 6, "left_out": []}
    assert "n times" in found["notes"][-1]
    code, out, _ = ask("identify", "chips/person 2/4.png", "--gallery", "chips", "--aligned")
    assert code == 0 and "  1 person 2" in out and students.FROM in out


def test_identify_searches_for_every_face_and_leaves_out_what_has_none(ask, made, monkeypatch):
    gallery = made / "gallery"
    gallery.mkdir()
    for name in ("one.png", "nobody.png", "text.jpg"):
        (gallery / name).write_bytes((made / name).read_bytes())
    found = answered(ask("identify", "pair.png", "--gallery", "gallery", "--all-faces", "--json"))
    assert len(found["faces"]) == 2 and all(c["person"] == "one" for face in found["faces"] for c in face["candidates"])
    problems = [row["problem"] for row in found["gallery"]["left_out"]]
    assert len(problems) == 2 and "no face" in problems[0] and "cannot be read as an image" in problems[1]
    (gallery / "one.png").unlink()
    assert "no photograph of the gallery has a face" in refused(ask("identify", "pair.png", "--gallery", "gallery"))


@pytest.fixture
def expected(made) -> np.ndarray:
    paths = sorted((made / "chips").rglob("*.png"))
    return Recognizer.load(made / "model.safetensors").embed([np.asarray(Image.open(path)) for path in paths])


@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_the_tables_hold_the_same(ask, tmp_path, expected, ending):
    path = tmp_path / f"x.{ending}"
    summary = answered(ask("embed", "chips", "--out", os.fspath(path), "--aligned", "--json"))
    assert (summary["photographs"], summary["faces"], summary["problems"]) == (6, 6, [])
    if ending == "parquet":
        parquet = pytest.importorskip("pyarrow.parquet")
        columns = parquet.read_table(path).to_pydict()
        x = np.array(columns["embedding"], np.float32)
    else:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        columns = {key: [row[key] for row in rows] for key in rows[0]}
        x = np.array([columns[f"e{k}"] for k in range(32)], np.float32).T
    assert columns["name"] == [f"person {p}/{k}.png" for p in (1, 2, 3) for k in (3, 4)]
    assert [int(value) for value in columns["face"]] == [1] * 6
    assert [int(value) for value in columns["pixels"]] == [92] * 6
    assert np.allclose(x, expected, atol=1e-6)
    assert list(tmp_path.iterdir()) == [path]


def test_embed_has_a_row_for_every_face_and_for_every_photograph_without_one(ask, made, tmp_path):
    folder = tmp_path / "mixed"
    folder.mkdir()
    for name in ("cut.png", "nobody.png", "pair.png"):
        (folder / name).write_bytes((made / name).read_bytes())
    (folder / "notes.txt").write_text("left alone", encoding="utf-8")
    out = tmp_path / "x.csv"
    summary = answered(ask("embed", os.fspath(folder), "--out", os.fspath(out), "--all-faces", "--json"))
    assert (summary["photographs"], summary["faces"], len(summary["problems"])) == (3, 2, 2)
    table = pd.read_csv(out)
    assert table.name.tolist() == ["cut.png", "nobody.png", "pair.png", "pair.png"]
    assert table.face.tolist() == [0, 0, 1, 2]
    assert "cannot be read as an image" in table.problem[0] and "no face" in table.problem[1]
    assert table.problem[2:].isna().all()
    x = table.filter(regex=r"^e\d+$").to_numpy()
    assert np.isnan(x[:2]).all() and np.isfinite(x[2:]).all() and x.shape[1] == 32
    assert table.pixels[2] > table.pixels[3] and table.left[2] > table.left[3]


def test_a_table_that_cannot_be_written_leaves_nothing(ask, tmp_path, monkeypatch):
    def fail(_, path, **__):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pd.DataFrame, "to_csv", fail)
    (tmp_path / "x.csv").write_text("old", encoding="utf-8")
    error = refused(ask("embed", "chips", "--out", os.fspath(tmp_path / "x.csv"), "--aligned"))
    assert "No space left" in error
    assert [path.name for path in tmp_path.iterdir()] == ["x.csv"] and (tmp_path / "x.csv").read_text(
        encoding="utf-8"
    ) == "old"


def test_verify_starts_without_what_it_does_not_need(made):
    """Seconds of start-up: pandas, figures, and torch's compiler, which torchvision would import."""
    code = "import sys; from lrfr import cli; cli.main(sys.argv[1:]); print(*sorted(sys.modules), file=sys.stderr)"
    command = [sys.executable, "-c", code, "verify", "one.png", "again.png", "--model", "model.safetensors", "--json"]
    environment = os.environ | {"PYTHONPATH": os.fspath(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=made, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and json.loads(done.stdout)["a"]["faces_found"] == 1
    assert not {"pandas", "matplotlib", "torch._dynamo", "lightning_fabric", "dvc"} & set(done.stderr.split())
