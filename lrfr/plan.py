"""The stage `plan`: what shapes each stage and each training, one small file each.

A file has the parameters that its stage reads and the hashes of the code that it uses. It is the one thing besides data
that a stage of dvc.yaml depends on: change a number or a line of code, and the files tell DVC what has to run again.
Which parameters a stage reads is found in its code (`study.a.b`), so no list can forget one.
"""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from lrfr.config import Block, Study
from lrfr.errors import UserError
from lrfr.files import atomic_folder
from lrfr.fingerprint import Chosen, Code, Name, code_of, entry, fingerprint, parameters_read
from lrfr.stages import STAGES, Stage
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


def start_of(stage: Stage) -> Code:
    """Where a stage starts: its function, and the source that it is given."""
    start = entry(stage.module)
    if stage.source:
        start = Code(start.digest, [*start.names, Name("lrfr.sources", "SOURCES")], {("faces", "source")})
    return start


def notebook_code(path: Path) -> Code:
    """The code cells of a notebook. They are given the whole study, under names of their own."""
    if not path.is_file():
        raise UserError(f"{path.as_posix()}: no such notebook; correct notebooks in params.yaml.")
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    source = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    return code_of("lrfr", [ast.parse(source)])


def in_use(study: Study) -> Chosen:
    """Entries of the registries that the study uses."""
    methods = {model.method for model in all_models(study).values()}
    return {"METHODS": methods, "SOURCES": {study.faces.source}, "TEACHERS": {study.teacher.name}}


def plans(study: Study) -> dict[str, dict[str, Any]]:
    """Name of the file -> its content, of every stage, training, tuning and notebook."""
    chosen = in_use(study)

    def stage(start: Code) -> dict[str, Any]:
        return {"parameters": values(study, parameters_read(start, chosen)), "code": fingerprint(start, chosen)}

    def of_model(name: str, block: Block, method: str) -> dict[str, Any]:
        start = entry(STAGES[name].module)
        return {
            "parameters": block.model_dump(mode="json"),
            "code": fingerprint(start, {**chosen, "METHODS": {method}}),
        }

    files = {name: stage(start_of(one)) for name, one in STAGES.items() if not one.item and name != "plan"}
    if study.benchmark_sets:
        files["sets"] = stage(entry(STAGES["sets"].module))
    for name in study.notebooks:
        cells, run = notebook_code(Path("notebooks") / f"{name}.ipynb"), entry(STAGES["notebook"].module)
        code = fingerprint(Code(cells.digest, [*run.names, *cells.names], set()), chosen)
        files[f"notebook-{name}"] = {"parameters": study.model_dump(mode="json", exclude={"jobs"}), "code": code}
    for name in (*study.models, *study.variants):
        one = training(study, name)
        files[name] = of_model("distill", one, one.model.method)
    for name in study.tuning.grid:
        short = trials(study, name)
        files[f"tune-{name}"] = of_model("tune", short, short.training.model.method)
    return files


def run(study: Study) -> None:
    """Write runs/<study>/plan/<name>.json."""
    check(study, "params.yaml")
    with atomic_folder(study.runs / "plan") as folder:
        for name, content in plans(study).items():
            (folder / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
