"""The command line: the user's verbs, and behind `lrfr stage` the stages of `dvc.yaml`."""

import argparse
import os
import sys
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from lrfr import __version__
from lrfr.errors import UserError
from lrfr.stages import STAGES


class Verb(NamedTuple):
    """module: has `add(parser)`, which adds the verb's arguments, and `run(arguments)`, which returns the exit code."""

    module: str
    text: str
    example: str


VERBS = {
    "study": Verb("lrfr.studies", "make params.yaml the parameters of another study", "lrfr study smoke"),
    "repro": Verb("lrfr.repro", "run what has changed, then say where the report is", "lrfr repro"),
    "doctor": Verb("lrfr.doctor", "say what is installed, missing or wrong", "lrfr doctor"),
    "verify": Verb("lrfr.deploy.verify", "say whether two photographs show one person", "lrfr verify a.jpg b.jpg"),
    "identify": Verb(
        "lrfr.deploy.identify", "name the most similar faces of a folder", "lrfr identify --gallery faces a.jpg"
    ),
    "embed": Verb(
        "lrfr.deploy.embed", "write embeddings of all faces in a folder", "lrfr embed faces --out faces.parquet"
    ),
    "export": Verb("lrfr.deploy.export_student", "write a student as ONNX", "lrfr export --model kd --out kd-onnx"),
    "release": Verb("lrfr.deploy.release", "copy a study's chosen students to lrfr/weights", "lrfr release lfw"),
    "benchmark-set": Verb(
        "lrfr.benchmarks.verb",
        "score one student on a benchmark set of yours",
        "lrfr benchmark-set tinyface --root TinyFace --model kd.safetensors",
    ),
    "notebook": Verb(
        "lrfr.report.by_hand",
        "run a notebook with other parameters, beside the report",
        "lrfr notebook 03-hkdd -p fold=1",
    ),
    "unpack": Verb("lrfr.gate.archives", "unpack a zip archive that nobody has checked", "lrfr unpack set.zip folder"),
    "stage": Verb("lrfr.cli", "run one stage of dvc.yaml alone, as `dvc repro` does", "lrfr stage --help"),
}


def add(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb `stage`."""
    stages = parser.add_subparsers(dest="stage", required=True, metavar="STAGE")
    for name, stage in STAGES.items():
        command = stages.add_parser(name, help=stage.text, description=stage.text)
        if stage.item:
            command.add_argument(f"--{stage.item}", dest="item", required=True, metavar="NAME", help="of params.yaml")


def run(arguments: argparse.Namespace) -> int:
    """The verb `stage`."""
    from lrfr import config

    study, stage = config.load(), STAGES[arguments.stage]
    if stage.item:
        known = {
            "model": tuple(study.tuning.grid),
            "training": (*study.models, *study.variants),
            "set": study.benchmark_sets,
            "notebook": study.notebooks,
        }[stage.item]
        if arguments.item not in known:
            names = ", ".join(known) or "none"
            raise UserError(
                f"params.yaml: there is no {stage.item} '{arguments.item}' in this study; known are {names}."
            )
    given = [arguments.item] if stage.item else []
    if stage.sources:
        from lrfr.sources import SOURCES

        given.append({name: SOURCES[name] for name in (study.faces.source, *study.faces.tests)})
    import_module(stage.module).run(study, *given)
    return 0


def parser(verb: str | None) -> argparse.ArgumentParser:
    """The parser, with the arguments of one verb: the others' modules need not be imported."""
    width = max(len(one.example) for name, one in VERBS.items() if name != "benchmark-set")
    examples = "\n".join(f"  {one.example:{width}}  {one.text}" for one in VERBS.values())
    top = argparse.ArgumentParser(
        prog="lrfr",
        description="Five papers on knowledge distillation for low-resolution faces, under one protocol.",
        epilog=f"one example each:\n{examples}\n\n`lrfr VERB --help` says more.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="lrfr VERB ...",
    )
    top.add_argument("--version", action="version", version=f"lrfr {__version__}")
    verbs = top.add_subparsers(prog="lrfr", dest="verb", required=True, metavar="VERB", help=argparse.SUPPRESS)
    for name, one in VERBS.items():
        command = verbs.add_parser(name, description=f"{one.text}.", epilog=f"example: {one.example}")
        if name == verb:
            import_module(one.module).add(command)
    return top


def main(argv: list[str] | None = None) -> int:
    """Run a command; 0 for success, 2 with one sentence on stderr for what the user can mend."""
    given = sys.argv[1:] if argv is None else argv
    try:
        arguments = parser(next((word for word in given if not word.startswith("-")), None)).parse_args(given)
        code = import_module(VERBS[arguments.verb].module).run(arguments)
        sys.stdout.flush()
        return code
    except UserError as error:
        reason = str(error)
    except ModuleNotFoundError as error:
        if not error.name or error.name.startswith("lrfr"):
            raise
        reason = f"the package '{error.name}' is not installed; run `make setup`, then `lrfr doctor`."
    except FileNotFoundError as error:
        if Path(str(error.filename)).parts[:1] not in (("runs",), ("reports",)):
            raise
        reason = f"{error.filename}: not there; an earlier stage makes it, so run `dvc repro`."
    except BrokenPipeError:  # the reader of stdout has seen enough, as `head` has; Python would complain at its exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    print(f"lrfr: {reason}", file=sys.stderr)
    return 2
