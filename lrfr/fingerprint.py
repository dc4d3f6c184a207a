"""Which code does a stage really use? A hash that an edited comment or docstring leaves alone.

A stage that trains for hours must not run again because a sentence was mended, and must run again when a constant was. So the
training stages depend not on files but on fingerprints: the source of the stage's module and of every `lrfr` module that it
imports, directly or not, parsed and printed again without docstrings (comments vanish by themselves). `lrfr.config` is left out,
since it only checks parameters, which DVC tracks by value. The registry `lrfr.methods` imports every method; of these only the
one that the stage trains is followed.
"""

from __future__ import annotations

import ast
import hashlib
import json
from functools import cache
from pathlib import Path

from lrfr.config import Study
from lrfr.errors import UserError
from lrfr.files import atomic_folder

ROOT = Path(__file__).parent
REGISTRY = "lrfr.methods"
IGNORED = {"lrfr", "lrfr.config", "lrfr.parameters", "lrfr.errors", "lrfr.progress"}  # these decide no number
DISTILL, TUNE, NOTEBOOK = "lrfr.train.distill", "lrfr.train.tuning", "lrfr.report.notebooks"
ENTRIES = {
    "detect": "lrfr.data.detect",
    "prepare": "lrfr.data.prepare",
    "teacher": "lrfr.train.teacher",
    "targets": "lrfr.train.targets",
    "rank": "lrfr.train.ranking",
    "embed": "lrfr.protocol.embed",
    "evaluate": "lrfr.protocol.study",
    "summary": "lrfr.report.tables",
    "sets": "lrfr.benchmarks.stage",
    "mirror": "lrfr.deploy.mirror",
    "export": "lrfr.deploy.export",
    "benchmark": "lrfr.deploy.cost",
    "status": "lrfr.report.status",
    "claims": "lrfr.report.claims",
    "site": "lrfr.report.site",
}


def source_file(module: str) -> Path | None:
    """The file of a module of this package; None if there is none (then the name is an attribute of its package)."""
    path = ROOT.joinpath(*module.split(".")[1:])
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


@cache
def parse(module: str) -> ast.Module:
    return ast.parse(source_file(module).read_text(encoding="utf-8"))


def imported(tree: ast.AST) -> set[str]:
    """Every `lrfr` module that some code names in an import, at its top or inside a function."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found if name.split(".")[0] == "lrfr" and source_file(name)}


def registry() -> dict[str, str]:
    """Method name -> module of its class, read from the one dict in `lrfr/methods/__init__.py`."""
    tree = parse(REGISTRY)
    module_of = {
        a.asname or a.name: node.module for node in tree.body if isinstance(node, ast.ImportFrom) for a in node.names
    }
    for node in tree.body:
        target = (
            node.target
            if isinstance(node, ast.AnnAssign)
            else node.targets[0]
            if isinstance(node, ast.Assign)
            else None
        )
        if isinstance(target, ast.Name) and target.id == "METHODS":
            return {
                key.value: module_of[value.id] for key, value in zip(node.value.keys, node.value.values, strict=True)
            }
    raise LookupError(f"{source_file(REGISTRY)} has no dict METHODS")


def notebook_imports(path: Path) -> set[str]:
    """Every `lrfr` module that a notebook's code cells import."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return imported(ast.parse("\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")))


def modules(entries: set[str], methods: set[str]) -> list[str]:
    """All modules behind `entries`, sorted; through the registry only those of `methods`."""
    for name in methods - registry().keys():
        raise UserError(f"params.yaml: there is no method '{name}'; known are {', '.join(registry())}.")
    followed = {registry()[name] for name in methods}
    skipped = set(registry().values()) - followed
    seen, waiting = set(), sorted(entries)
    while waiting:
        module = waiting.pop()
        if module in seen or module in IGNORED:
            continue
        seen.add(module)
        found = imported(parse(module))
        waiting += found - skipped if module == REGISTRY else found
    return sorted(seen)


@cache
def normalised(module: str) -> str:
    """A module's code without docstrings and comments; the registry's is its dict alone, which names no number."""
    if module == REGISTRY:
        return ""
    tree = ast.parse(source_file(module).read_text(encoding="utf-8"))  # not `parse`: its trees stay as they are
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            and ast.get_docstring(node, clean=False) is not None
        ):
            node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree)


def fingerprint(entries: set[str], methods: set[str]) -> str:
    """One line a module: its hash and its name, so that a diff tells what changed."""
    return "".join(
        f"{hashlib.sha256(normalised(m).encode()).hexdigest()[:16]} {m}\n" for m in modules(entries, methods)
    )


def run(study: Study) -> None:
    """The `fingerprint` stage: one file a stage, one a trained model, one a notebook."""
    everything = set(registry())
    files = {stage: fingerprint({entry}, everything) for stage, entry in ENTRIES.items()}
    files |= {f"distill-{name}": fingerprint({DISTILL}, {model.method}) for name, model in study.models.items()}
    for name in (
        *study.run_arms,
        *study.run_seeds,
    ):  # a model's block is a parameter of its stage, theirs comes from elsewhere
        model = study.for_training(name).models[name]
        files[f"distill-{name}"] = fingerprint({DISTILL}, {model.method}) + model.model_dump_json() + "\n"
    for name, grid in study.tuning.grid.items():
        model = study.models[name]
        # the value that tuning has chosen stands among the options: it is left out, or every choice would ask for another trial
        block = model.model_dump(mode="json", exclude={"recipe"})
        block["options"] = {option: value for option, value in model.options.items() if option != grid.option}
        if recipe := {key: value for key, value in (model.recipe or {}).items() if f"train.{key}" != grid.option}:
            block["recipe"] = recipe
        files[f"tune-{name}"] = fingerprint({TUNE}, {model.method}) + json.dumps(block, sort_keys=True) + "\n"
    for name in study.notebooks:
        path = Path("notebooks") / f"{name}.ipynb"
        if not path.is_file():
            raise UserError(
                f"{path.as_posix()}: no such notebook; correct result_notebooks or cost_notebooks in params.yaml."
            )
        files[f"notebook-{name}"] = fingerprint({NOTEBOOK} | notebook_imports(path), everything)
    with atomic_folder(study.runs / "code") as folder:
        for name, text in files.items():
            (folder / f"{name}.txt").write_text(text, encoding="utf-8")
