"""The exported graphs answer as torch does, on real faces of every size, and always with the same bytes."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from lrfr.config import Study
from lrfr.data.degrade import area, degrade, hr_view
from lrfr.deploy import onnx_graph
from lrfr.errors import UserError
from lrfr.models.student import StudentNet, build_student
from lrfr.protocol.cells import unit
from lrfr.protocol.embed import embed_views
from tests.deploy.conftest import SIZE, Exported

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


@pytest.fixture(params=["plain", "se"])
def exported(request, exported_plain: Exported, exported_se: Exported) -> Exported:
    """Both files of a student of the size that the studies train."""
    return {"plain": exported_plain, "se": exported_se}[request.param]


def session(exported: Exported, number: int = 0) -> onnxruntime.InferenceSession:
    return onnx_graph.session(exported.paths[number], 1)


def expected(student: StudentNet, faces: np.ndarray) -> np.ndarray:
    return unit(embed_views(student, hr_view(faces, SIZE)))


@pytest.mark.parametrize("side", [8, 12, 16, 32, 150])
@pytest.mark.parametrize("batch", [1, 7])
def test_the_float_graph_agrees_with_torch_on_real_faces(exported: Exported, chips: np.ndarray, side: int, batch: int):
    faces = area(torch.from_numpy(chips[:batch]), side).numpy()
    found = onnx_graph.embed(session(exported), faces)
    assert found.dtype == np.float32 and found.shape == (batch, exported.student.embed.out_features)
    assert np.abs(np.linalg.norm(found, axis=1) - 1).max() < 1e-5
    # a whole face in a batch of others is what it is alone; 1e-4 is promised
    assert np.abs(1 - (unit(found) * expected(exported.student, faces)).sum(1)).max() < 1e-5
    if side < SIZE:  # the study's own view of that many pixels
        view = embed_views(exported.student, degrade(chips[:batch], side, SIZE))
        assert np.abs(1 - (unit(found) * unit(view)).sum(1)).max() < 1e-5


def test_the_resize_inside_is_the_studys_to_the_bit(exported: Exported, chips: np.ndarray):
    model = onnx.load(exported.paths[0])
    (resized,) = (node.output[0] for node in model.graph.node if node.op_type == "If")
    del model.graph.output[:]
    model.graph.output.append(onnx.helper.make_tensor_value_info(resized, onnx.TensorProto.UINT8, None))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    noise = np.random.Generator(np.random.Philox(key=5)).integers(0, 256, (1, 160, 160, 3), dtype=np.uint8)
    noise[:, 40:80, :40], noise[:, :40, 40:80] = 0, 255  # edges where the kernel overshoots
    for height, width in [
        *((side, side) for side in range(8, 161)),
        (1, 1),
        (7, 90),
        (90, 7),
        (31, 33),
        (160, 32),
        (33, 32),
    ]:
        faces = np.ascontiguousarray(noise[:, :height, :width])
        np.testing.assert_array_equal(
            session.run(None, {"faces": faces})[0], hr_view(faces, SIZE), f"{height} x {width}"
        )


def test_the_input_is_bytes_of_any_side_and_batch_norm_is_folded(exported: Exported):
    for path in exported.paths:
        graph = onnx.load(path).graph
        (faces,), (embeddings,) = graph.input, graph.output
        assert (faces.name, embeddings.name) == ("faces", "embeddings")
        assert faces.type.tensor_type.elem_type == onnx.TensorProto.UINT8
        assert [d.dim_param or d.dim_value for d in faces.type.tensor_type.shape.dim] == ["batch", "height", "width", 3]
        assert [d.dim_param or d.dim_value for d in embeddings.type.tensor_type.shape.dim] == ["batch", 128]
        assert "BatchNormalization" not in {node.op_type for node in graph.node}


def test_the_same_student_gives_the_same_bytes_and_nothing_of_this_machine(exported_plain: Exported, tmp_path: Path):
    exported = exported_plain
    again = tmp_path / "float.onnx", tmp_path / "int8.onnx"
    onnx_graph.export_onnx(exported.student, SIZE, again[0])
    onnx_graph.quantise(*again, exported.calibration)
    for first, second in zip(exported.paths, again, strict=True):
        assert first.read_bytes() == second.read_bytes()
        model = onnx.load(first)
        del model.graph.initializer[:]  # random bytes may spell anything
        text = str(model)
        assert ".py" not in text and " at 0x" not in text and torch.__version__ not in text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["float.onnx", "int8.onnx"]  # no temporary file stays


def test_int8_is_small_and_leaves_the_resize_alone(exported: Exported):
    large, small = (path.stat().st_size for path in exported.paths)
    weights = sum(t.numel() for t in exported.student.parameters())
    assert small <= 0.3 * large and large <= 4.2 * weights
    graphs = [onnx.load(path).graph for path in exported.paths]
    resizes = [next(node for node in graph.node if node.op_type == "If") for graph in graphs]
    for branches in zip(*(sorted(node.attribute, key=lambda branch: branch.name) for node in resizes), strict=True):
        kinds = [[node.op_type for node in branch.g.node] for branch in branches]
        assert kinds[0] == kinds[1] and "MatMul" in kinds[0]
    kinds = [node.op_type for node in graphs[1].node]
    assert kinds.index("Conv") < kinds.index("QuantizeLinear")  # the first convolution reads the pixels as they are
    quantised = [t for t in graphs[1].initializer if t.data_type == onnx.TensorProto.INT8 and len(t.dims) == 4]
    assert len(quantised) == sum(isinstance(m, nn.Conv2d) for m in exported.student.modules()) - 1
    for tensor in quantised:
        values = onnx.numpy_helper.to_array(tensor)
        assert 60 <= np.abs(values).max() <= 64  # 7 bits: no processor's 16-bit sums overflow
        assert np.median(np.abs(values).reshape(len(values), -1).max(1)) >= 60  # each output channel has its own scale


@pytest.mark.parametrize("side", [8, 16, 150])
def test_int8_puts_faces_in_nearly_the_same_places(exported: Exported, chips: np.ndarray, side: int):
    """Embeddings of an untrained student share a direction; without it they must still agree."""
    faces = area(torch.from_numpy(chips), side).numpy()
    float32, int8 = (unit(onnx_graph.embed(session(exported, number), faces)) for number in (0, 1))
    centred = [unit(x - float32.mean(0)) for x in (float32, int8)]
    assert (centred[0] * centred[1]).sum(1).min() > 0.9 and not np.array_equal(float32, int8)


@pytest.mark.parametrize("package", onnx_graph.PACKAGES)
def test_a_missing_package_is_one_sentence(package: str, tmp_path: Path, composed, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, package, None)
    student = build_student(Study(**composed("orl")).student, "plain", SIZE, 0)
    with pytest.raises(UserError, match=rf"^{package}: not installed; .* extra `export`, run `pip install .*\.$"):
        onnx_graph.export_onnx(student, SIZE, tmp_path / "x.onnx")
    assert list(tmp_path.iterdir()) == []
