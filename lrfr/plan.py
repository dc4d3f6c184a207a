"""The stage `plan`: what shapes each stage and each training, one small file each.

A file has the parameters that its stage reads and the hashes of the code that it uses. It is the one thing besides data
that a stage of dvc.yaml depends on: change a number or a line of code, and the files tell DVC what has to run again.
Which parameters a stage reads is found in its code (`study.a.b`), so no list can forget one.
"""

import ast
import json
from hashlib import sha256
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from lrfr.config import Block, Study
from lrfr.errors import UserError
from lrfr.files import atomic_folder, write_text
from lrfr.fingerprint import ROOT, Code, Name, code_of, digest, entry, fingerprint, parameters_read
from lrfr.stages import STAGES
from lrfr.studies import check
from lrfr.train.trainings import all_models, training, trials

PLAIN = TypeAdapter(Any)  # any parameter -> what JSON can hold
NO_RESULT = {"runs", "reports", "jobs"}  # places and the number of processes: they change no number


def values(study: Study, paths: set[tuple[str, ...]]) -> dict[str, Any]:
    """Dotted name -> value, of what some code reads of a study.

    A block that is read as a whole is given as a whole. Raises LookupError for a function of `Study`: what decides from
    parameters has to be where code is hashed.
    """
    found: dict[str, Any] = {}
    for path in sorted(paths):
        value, names = study, []
        for name in path:
            if not isinstance(value, Block) or name == "model_copy" or (names and name == "model_dump"):
                break  # a copy or a dump of a block reads all of it
            value, names = getattr(value, name), [*names, name]
        if callable(value):
            raise LookupError(f"study.{'.'.join(names)} is a function; move it to lrfr.train.trainings")
        if names and names[0] not in NO_RESULT:
            found[".".join(names)] = PLAIN.dump_python(value, mode="json")
    return found


def notebook_code(name: str) -> Code:
    """The code cells of a notebook, and the stage that runs it. Cells read the study under names of their own."""
    path = Path("notebooks") / f"{name}.ipynb"
    if not path.is_file():
        raise UserError(f"{path.as_posix()}: no such notebook; correct notebooks in params.yaml.")
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    source = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    code = code_of("lrfr", [ast.parse(source)])
    return Code(code.digest, [*entry(STAGES["notebook"].module).names, *code.names], set())


def texts() -> str:
    """A hash of the templates and texts beside the code, which pages are made of."""
    files = (path for path in ROOT.rglob("*") if path.suffix in (".j2", ".css", ".js", ".yaml"))
    return digest("".join(path.read_text(encoding="utf-8") for path in sorted(files)))


def plans(study: Study) -> dict[str, dict[str, Any]]:
    """Name of the file -> its content, of every stage, training, tuning and notebook."""
    methods = {model.method for model in all_models(study).values()}
    teachers = {block.name for block in (study.teacher, study.faces.searcher) if block is not None}
    chosen = {"METHODS": methods, "SOURCES": {study.faces.source, *study.faces.tests}, "TEACHERS": teachers}
    blocks = {name: (training(study, name), "distill") for name in (*study.models, *study.variants)}
    blocks |= {f"tune-{name}": (trials(study, name), "tune") for name in study.tuning.grid}
    files, pages = {}, texts()
    for name, stage in STAGES.items():
        if name != "plan" and (not stage.item or (name == "sets" and study.benchmark_sets)):
            start = entry(stage.module)
            if stage.sources:
                which = {("faces", "source"), ("faces", "tests")}
                start = Code(start.digest, [*start.names, Name("lrfr.sources", "SOURCES")], which)
            read = values(study, parameters_read(start, chosen))
            files[name] = {"parameters": read, "code": fingerprint(start, chosen)}
            if stage.module.split(".")[1] in ("report", "deploy", "benchmarks"):
                files[name]["texts"] = pages
    for name in study.notebooks:
        code, whole = fingerprint(notebook_code(name), chosen), study.model_dump(mode="json", exclude={"jobs"})
        files[f"notebook-{name}"] = {"parameters": whole, "code": code, "texts": pages}
    for name, (block, stage) in blocks.items():
        method = (block if stage == "distill" else block.training).model.method
        code = fingerprint(entry(STAGES[stage].module), {**chosen, "METHODS": {method}})
        files[name] = {"parameters": block.model_dump(mode="json"), "code": code}
    if study.student.start is not None:  # in the package, so no stage makes it
        from lrfr.models.student import RELEASED  # which imports torch

        weights = RELEASED / f"{study.student.start}.safetensors"
        for name in ("references", *blocks):
            files[name]["start"] = read_sha256(weights)
    return files


def read_sha256(path: Path) -> str:
    """Of a file; UserError if it is not there."""
    try:
        return sha256(path.read_bytes()).hexdigest()
    except OSError:
        known = ", ".join(sorted(file.stem for file in path.parent.glob("*.safetensors")))
        raise UserError(f"student.start: no {path.name} in lrfr/weights; known are {known}.") from None


def run(study: Study) -> None:
    """Write runs/<study>/plan/<name>.json."""
    check(study, "params.yaml")
    with atomic_folder(study.runs / "plan") as folder:
        for name, content in plans(study).items():
            write_text(folder / f"{name}.json", json.dumps(content, indent=1) + "\n")
