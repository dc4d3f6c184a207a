"""A student as an ONNX graph: uint8 faces of any side in, unit-length embeddings out, in float32 or with 8-bit weights.

The resize inside is the study's own code, traced: `lrfr.data.degrade`, the same to the bit. Packages of the optional
extra `export` are imported when they are needed.
"""

import tempfile
import warnings
from importlib import import_module
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lrfr.data.degrade import area, bicubic
from lrfr.errors import UserError
from lrfr.files import atomic_file
from lrfr.models.student import StudentNet, normalise

FACES, EMBEDDINGS = "faces", "embeddings"  # names of the input and the output
AXES = ("batch", "height", "width")  # names of the input's free axes
PACKAGES = ("onnx", "onnxscript", "onnxruntime")  # of the extra `export`


def extra(*modules: str) -> ModuleType:
    """Modules of the optional extra `export`; the last is returned. Raises UserError if a package is not installed."""
    try:
        return [import_module(module) for module in modules][-1]
    except ImportError as error:
        why = "not installed; it belongs to the optional extra `export`, run `pip install -e '.[export]'`."
        raise UserError(f"{(error.name or modules[0]).split('.')[0]}: {why}") from None


class Embedder(nn.Module):
    """Aligned faces uint8 (N, H, W, 3), RGB, of any side -> unit-length float32 (N, D), as by `hr_view`."""

    def __init__(self, student: StudentNet, size: int) -> None:
        super().__init__()
        self.student, self.size = student.eval(), size

    def forward(self, faces: Tensor) -> Tensor:
        small = min(faces.shape[1], faces.shape[2]) < self.size
        views = torch.cond(small, lambda x: bicubic(x, self.size), lambda x: area(x, self.size), (faces,))
        return F.normalize(self.student(normalise(views)).embedding)


def finish(model: Any, path: Path) -> None:
    """Check a graph and write it without what exporters leave behind: paths of this machine, unused constants."""
    parts = [model.graph]
    for part in parts:  # the list grows by the branches inside
        parts += [a.g for node in part.node for a in node.attribute if a.HasField("g")]
    used = {name for part in parts for node in part.node for name in node.input}
    used |= {output.name for part in parts for output in part.output}
    for part in parts:
        kept = [tensor for tensor in part.initializer if tensor.name in used]
        del part.initializer[:], part.value_info[:]  # the second: shapes that can be inferred again
        part.initializer.extend(kept)
        for item in (part, *part.node, *part.initializer, *part.input, *part.output):
            item.ClearField("doc_string")
            item.ClearField("metadata_props")
    (faces,), (embeddings,) = model.graph.input, model.graph.output
    for axis, name in enumerate(AXES):
        faces.type.tensor_type.shape.dim[axis].dim_param = name
    embeddings.type.tensor_type.shape.dim[0].dim_param = AXES[0]
    model.ClearField("metadata_props")
    extra("onnx").checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString(deterministic=True))


def export_onnx(student: StudentNet, size: int, path: Path) -> None:
    """Write a student for inputs of `size` pixels in float32, batch norm folded; always the same bytes.

    Batch, height and width are free. Raises UserError if the extra `export` is not installed.
    """
    extra(*PACKAGES)
    example = torch.zeros(2, size // 2, size // 2, 3, dtype=torch.uint8)
    axes = dict.fromkeys(range(len(AXES)), torch.export.Dim.DYNAMIC)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # functions traced without their caches, and what torch deprecates
        # strict: Python's own `max` and `min` of two sides become part of the graph, not a decision about the example
        program = torch.export.export(Embedder(student, size), (example,), dynamic_shapes=(axes,), strict=True)
        # 20: what torch 2.14 writes by default; onnxruntime reads it from 1.17 on
        model = torch.onnx.export(
            program, dynamo=True, opset_version=20, input_names=[FACES], output_names=[EMBEDDINGS], verbose=False
        ).model_proto
    model.ClearField("producer_version")  # names the build of torch
    with atomic_file(path) as temporary:
        finish(model, temporary)


def quantise(float_path: Path, int8_path: Path, calibration_faces: np.ndarray) -> None:
    """Write the same graph with 8-bit weights and activations (QDQ), calibrated on training faces uint8 (n, S, S, 3).

    Our choices keep the error rates: the resize, the first convolution and the normalisation of the embedding stay as
    they are; weights use 7 of the 8 bits, since processors without VNNI add pairs of products in 16 bits, which 8 would
    overflow (onnxruntime's documentation, "Quantize ONNX models").
    """
    onnx = extra("onnx")
    quantization, shapes = (extra(f"onnxruntime.quantization{part}") for part in ("", ".shape_inference"))
    nodes = onnx.load(float_path).graph.node
    first = next(place for place, node in enumerate(nodes) if node.op_type == "Conv")
    last = max(place for place, node in enumerate(nodes) if node.op_type == "Gemm")
    batches = ({FACES: calibration_faces[i : i + 50]} for i in range(0, len(calibration_faces), 50))
    with tempfile.TemporaryDirectory() as folder, atomic_file(int8_path) as temporary:
        inferred = Path(folder) / "inferred.onnx"
        shapes.quant_pre_process(str(float_path), str(inferred), skip_optimization=True, skip_symbolic_shape=True)
        quantization.quantize_static(
            str(inferred),
            str(temporary),
            SimpleNamespace(get_next=lambda: next(batches, None)),  # a calibration reader: a batch a call, then None
            per_channel=True,
            reduce_range=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            nodes_to_exclude=[node.name for node in [*nodes[: first + 1], *nodes[last + 1 :]]],
        )
        finish(onnx.load(temporary), temporary)


def session(path: Path, threads: int) -> Any:
    """An ONNX file, ready to run on the CPU. Raises UserError if the extra `export` is not installed."""
    runtime = extra("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    return runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def embed(running: Any, faces: np.ndarray) -> np.ndarray:
    """Aligned faces uint8 (N, H, W, 3) -> unit-length float32 (N, D)."""
    return running.run([EMBEDDINGS], {FACES: faces})[0]
