"""`lrfr export --out DIR`: any student as ONNX, with its card.

A model of the study in params.yaml gets two graphs, float32 and 8 bits, and the comparison with torch on its card. A released
student needs no study: its graph is made from its own file, in float32; 8-bit weights need training faces.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from lrfr.errors import UserError


def add(parser: argparse.ArgumentParser) -> None:
    text = (
        "a key of `models`, or the .safetensors file of a released student (default: the model that was ranked first)"
    )
    parser.add_argument("--model", metavar="NAME", help=text)
    parser.add_argument("--out", type=Path, metavar="DIR", help="the folder for graphs and card")


def run(arguments: argparse.Namespace) -> int:
    """Write graphs and card. UserError if the extra `export` is not installed, or the model cannot be exported."""
    from lrfr import config
    from lrfr.deploy.export import export

    model, out = arguments.model, arguments.out
    if out is None:
        raise UserError("--model: say with --out DIR where to; the stage exports the model that was ranked first.")
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out}: is not a folder; name one.")
    if model is not None and model.endswith(".safetensors"):
        export_released(Path(model), out)
    else:
        export(config.load(), model, out)
    return 0


def export_released(path: Path, folder: Path) -> None:
    """Write a released student's float32 graph and its card. UserError if model or card is damaged or missing."""
    from lrfr.deploy import onnx_graph
    from lrfr.deploy.cards import find_model
    from lrfr.deploy.export import describe
    from lrfr.deploy.recognizer import released_student
    from lrfr.deploy.release import write_card

    onnx_graph.check_packages()
    model = find_model(path)
    student, file = released_student(model), folder / f"{model.path.stem}.onnx"
    onnx_graph.export_onnx(student, model.card["input"]["size"], file)
    write_card(file.with_suffix(".json"), describe(model.card, [file]))
    print(f"Exported: {file.as_posix()}.")
