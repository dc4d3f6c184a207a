"""`lrfr export --out DIR`: any student as ONNX, with its card.

A model of the study in params.yaml gets two graphs, compared with torch on the card; a released student needs no study
and gets one, in float32, from its own file: 8-bit weights need training faces.
"""

import argparse
from pathlib import Path

from lrfr.errors import UserError


def add(parser: argparse.ArgumentParser) -> None:
    text = "a key of `models`, or a released student's .safetensors file (default: the model that `rank` chose)"
    parser.add_argument("--model", metavar="NAME", help=text)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder for graphs and card")


def run(arguments: argparse.Namespace) -> int:
    from lrfr import config
    from lrfr.deploy import export, onnx_graph
    from lrfr.deploy.recognizer import find_model, released_student

    name, out = arguments.model, arguments.out
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out}: is not a folder; name one.")
    if name and name.endswith(".safetensors"):
        model, file = find_model(name), out / f"{Path(name).stem}.onnx"
        onnx_graph.export_onnx(released_student(model), model.card["input"]["size"], file)
        export.finish(model.card, [file])
    else:
        export.export(config.load(), name, out)
    return 0
