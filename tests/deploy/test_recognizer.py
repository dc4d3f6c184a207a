"""The recogniser decides as the evaluation does, and nothing is loaded that its card does not vouch for."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lrfr.data import align, degrade
from lrfr.data.degradations import view_bank
from lrfr.data.draws import view_index
from lrfr.deploy import find_faces as faces
from lrfr.deploy import recognizer as cards
from lrfr.deploy.recognizer import Recognizer, cosines
from lrfr.deploy.release import threshold_at_far
from lrfr.errors import UserError
from lrfr.evaluate.bootstrap import Pairs
from lrfr.protocol import cells
from lrfr.protocol.embed import embed_views
from tests.deploy import students

PAIRS = 200
RESOLUTIONS = ("8", "16", "32", "hr")
FAR = 0.05


@pytest.fixture(scope="module")
def student(tmp_path_factory) -> Path:
    return students.write_student(tmp_path_factory.mktemp("student"))


@pytest.fixture(scope="module")
def recognizer(student) -> Recognizer:
    return Recognizer.load(student)


@pytest.fixture(scope="module")
def mtcnn():
    return faces.detector()


def evaluated(net, chips: np.ndarray, resolution: str) -> tuple[Pairs, np.ndarray]:
    """All pairs of faces, two a person, and their scores, by the code of the study."""
    bank = view_bank("area", chips, 8, 32, students.SIZE, 0, range(len(chips)))
    views = bank[:, int(view_index(np.array(0 if resolution == "hr" else int(resolution)), 8, 32))]
    x = cells.unit(embed_views(net, views))
    pairs = Pairs(np.repeat(np.arange(len(chips) // 2), 2), np.empty((0, len(chips) // 2), np.int64))
    return pairs, pairs.scores(cells.similarity(x, x))


def test_200_decisions_are_the_evaluations(tmp_path):
    validation, test = students.orl_chips(range(1, 11), 2), students.orl_chips(range(11, 22), 2)
    net, thresholds, expected = students.make_net(), {}, {}
    for resolution in RESOLUTIONS:
        pairs, scores = evaluated(net, validation, resolution)
        threshold, _ = threshold_at_far(scores, pairs.same, FAR)
        thresholds[resolution] = 1 - threshold**2 / 2  # of unit vectors: the cosine at that L2 distance
        pairs, scores = evaluated(net, test, resolution)
        expected[resolution] = (scores >= threshold)[:PAIRS]
    recognizer = Recognizer.load(students.write_student(tmp_path, thresholds=students.rows(thresholds, FAR)))
    for resolution in RESOLUTIONS:
        # what a user has: the aligned face in as many pixels as there are
        small = test if resolution == "hr" else degrade.area(torch.from_numpy(test), int(resolution)).numpy()
        x, pixels = recognizer.embed(list(small)), small.shape[1]
        similarities = cosines(x, x)[pairs.first, pairs.second][:PAIRS]
        decided = [bool(value >= recognizer.threshold(FAR, pixels, pixels)) for value in similarities]
        assert len(decided) == PAIRS and decided == expected[resolution].tolist()
        assert 0 < sum(decided) < PAIRS
        for k in (*np.flatnonzero(decided)[:2], *np.flatnonzero(np.logical_not(decided))[:2]):
            assert recognizer.same_person(small[pairs.first[k]], small[pairs.second[k]], FAR) == decided[k]


def test_embeddings_are_unit_vectors_and_do_not_depend_on_the_batch(recognizer):
    rng = np.random.Generator(np.random.Philox(key=3))
    images = [
        rng.integers(0, 256, (h, w, 3), dtype=np.uint8)
        for h, w in ((8, 8), (32, 32), (150, 150), (9, 40), (64, 33), (1, 1))
    ]
    x = recognizer.embed(images)
    assert x.shape == (6, 32) and x.dtype == np.float32
    assert np.allclose(np.linalg.norm(x, axis=1), 1, atol=1e-6)
    assert np.allclose(x, np.concatenate([recognizer.embed([image]) for image in images]), atol=1e-6)
    assert recognizer.embed([]).shape == (0, 32)
    assert recognizer.similarity(images[0], images[2]) == pytest.approx(float(x[0] @ x[2]), abs=1e-6)
    assert recognizer.similarity(images[0], images[0]) == pytest.approx(1, abs=1e-6)


def test_an_exported_student_shares_the_card_of_its_folder(tmp_path):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    kinds = onnx.TensorProto
    nodes = [
        onnx.helper.make_node("Cast", ["faces"], ["x"], to=kinds.FLOAT),
        onnx.helper.make_node("ReduceMean", ["x"], ["embeddings"], axes=[1, 2], keepdims=0),
    ]
    given = onnx.helper.make_tensor_value_info("faces", kinds.UINT8, ["n", "h", "w", 3])
    wanted = onnx.helper.make_tensor_value_info("embeddings", kinds.FLOAT, ["n", 3])
    graph = onnx.helper.make_graph(nodes, "mean", [given], [wanted])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=8)
    data, network = model.SerializeToString(), {"kind": "plain", **students.NETWORK, "embedding": 3}
    files = [{"file": f"lfw-kd{end}.onnx", "sha256": hashlib.sha256(data).hexdigest()} for end in ("", "-int8")]
    students.write_student(tmp_path, "lfw-kd", network=network, files=files)
    face = np.full((20, 20, 3), (3, 0, 4), np.uint8)
    for row in files:
        (tmp_path / row["file"]).write_bytes(data)
        assert np.allclose(Recognizer.load(tmp_path / row["file"]).embed([face]), [[0.6, 0, 0.8]])
    students.write_student(tmp_path, "lfw-kd", network=network | {"embedding": 4}, files=files)
    with pytest.raises(UserError, match="other embeddings than its card says"):
        Recognizer.load(tmp_path / "lfw-kd.onnx").embed([face])
    students.write_student(tmp_path, "lfw-kd", network=network, files=files)
    (tmp_path / "lfw-kd-other.onnx").write_bytes(data)
    with pytest.raises(UserError, match="says nothing about lfw-kd-other.onnx"):
        Recognizer.load(tmp_path / "lfw-kd-other.onnx")
    (tmp_path / "lfw-kd.onnx").write_bytes(data + b"x")
    with pytest.raises(UserError, match="sha256 differs"):
        Recognizer.load(tmp_path / "lfw-kd.onnx")
    model.graph.input[0].name = model.graph.node[0].input[0] = "pictures"
    other = [{"file": "lfw-kd.onnx", "sha256": hashlib.sha256(model.SerializeToString()).hexdigest()}]
    students.write_student(tmp_path, "lfw-kd", network=network, files=other)
    (tmp_path / "lfw-kd.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(UserError, match="cannot be read as a student's graph"):
        Recognizer.load(tmp_path / "lfw-kd.onnx").embed([face])
    broken = [{"file": "lfw-kd.onnx", "sha256": hashlib.sha256(b"onnx").hexdigest()}]
    students.write_student(tmp_path, "lfw-kd", network=network, files=broken)
    (tmp_path / "lfw-kd.onnx").write_bytes(b"onnx")
    with pytest.raises(UserError, match="cannot be read as a student's graph"):
        Recognizer.load(tmp_path / "lfw-kd.onnx")


def test_a_face_of_another_kind_is_refused(recognizer):
    for bad in (
        np.zeros((8, 8, 3)),
        np.zeros((8, 8), np.uint8),
        np.zeros((8, 0, 3), np.uint8),
        np.zeros((8, 5000, 3), np.uint8),
    ):
        with pytest.raises(UserError, match="face: "):
            recognizer.embed([bad])


@pytest.mark.parametrize(
    ("pixels", "resolution"),
    [(1, "8"), (8, "8"), (15, "8"), (16, "16"), (31, "16"), (32, "32"), (63, "32"), (64, "hr"), (150, "hr")],
)
def test_the_threshold_is_that_of_the_nearest_resolution_not_above_the_face(recognizer, pixels, resolution):
    assert recognizer.decide(0, 0.01, pixels)["resolution"] == resolution


def test_resolutions_that_are_not_listed_are_done_without(tmp_path):
    for listed, pixels, resolution in ((("8", "16"), 100, "16"), (("hr",), 10, "hr")):
        path = students.write_student(tmp_path, thresholds=students.rows(dict.fromkeys(listed, 0.5)))
        assert Recognizer.load(path).decide(0, 0.01, pixels)["resolution"] == resolution


def test_the_smaller_face_and_the_far_choose_the_threshold(recognizer):
    assert recognizer.threshold(0.01, 150, 17) == recognizer.threshold(0.01, 17, 150) == 0.4
    assert recognizer.threshold(0.001, 150, 150) == 0.6
    with pytest.raises(UserError, match="far 0.1: .*known are 0.001, 0.01"):
        recognizer.threshold(0.1, 8, 8)


def test_a_similarity_at_the_threshold_is_accepted(tmp_path, recognizer):
    a, b = students.orl_chips(range(1, 3), 1)
    at = recognizer.similarity(a, b)
    for threshold, same in ((at, True), (np.nextafter(at, 2), False)):
        path = students.write_student(tmp_path, thresholds=students.rows({"hr": threshold}))
        assert Recognizer.load(path).same_person(a, b) is same


def test_the_default_is_the_first_of_lfw_else_of_orl(tmp_path, monkeypatch):
    monkeypatch.setattr(cards, "WEIGHTS", tmp_path)
    with pytest.raises(UserError, match="lrfr release STUDY"):
        Recognizer.load()
    ranks = {"orl-scratch": 1, "lfw-scratch": 3, "lfw-kd": 1, "other-x": 1}
    for number, (name, chosen) in enumerate(
        zip(ranks, ("orl-scratch", "lfw-scratch", "lfw-kd", "lfw-kd"), strict=True)
    ):
        students.write_student(
            tmp_path, name, "se" if number == 1 else "plain", number, validation={"rank": ranks[name]}
        )
        assert Recognizer.load().card["name"] == chosen


def test_a_changed_model_is_refused(tmp_path):
    path = students.write_student(tmp_path)
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(UserError, match="sha256 differs"):
        Recognizer.load(path)
    path.unlink()
    with pytest.raises(UserError, match="cannot be read"):
        Recognizer.load(path)
    (tmp_path / "a.pt").write_bytes(b"pickle")
    with pytest.raises(UserError, match="not a .safetensors or .onnx"):
        Recognizer.load(tmp_path / "a.pt")


@pytest.mark.parametrize(
    "text",
    ["", "[]", "null", '{"name": 1}', "[" * 100_000, "\xff", '{"name": "x", "network": {"kind": "plain"}}'],
)
def test_a_damaged_card_is_refused(tmp_path, text):
    path = students.write_student(tmp_path)
    path.with_suffix(".json").write_text(text, encoding="latin-1")
    with pytest.raises(UserError, match="cannot be read as the card"):
        Recognizer.load(path)
    path.with_suffix(".json").unlink()
    with pytest.raises(UserError, match="needs its card"):
        Recognizer.load(path)


@pytest.mark.parametrize(
    "change",
    [
        {"input": {"size": 1 << 20}},
        {"input": {"size": 30}},
        {"network": {"kind": "large", **students.NETWORK}},
        {"network": {"kind": "plain", **students.NETWORK, "channels": [8, 8, 12, 10**9]}},
        {"network": {"kind": "plain", **students.NETWORK, "embedding": "32"}},
        {"thresholds": [{"resolution": "low", "far": 0.01, "similarity": 0.5}]},
        {"thresholds": [{"resolution": 8, "far": 0.01, "similarity": 0.5}]},
        {"thresholds": [{"resolution": "08", "far": 0.01, "similarity": 0.5}]},
        {"thresholds": [{"resolution": "8", "far": 0.01, "similarity": None}]},
        {"thresholds": 3},
        {"thresholds_from": 3},
        {"validation": 1},
        {"files": ["a.onnx"]},
    ],
)
def test_a_card_that_asks_for_nonsense_is_refused(tmp_path, change):
    with pytest.raises(UserError, match="cannot be read as the card"):
        Recognizer.load(students.write_student(tmp_path, **change))


def test_a_card_of_another_network_or_without_thresholds_says_so(tmp_path):
    other = {"kind": "plain", **students.NETWORK, "embedding": 64}
    with pytest.raises(UserError, match="another architecture"):
        Recognizer.load(students.write_student(tmp_path, network=other))
    with pytest.raises(UserError, match="cannot be read as the student of its card"):
        Recognizer.load(students.write_student(tmp_path, network={**other, "depth": 3}))
    recognizer = Recognizer.load(students.write_student(tmp_path, thresholds=[]))
    with pytest.raises(UserError, match="has no thresholds"):
        recognizer.threshold(0.01, 8, 8)


def test_the_detector_finds_what_the_studys_finds_and_leaves_torchs_compiler_usable(mtcnn):
    from lrfr.data import detect

    image = students.orl_photograph(1, 1)
    points = detect.landmarks(detect.detector(), image, 2, 40)[2]
    ((_, probability, own),) = faces.detect(mtcnn, image, 2, 40)
    assert np.array_equal(points, own) and probability > 0.9
    from torch._dynamo.utils import is_compile_supported

    assert is_compile_supported.__module__ == "torch._dynamo.utils"


def test_a_large_face_is_the_studys_hr_view():
    image, points = (
        students.orl_photograph(1, 1),
        np.array([(27.6, 52), (62.7, 50.4), (46.8, 72.1), (32.4, 89), (59.4, 88.8)]),
    )
    view, pixels = faces.align(image, points, 32)
    expected = degrade.hr_view(align.chip(image, points, (0, 0, 92, 112))[None], 32)[0]
    assert np.abs(view.astype(int) - expected).max() <= 1  # the crop around the face changes the last bit of a sum
    assert 85 < pixels < 115
    # far inside a large photograph the same face is the same
    large = Image.fromarray(np.pad(np.asarray(image), ((300, 500), (700, 100), (0, 0)), mode="edge"))
    again, size = faces.align(large, points + (700, 300), 32)
    assert size == pixels and np.abs(again.astype(int) - view).max() <= 1


def test_a_small_face_is_aligned_at_its_own_size():
    chip = students.orl_chips(range(1, 2), 1)[0]
    for side in (8, 16, 31):
        small = degrade.area(torch.from_numpy(chip)[None], side).numpy()[0]
        points = (align.TEMPLATE + 0.5) * side / 150 - 0.5  # upright, and exactly as large as the image
        view, pixels = faces.align(Image.fromarray(small), points, 32)
        assert pixels == side
        assert np.abs(view.astype(int) - degrade.degrade(chip[None], side, 32)[0]).max() <= 1
        # through the 150-pixel chip and down again it would be another one
        detour = degrade.hr_view(align.chip(Image.fromarray(small), points, (0, 0, side, side))[None], 32)[0]
        assert np.abs(view.astype(int) - detour).mean() > 0.5


def test_looks():
    assert faces.looks(250, 250)[0] == (1.0, 0)  # LFW as in its study
    assert faces.looks(4000, 3000)[0] == (0.32, 0)
    assert faces.looks(4000, 3000)[1] == (2560 / 4200, 100)
    scale, border = faces.looks(92, 112)[0]
    assert border == 46 and scale * (112 + 92) == pytest.approx(400)
    assert faces.looks(12, 12)[0] == (6.0, 6)
    for size in ((1, 1), (1, 9000), (199, 200), (8000, 8000)):
        for scale, border in faces.looks(*size):
            assert 0 < scale <= 6 and (max(size) + 2 * border) * scale <= 2561


def test_images_without_a_face_or_too_thin_for_the_detector_have_none(mtcnn):
    for size in ((1, 1), (3, 1), (1, 3000), (60, 60)):
        assert faces.find_faces(mtcnn, Image.new("RGB", size, (120, 130, 140)), 32) == []


ROOT = Path(__file__).resolve().parents[2]
LFW = ROOT.parent / "shared" / "datasets" / "lfw"
CARDS = [
    path for path in cards.WEIGHTS.glob("*.json") if json.loads(path.read_text(encoding="utf-8")).get("study") == "lfw"
]


@pytest.mark.skipif(
    not (CARDS and (LFW / "lfw-deepfunneled.tgz").is_file()), reason="needs LFW and a student released for it"
)
def test_two_photographs_of_one_person_and_of_two(tmp_path, capsys):
    from lrfr import cli
    from lrfr.sources.lfw import Photographs

    photographs = Photographs(LFW)
    names = ("George_W_Bush_0001", "George_W_Bush_0010", "Serena_Williams_0001")
    for name in names:
        (tmp_path / f"{name}.jpg").write_bytes(photographs.read(f"{name[:-5]}/{name}.jpg"))
    for other, same in zip(names[1:], (True, False), strict=True):
        arguments = ["verify", os.fspath(tmp_path / f"{names[0]}.jpg"), os.fspath(tmp_path / f"{other}.jpg"), "--json"]
        assert cli.main(arguments) == 0
        assert json.loads(capsys.readouterr().out)["same_person"] is same
