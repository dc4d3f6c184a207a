"""`lrfr export --out DIR`: any student as ONNX, with its card.

A model of the study in params.yaml gets two graphs, float32 and 8 bits, and the comparison with torch on its card. A
released student needs no study: its graph is made from its own file, in float32; 8-bit weights need training faces.
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
    from lrfr.deploy.cards import find_model
    from lrfr.deploy.export import export, write_released

    name, out = arguments.model, arguments.out
    if out is None:
        raise UserError("--model: say with --out DIR where to; the stage exports the model that was ranked first.")
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out}: is not a folder; name one.")
    if name is not None and name.endswith(".safetensors"):
        write_released(find_model(name), out)
    else:
        export(config.load(), name, out)
    return 0
