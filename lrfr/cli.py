"""The command line: one subcommand per stage of `dvc.yaml`, and the user's verbs."""

from __future__ import annotations

import argparse
import os
import sys
from importlib import import_module
from pathlib import Path

from lrfr import __version__, studies
from lrfr.benchmarks import verb as benchmark_verb
from lrfr.deploy import verbs
from lrfr.errors import UserError

STAGES = {  # stage -> (module, what it does); modules are imported only when their stage runs
    "fingerprint": ("lrfr.fingerprint", "hash the code that each stage uses"),
    "detect": ("lrfr.data.detect", "find faces and landmarks"),
    "prepare": ("lrfr.data.prepare", "check, align and divide the faces; make their low-resolution views"),
    "teacher": ("lrfr.train.teacher", "fine-tune the teacher on the HR training people of every fold"),
    "targets": ("lrfr.train.targets", "compute the teacher's outputs for the training faces, once"),
    "tune": ("lrfr.train.tuning", "try three values of one number of a model (--model)"),
    "distill": ("lrfr.train.distill", "train one model of the study (--model)"),
    "rank": ("lrfr.train.ranking", "order the models by the validation people's errors"),
    "embed": ("lrfr.protocol.embed", "embed the held-out faces with every model"),
    "evaluate": ("lrfr.protocol.study", "score all pairs; bootstrap over identities"),
    "summary": ("lrfr.report.tables", "write the study's tables"),
    "sets": ("lrfr.benchmarks.stage", "score one benchmark set of the study (--set)"),
    "mirror": ("lrfr.deploy.mirror", "measure what averaging a face with its mirror image buys"),
    "export": (
        "lrfr.deploy.export",
        "write the student that was ranked first as ONNX; with --out, any model's anywhere",
    ),
    "benchmark": ("lrfr.deploy.cost", "measure everything that is measured in seconds"),
    "status": ("lrfr.report.status", "list what of the study has run and what has not"),
    "claims": ("lrfr.report.claims", "hold the five abstracts' claims against the study's tables"),
    "notebook": ("lrfr.report.notebooks", "execute one notebook into the report (--notebook)"),
    "site": ("lrfr.report.site", "tie the report together in index.html"),
}


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="lrfr", description="Five papers on knowledge distillation for low-resolution faces, under one protocol."
    )
    top.add_argument("--version", action="version", version=f"lrfr {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for stage, (_, text) in STAGES.items():
        command = commands.add_parser(stage, help=f"stage: {text}", description=text)
        if stage in ("tune", "distill"):
            command.add_argument("--model", required=True, help="a key of `models` in params.yaml")
        if stage == "sets":
            command.add_argument("--set", required=True, help="one of `benchmark_sets` in params.yaml")
        if stage == "notebook":
            command.add_argument("--notebook", required=True, help="name of a file in notebooks/, without .ipynb")
            text = "another value for a parameter of the notebook; the page then goes to notebooks/output/, not to the report"
            command.add_argument("-p", "--parameter", action="append", default=[], metavar="NAME=VALUE", help=text)
        if stage == "embed":
            verbs.add_embed(command)
        if stage == "export":
            text = "a key of `models`, or the .safetensors file of a released student (default: the model that was ranked first)"
            command.add_argument("--model", metavar="NAME", help=text)
            command.add_argument("--out", type=Path, metavar="DIR", help="where to (default: where the stage writes)")
    studies.add_options(commands.add_parser("study", help="make params.yaml the parameters of another study"))
    commands.add_parser("repro", help="run what has changed, like `dvc repro`, with trainings side by side")
    release = commands.add_parser("release", help="copy a study's chosen students, with cards, to lrfr/weights")
    release.add_argument("name", help="the study in params.yaml")
    verbs.add_verbs(commands)
    text = "the official protocol of a benchmark set that you bring, for any students"
    benchmark_verb.add(commands.add_parser("benchmark-set", help=text))
    unpack = commands.add_parser("unpack", help="unpack a zip archive that nobody has checked, as benchmark sets come")
    unpack.add_argument(
        "archive", type=Path, help="a .zip file; what leads out of the folder, links, bombs are refused"
    )
    unpack.add_argument("folder", type=Path, help="a new folder, which appears only when everything is in it")
    commands.add_parser("doctor", help="say what is installed, missing or wrong")
    return top


def notebook_parameters(pairs: list[str]) -> dict[str, object]:
    import yaml

    for pair in pairs:
        if "=" not in pair:
            raise UserError(f"--parameter {pair}: write NAME=VALUE, for example fold=1.")
    try:
        return {name: yaml.safe_load(value) for name, value in (pair.split("=", 1) for pair in pairs)}
    except yaml.YAMLError:
        raise UserError(
            f"--parameter {' '.join(pairs)}: a value is not valid YAML; write a number or a word."
        ) from None


def dispatch(arguments: argparse.Namespace) -> int:
    if arguments.command == "doctor":
        from lrfr import doctor

        return doctor.run()
    if arguments.command == "unpack":
        from lrfr.gate.zips import unpack

        unpack(arguments.archive, arguments.folder)
        print(f"{arguments.folder}: unpacked.")
        return 0
    if arguments.command == "study":
        return studies.run(arguments)
    if arguments.command == "benchmark-set":
        return benchmark_verb.run(arguments)
    if verbs.is_verb(arguments):
        return verbs.run(arguments)
    from lrfr import config  # here, because the verbs for photographs answer sooner without it

    study = config.load()
    if arguments.command == "repro":
        from lrfr import repro

        repro.run(study)
        return 0
    if arguments.command == "release":
        from lrfr.deploy import release

        release.run(study, arguments.name)
        return 0
    stage = arguments.command
    extra: list[object] = []
    if stage in ("tune", "distill"):
        trained = (*study.models, *study.run_arms, *study.run_seeds)
        key, known = ("tuning.grid", study.tuning.grid) if stage == "tune" else ("models", trained)
        if arguments.model not in known:
            names = ", ".join(known) or "none"
            raise UserError(f"params.yaml: there is no model '{arguments.model}' in {key}; known are {names}.")
        from lrfr.train.blocks import check_blocks

        check_blocks(study, "params.yaml")
        study, extra = study.for_training(arguments.model), [arguments.model]
    if stage == "notebook":
        if arguments.notebook not in study.notebooks:
            raise UserError(
                f"params.yaml: there is no notebook '{arguments.notebook}' in notebooks; known are {', '.join(study.notebooks)}."
            )
        extra = [arguments.notebook, notebook_parameters(arguments.parameter)]
    if stage == "sets":
        if arguments.set not in study.benchmark_sets:
            names = ", ".join(study.benchmark_sets) or "none"
            raise UserError(f"params.yaml: there is no set '{arguments.set}' in benchmark_sets; known are {names}.")
        extra = [arguments.set]
    if stage == "export":
        extra = [arguments.model, arguments.out]
    import_module(STAGES[stage][0]).run(study, *extra)
    return 0


def main(argv: list[str] | None = None) -> int:
    """Run a command; 0 for success, 2 with one sentence on stderr for what the user can mend."""
    try:
        code = dispatch(parser().parse_args(argv))
        sys.stdout.flush()
        return code
    except UserError as error:
        print(f"lrfr: {error}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        if error.name and not error.name.startswith("lrfr"):
            print(
                f"lrfr: the package '{error.name}' is not installed; run `make setup`, then `lrfr doctor`.",
                file=sys.stderr,
            )
            return 2
        raise
    except FileNotFoundError as error:
        if Path(str(error.filename)).parts[:1] not in (("runs",), ("reports",)):
            raise
        print(f"lrfr: {error.filename}: not there; an earlier stage makes it, so run `dvc repro`.", file=sys.stderr)
        return 2
    except (
        BrokenPipeError
    ):  # the reader of stdout has seen enough, as `head` has; Python would complain once more at its exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
