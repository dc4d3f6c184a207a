"""`lrfr benchmark-set` on miniature sets, in a folder that is no clone: numbers, failures, comparisons, refusals."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import shutil
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from lrfr import cli, config
from lrfr.benchmarks import lfw_family, miniatures, scface, survface, tinyface, verb
from lrfr.benchmarks.outcomes import Images, images_of
from lrfr.data.align import TEMPLATE, similarity
from lrfr.data.degrade import hr_view, mirror
from lrfr.deploy import find_faces as faces
from lrfr.deploy.recognizer import Recognizer
from lrfr.errors import UserError
from lrfr.gate import insightface_bin
from lrfr.models.teachers import build_teacher
from tests.deploy import students

PARTS = {  # of every set: protocol -> a metric that counts decisions
    "tinyface": {"identification": "rank1"},
    "survface": {"verification": "accuracy", "identification": "rank1"},
    "scface": {"all subjects": "rank1@d1", "test subjects of the splits": None},
    "lfw": {"verification": "accuracy"},
}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sets")
    miniatures.write_tinyface(folder / "tinyface")
    miniatures.write_survface(folder / "survface")
    miniatures.write_scface(folder / "scface")
    miniatures.write_bin(folder / "lfw" / "lfw.bin")
    students.write_student(folder, "student")
    students.write_student(folder, "other", kind="se", seed=1)
    return folder


@pytest.fixture
def ask(made, tmp_path, monkeypatch, capsys):
    """Arguments -> exit code, standard output, standard error; in an empty folder, without a study."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(config, "load", lambda *_: pytest.fail("params.yaml was asked for"))
    monkeypatch.setattr(verb, "DRAWS", 20)
    monkeypatch.setattr(verb, "cores", lambda: 1)  # threads of torch, which stay as they are set for later tests

    def run(*arguments: object) -> tuple[int, str, str]:
        code = cli.main(["benchmark-set", *map(str, arguments)])
        return code, *capsys.readouterr()

    return run


def answered(answer: tuple[int, str, str]) -> dict:
    code, out, err = answer
    assert code == 0, err
    assert out.count("\n") == 1
    return json.loads(out)


def values(answer: dict, protocol: str, model: str = "student.safetensors") -> dict[str, float]:
    return {r["metric"]: r["value"] for r in answer["results"] if (r["protocol"], r["model"]) == (protocol, model)}


def seen(read, size: int, model: Path, flip: bool = False, points=None) -> np.ndarray:
    """(size, D) unit vectors, or NaN where an image cannot be read."""
    recognizer = Recognizer.load(model)
    vectors, views = np.full((size, students.NETWORK["embedding"]), np.nan), {}
    for i in range(size):
        with contextlib.suppress(UserError):
            views[i] = read(i)
            if points is not None:
                views[i], _ = faces.align(Image.fromarray(views[i]), points(i), recognizer.size)
    vectors[list(views)] = recognizer.embed([*views.values()])
    if flip:
        vectors[list(views)] += recognizer.embed([mirror(face) for face in views.values()])
    return vectors


@cache
def direct(name: str, root: Path, model: Path, flip: bool = False) -> dict[str, dict[str, float]]:
    """Protocol -> metrics, without the command: readers, one recogniser, and the protocols."""

    def of(group, points=None) -> np.ndarray:
        return seen(group.read, len(group), model, flip, points)

    if name == "tinyface":
        s = tinyface.read_tinyface(root)
        found = tinyface.evaluate(of(s.probes), s.probes.ids, of(s.gallery), s.gallery.ids, of(s.distractors))
        return {"identification": found.metrics}
    if name == "survface":
        s = survface.read_survface(root)
        pairs = survface.verification(of(s.verification), s.pairs[s.same], s.pairs[~s.same])
        searched = of(s.gallery), s.gallery.ids, of(s.mated), s.mated.ids, of(s.unmated)
        return {"verification": pairs.metrics, "identification": survface.identification(*searched).metrics}
    if name == "scface":
        s = scface.read_scface(root)

        def located(group):
            return of(group, lambda i: s.landmarks[Path(group.names[i]).stem][[0, 1, 2, 3, 3]])

        probes, people = [
            np.concatenate([f(s.probes[d]) for d in (1, 2, 3)]) for f in (located, lambda group: group.ids)
        ]
        parts = located(s.gallery), s.gallery.ids, probes, people, np.repeat([1, 2, 3], len(probes) // 3)
        rules = scface.evaluate, scface.evaluate_splits
        return {part: rule(*parts).metrics for part, rule in zip(PARTS["scface"], rules, strict=True)}
    s = insightface_bin.read_bin(root / "lfw.bin")
    return {"verification": lfw_family.evaluate(seen(s.read, len(s.images), model, flip), s.same).metrics}


@pytest.mark.parametrize("name", PARTS)
def test_the_numbers_are_those_of_the_protocols_called_directly(name, made, ask, tmp_path):
    models = ("--model", made / "student.safetensors", "--model", made / "other.safetensors")
    answer = answered(ask(name, "--root", made / name, *models, "--out", tmp_path / "out", "--json"))
    for file in ("student.safetensors", "other.safetensors"):
        expected = direct(name, made / name, made / file)
        assert list(expected) == list(PARTS[name])
        for protocol, metrics in expected.items():
            assert values(answer, protocol, file) == pytest.approx(metrics, abs=1e-9)
    assert answer["problems"] == []
    table = pd.read_csv(tmp_path / "out" / f"{name}.csv")
    assert table.value.tolist() == [row["value"] for row in answer["results"]]
    rated = table.dropna(subset="low")
    assert (
        set(table.set) == {name}
        and len(rated)
        and (rated.low <= rated.value).all()
        and (rated.value <= rated.high).all()
    )
    pairs = pd.read_csv(tmp_path / "out" / f"{name}-comparisons.csv")
    wide = table.pivot(index=["protocol", "metric"], columns="model", values="value")
    difference = (wide["student.safetensors"] - wide["other.safetensors"]).loc[
        list(zip(pairs.protocol, pairs.metric, strict=True))
    ]
    assert pairs["diff"].to_numpy() == pytest.approx(difference.to_numpy(), abs=1e-9)
    for protocol, decided in PARTS[name].items():
        tested = pairs[pairs.protocol == protocol].set_index("metric").mcnemar_holm.dropna()
        assert tested.between(0, 1).all() and (decided in tested.index if decided else tested.empty)
    if name == "tinyface":  # where the comparisons of an earlier run would mislead
        again = answered(ask(name, "--root", made / name, *models[:2], "--out", tmp_path / "out", "--json"))
        assert again["comparisons"] == [] and os.listdir(tmp_path / "out") == [f"{name}.csv"]


def test_every_row_says_how_it_came_about(made, ask, tmp_path):
    answer = answered(
        ask("scface", "--root", made / "scface", "--model", made / "student.safetensors", "--out", "out", "--json")
    )
    row = pd.read_csv(tmp_path / "out" / "scface.csv").iloc[0]
    assert row.set_counts.startswith("subjects 9 of 130; probes at distance 1 45 of 650") and row["probes@d1"] == 45
    assert answer["counts"][0] == {"what": "subjects", "observed": 9, "published": 130}
    assert (row.faces, row.flip, row.channels, row.input) == (
        verb.FACES["landmarks"],
        "no",
        "RGB",
        students.SIZE,
    )
    assert row.resampler == verb.RESAMPLER and row.similarity == "cosine" and len(row.sha256) == 64
    assert answer["policies"] == {key: row[key] for key in answer["policies"]}


def test_people_get_tables(made, ask):
    models = ("--model", made / "student.safetensors", "--model", made / "other.safetensors")
    code, out, _ = ask("tinyface", "--root", made / "tinyface", *models)
    lines = out.splitlines()
    assert code == 0 and lines[0] == "# tinyface" and os.listdir() == []
    assert "| probes | 24 | 3728 |" in lines and "| distractors identical to a probe | 0 | - |" in lines
    assert "| faces | whole image as it is |" in lines and "| fta_probes | 0 | 0 |" in lines
    rank = next(line for line in lines if line.startswith("| rank1 |"))
    value = direct("tinyface", made / "tinyface", made / "student.safetensors")["identification"]["rank1"]
    assert rank.startswith(f"| rank1 | {100 * value:.2f} [")
    assert any(line.startswith("| student.safetensors | other.safetensors | map | ") for line in lines)


def test_flip_adds_the_mirror_image(made, ask):
    model = made / "student.safetensors"
    answer = answered(ask("lfw", "--root", made / "lfw" / "lfw.bin", "--model", model, "--flip", "--json"))
    expected = direct("lfw", made / "lfw", model, flip=True)["verification"]
    assert values(answer, "verification") == pytest.approx(expected, abs=1e-9)
    assert expected["auc"] != direct("lfw", made / "lfw", model)["verification"]["auc"]
    assert answer["policies"]["flip"].startswith("unit vectors")


def spoil(name: str, root: Path) -> None:
    """Break one image, and empty another, in the role of probes or pairs."""
    folders = {
        "tinyface": "tinyface/Testing_Set/Probe",
        "survface": "QMUL-SurvFace/Face_Identification_Test_Set/mated_probe",
        "scface": "SCface_database/surveillance_cameras_distance_1/cam_1",
    }
    if name == "lfw":
        data = insightface_bin.read_bin(root / "lfw.bin")
        images = [data.images[0][:200], b"", *data.images[2:]]
        (root / "lfw.bin").write_bytes(pickle.dumps((images, data.same.tolist()), protocol=4))
        return
    paths = sorted((root / folders[name]).iterdir())
    paths[0].write_bytes(paths[0].read_bytes()[:200])
    paths[1].write_bytes(b"")


@pytest.mark.parametrize(
    ("name", "protocol", "fta", "total", "best"),
    [
        ("tinyface", "identification", "fta_probes", ("probes", 24), ("rank50", 22 / 24)),
        ("survface", "identification", "fta_mated", ("mated", 14), ("rank20", 12 / 14)),
        ("scface", "all subjects", "fta@d1", ("probes@d1", 45), ("rank1@d1", 43 / 45)),
        ("lfw", "verification", "fta_images", ("genuine", 40), ("accuracy", 79 / 80)),
    ],
)
def test_a_broken_image_is_a_failed_acquisition_and_a_miss(name, protocol, fta, total, best, made, ask, tmp_path):
    shutil.copytree(made / name, tmp_path / "set")
    spoil(name, tmp_path / "set")
    answer = answered(ask(name, "--root", tmp_path / "set", "--model", made / "student.safetensors", "--json"))
    row = next(row for row in answer["results"] if row["protocol"] == protocol)
    assert row[fta] == 2 and row[total[0]] == total[1]
    assert values(answer, protocol)[best[0]] <= best[1] + 1e-12
    assert values(answer, protocol) == pytest.approx(
        direct(name, tmp_path / "set", made / "student.safetensors")[protocol], abs=1e-9
    )
    assert len(answer["problems"]) == 2 and all(str(tmp_path / "set") in problem for problem in answer["problems"])
    if name == "tinyface":
        code, out, _ = ask(name, "--root", tmp_path / "set", "--model", made / "student.safetensors")
        assert code == 0 and "\n2 images failed and count as failed acquisitions; the first: " in out


def test_the_teacher_is_fed_with_upsampled_faces(made):
    data = tinyface.read_tinyface(made / "tinyface").probes
    (teacher,) = verb.load_models(["teacher"])
    small = images_of(data)._replace(size=2)
    found = verb.embed_images(small, [teacher], "whole", False, "probes")[0]["teacher"]
    net = build_teacher("dlib_resnet", "embedded")
    for i in range(2):
        pixels = torch.from_numpy(hr_view(data.read(i)[None], 150)).permute(0, 3, 1, 2).float()
        raw = net(pixels).embedding.numpy()[0]
        assert found[i] == pytest.approx(raw / np.linalg.norm(raw), abs=1e-5)


def test_a_face_that_is_not_found_is_a_failed_acquisition(made):
    pictures = [np.array(students.orl_photograph(1, 1)), np.full((112, 92, 3), 120, np.uint8)]
    images = Images(2, lambda i: f"picture {i}", pictures.__getitem__)
    models = verb.load_models([str(made / "student.safetensors")])
    found, problems = verb.embed_images(images, models, "detect", False, "pictures")
    (vectors,) = found.values()
    assert np.linalg.norm(vectors[0]) == pytest.approx(1, abs=1e-5) and np.isnan(vectors[1]).all()
    assert problems == ["picture 1: no face found."]
    (face, *_) = faces.find_faces(faces.detector(), Image.fromarray(pictures[0]), models[0].side)
    assert vectors[0] == pytest.approx(models[0].embed([face.image])[0], abs=1e-5)


def test_images_are_decoded_once_for_all_models(made):
    data, decoded = tinyface.read_tinyface(made / "tinyface").distractors, []
    images = images_of(data)._replace(size=7, read=lambda i: decoded.append(i) or data.read(i))
    models = verb.load_models([str(made / f"{name}.safetensors") for name in ("student", "other")])
    verb.embed_images(images, models, "whole", True, "distractors")
    assert decoded == list(range(7))


def test_a_mouth_counts_for_both_its_corners():
    """SCface's four points: the same as a least-squares fit to eyes, nose, and twice the mouth's middle."""
    points = np.array([(10.0, 12.0), (21.0, 11.0), (16.0, 18.0), (15.5, 24.0)])
    target = np.vstack([TEMPLATE[:3], TEMPLATE[3:].mean(0)])
    rows, right = [], []
    for (x, y), (u, v), weight in zip(points, target, np.sqrt([1, 1, 1, 2]), strict=True):
        rows += [weight * np.array([x, -y, 1, 0]), weight * np.array([y, x, 0, 1])]
        right += [weight * u, weight * v]
    a, b, c, d = np.linalg.lstsq(np.array(rows), np.array(right), rcond=None)[0]
    assert similarity(points[[0, 1, 2, 3, 3]], TEMPLATE) == pytest.approx(np.array([[a, -b, c], [b, a, d]]), abs=1e-9)


def test_aligned_sets_have_the_landmarks_of_their_template(made, ask):
    arguments = ("lfw", "--root", made / "lfw", "--bin", "lfw.bin", "--model", made / "student.safetensors", "--json")
    moved = answered(ask(*arguments, "--landmarks"))
    assert moved["policies"]["faces"] == verb.FACES["landmarks"]
    data = insightface_bin.read_bin(made / "lfw" / "lfw.bin")
    points = np.array(
        [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
    )
    vectors = seen(data.read, len(data.images), made / "student.safetensors", points=lambda i: points)
    assert values(moved, "verification") == pytest.approx(lfw_family.evaluate(vectors, data.same).metrics, abs=1e-9)


class Call:
    def __reduce__(self):
        return os.mkdir, ("called",)


def hostile(folder: Path) -> None:
    (folder / "empty").mkdir()
    (folder / "file").write_text("no set")
    (folder / "lfw.bin").write_bytes(pickle.dumps(Call()))
    (folder / "text.bin").write_text("no pickle")
    (folder / "half" / "tinyface" / "Testing_Set" / "Probe").mkdir(parents=True)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("tinyface", "--root", "nowhere"), "Testing_Set"),
        (("tinyface", "--root", "empty"), "Testing_Set"),
        (("tinyface", "--root", "file"), "unpack"),
        (("tinyface", "--root", "half"), ".mat"),
        (("tinyface", "--root", "zero\0byte"), "Testing_Set"),
        (("survface", "--root", "empty"), "Face_Verification_Test_Set"),
        (("scface", "--root", "empty"), "mugshot"),
        (("lfw", "--root", "empty"), "lfw.bin"),
        (("lfw", "--root", "."), "mkdir"),
        (("lfw", "--root", ".", "--bin", "text.bin"), "text.bin"),
        (("lfw", "--root", ".", "--bin", "../lfw.bin"), "--bin"),
        (("lfw", "--root", "lfw.bin", "--bin", "text.bin"), "not a folder"),
        (("tinyface", "--root", "empty", "--bin", "lfw.bin"), "--bin"),
        (("megaface", "--root", "empty"), "tinyface, survface, scface, lfw"),
        (("tinyface", "--root", "SETS/tinyface", "--landmarks"), "no landmarks"),
        (("tinyface", "--root", "SETS/tinyface", "--model", "SETS/student.safetensors"), "rename"),
        (("tinyface", "--root", "SETS/tinyface", "--model", "nowhere.onnx"), "nowhere.onnx"),
        (("tinyface", "--root", "SETS/tinyface", "--out", "file"), "--out file"),
        (("tinyface", "--root", "SETS/tinyface", "--out", "file/inside"), "file is not a folder"),
    ],
)
def test_what_cannot_be_read_ends_in_one_sentence_and_nothing_written(arguments, word, made, ask, tmp_path):
    hostile(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    model = ("--model", made / "student.safetensors")
    out = () if "--out" in arguments else ("--out", "out")
    code, printed, err = ask(*(argument.replace("SETS", str(made)) for argument in arguments), *model, *out)
    assert code == 2 and printed == "" and err.startswith("lrfr: ") and err.endswith(".\n") and err.count("\n") == 1, (
        err
    )
    assert word in err and sorted(tmp_path.rglob("*")) == before


def test_a_set_that_is_too_small_for_its_protocol_is_refused(made, ask, tmp_path):
    data = insightface_bin.read_bin(made / "lfw" / "lfw.bin")
    (tmp_path / "mine.bin").write_bytes(pickle.dumps((data.images[:20], [True] * 10), protocol=4))
    code, out, err = ask(
        "lfw", "--root", tmp_path, "--bin", "mine.bin", "--model", made / "student.safetensors", "--out", "out"
    )
    assert code == 2 and out == "" and "mine.bin" in os.listdir(tmp_path) and not (tmp_path / "out").exists(), err
    assert err.startswith(f"lrfr: {tmp_path}: ") and err.count("\n") == 1


def test_a_file_of_another_name_gives_results_of_that_name(made, ask, tmp_path):
    shutil.copy(made / "lfw" / "lfw.bin", tmp_path / "cfp_fp.bin")
    arguments = (
        "--root",
        tmp_path,
        "--bin",
        "cfp_fp.bin",
        "--model",
        made / "student.safetensors",
        "--out",
        "out",
        "--json",
    )
    answer = answered(ask("lfw", *arguments))
    assert answer["set"] == "cfp_fp" and os.listdir("out") == ["cfp_fp.csv"]
    assert answer["counts"][0] == {"what": "pairs", "observed": 80, "published": 7000}
