"""Which code does a stage really use? A hash that moved files, comments, docstrings and annotations leave alone.

A stage that trains for hours must not run again because a sentence was mended or a function moved to another file, and
must run again when a constant was changed. So what is hashed is neither files nor modules but definitions: from the
stage's entry every function, class and constant of `lrfr` is followed that its code names, wherever it stands. Of the
registries (METHODS, SOURCES, TEACHERS) only the entries that are in use are followed. `lrfr.config` says only what a
parameter may be, so it is left out: values are compared as values (`lrfr.plan`).

This file needs nothing but Python itself, and prints trees in its own way: `ast.unparse` and `ast.dump` differ between
versions.
"""

import ast
import hashlib
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent
SKIPPED = {"lrfr.config", "lrfr.errors", "lrfr.progress", "lrfr"}  # they decide no number
REGISTRIES = {"METHODS", "SOURCES", "TEACHERS"}
NOT_HASHED = {"annotation", "returns", "type_comment", "type_params", "ctx", "kind"}  # fields of nodes
Chosen = Mapping[str, set[str]]  # registry -> keys in use; of a registry that is not named, all
BLOCKS = ast.Module | ast.ClassDef | ast.FunctionDef
IMPORTS = ast.Import | ast.ImportFrom


class Name(NamedTuple):
    """A definition: `name` at the top of `module`; with an empty name, the module itself."""

    module: str
    name: str


def source_file(module: str) -> Path | None:
    """The file of a module of this package; None if there is none (then the name is an attribute of its package)."""
    path = ROOT.joinpath(*module.split(".")[1:])
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


@cache
def parse(module: str) -> ast.Module:
    return ast.parse(source_file(module).read_text(encoding="utf-8"))


def imports(nodes: list[ast.stmt]) -> dict[str, Name]:
    """What `import` statements of this package bind: local name -> definition or module."""
    bound = {}
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "lrfr":
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                place = Name(inner, "") if source_file(inner) else Name(node.module, alias.name)
                bound[alias.asname or alias.name] = place
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "lrfr":
                    bound[alias.asname or "lrfr"] = Name(alias.name if alias.asname else "lrfr", "")
    return bound


def targets(node: ast.stmt) -> list[str]:
    """Names that a statement at the top of a module binds, imports apart."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    places = getattr(node, "targets", [getattr(node, "target", node)])
    return [
        n.id for place in places for n in ast.walk(place) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
    ]


@cache
def definitions(module: str) -> dict[str, list[ast.stmt]]:
    """Name -> the statements at the top of a module that define it; under "" those that only do something."""
    found: dict[str, list[ast.stmt]] = {}
    for node in parse(module).body:
        docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        typing = isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for name in targets(node) or ([] if docstring or typing or isinstance(node, IMPORTS) else [""]):
            found.setdefault(name, []).append(node)
    return found


@cache
def resolve(module: str, name: str) -> Name | None:
    """The definition behind a name of a module, through imports; None for what is not of this package."""
    if name in definitions(module):
        return Name(module, name)
    bound = imports(parse(module).body).get(name)
    if bound is not None and bound.name:
        return resolve(*bound)
    return bound or (Name(f"{module}.{name}", "") if source_file(f"{module}.{name}") else None)


def chain(node: ast.Attribute) -> list[str]:
    """`a.b.c` -> ["a", "b", "c"]; empty if it does not start with a name."""
    parts, inner = [node.attr], node.value
    while isinstance(inner, ast.Attribute):
        parts, inner = [inner.attr, *parts], inner.value
    return [inner.id, *parts] if isinstance(inner, ast.Name) else []


def walk(node: ast.AST) -> Iterator[ast.AST]:
    """A node and all below it, without annotations."""
    yield node
    for field in node._fields:
        value = getattr(node, field, None) if field not in NOT_HASHED else None
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from walk(child)


def references(module: str, node: ast.AST) -> list[Name]:
    """Definitions of this package that some code names, in order."""
    nodes = list(walk(node))
    local = imports([n for n in nodes if isinstance(n, IMPORTS)])
    # in a function, a name that it binds itself is its own; at the top of a module or in a class it is the definition
    own = set()
    if isinstance(node, ast.FunctionDef):
        own |= {n.arg for n in nodes if isinstance(n, ast.arg)}
        own |= {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}

    def lookup(name: str) -> Name | None:
        if name in local:
            return resolve(*local[name]) if local[name].name else local[name]
        return None if name in own else resolve(module, name)

    found = []
    for n in nodes:
        if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load):
            place, rest = lookup(n.id), []
        elif isinstance(n, ast.Attribute) and (parts := chain(n)):
            place, rest = lookup(parts[0]), parts[1:]
            rest = rest if place is not None and not place.name else []  # only a module's attributes are definitions
        else:
            continue
        while place is not None and not place.name and rest:
            place, rest = resolve(place.module, rest[0]), rest[1:]
        if place is not None and place.name and place.module not in SKIPPED:
            found.append(place)
    return found


def entries(name: Name, chosen: Chosen) -> list[ast.AST]:
    """The code of a definition; of a registry, the chosen entries of its dict (LookupError if it is not one)."""
    nodes = definitions(name.module)[name.name]
    if name.name not in REGISTRIES or name.name not in chosen:
        return nodes
    table = nodes[0].value
    if not isinstance(table, ast.Dict) or not all(isinstance(key, ast.Constant) for key in table.keys):
        raise LookupError(f"{name.module}.{name.name} is not one dict with plain keys")
    pairs = zip(table.keys, table.values, strict=True)
    return [node for key, value in pairs if key.value in chosen[name.name] for node in (key, value)]


def text(node: object) -> str:
    """A tree without docstrings, annotations, imports and places, the same in every version of Python."""
    if isinstance(node, list):
        return "[" + ",".join(text(item) for item in node if not isinstance(item, IMPORTS)) + "]"
    if not isinstance(node, ast.AST):
        return repr(node)
    if isinstance(node, ast.AnnAssign) and node.value is not None:
        node = ast.Assign(targets=[node.target], value=node.value)
    fields = {field: getattr(node, field, None) for field in node._fields if field not in NOT_HASHED}
    if isinstance(node, BLOCKS) and ast.get_docstring(node, clean=False) is not None:
        fields["body"] = node.body[1:]
    shown = ",".join(f"{field}={text(value)}" for field, value in fields.items() if value is not None and value != [])
    return f"{type(node).__name__}({shown})"


def digest(string: str) -> str:
    return hashlib.sha256(string.encode()).hexdigest()[:16]


def read_paths(nodes: list[ast.AST]) -> set[tuple[str, ...]]:
    """Every `study.a.b` in some code -> ("a", "b"). By convention a study is called `study` wherever it is."""
    attributes = [n for node in nodes for n in walk(node) if isinstance(n, ast.Attribute)]
    inner = {id(n.value) for n in attributes}  # `study.a` of `study.a.b`
    chains = [chain(n) for n in attributes if id(n) not in inner]
    return {tuple(parts[1:]) for parts in chains if parts and parts[0] == "study"}


class Code(NamedTuple):
    """Of a definition: the hash of its code, the definitions that it names, the parameters that it reads."""

    digest: str
    names: list[Name]
    paths: set[tuple[str, ...]]


def code_of(module: str, nodes: list[ast.AST]) -> Code:
    names = [name for node in nodes for name in references(module, node)]
    if "" in definitions(module):  # what the module does when it is imported
        names.append(Name(module, ""))
    return Code(digest(text(nodes)), names, read_paths(nodes))


@cache
def whole(name: Name) -> Code:
    return code_of(name.module, entries(name, {}))


def reached(start: Code, chosen: Chosen) -> dict[Name, Code]:
    """Every definition behind some code."""
    found: dict[Name, Code] = {}
    waiting = list(start.names)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found[name] = code_of(name.module, entries(name, chosen)) if name.name in chosen else whole(name)
            waiting += found[name].names
    return found


def fingerprint(start: Code, chosen: Chosen) -> list[str]:
    """One line a definition, sorted: hash and name. The hash covers its code and that of the definitions it names
    directly, so that naming another function of the same name is a change."""
    code = reached(start, chosen)
    hashes = {name: digest(one.digest + " ".join(code[n].digest for n in one.names)) for name, one in code.items()}
    return sorted(f"{own} {name.name}" for name, own in hashes.items())


def parameters_read(start: Code, chosen: Chosen) -> set[tuple[str, ...]]:
    """Which parameters some code reads, in all that it reaches."""
    return start.paths.union(*(one.paths for one in reached(start, chosen).values()))


def entry(module: str) -> Code:
    """The start of a stage: its function `run`."""
    return Code("", [Name(module, "run")], set())
