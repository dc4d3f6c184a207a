"""The walls of the house: who may import whom, in which order, and how large each room may be."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted((ROOT / "lrfr").rglob("*.py"))

# The floor, which everything stands on. `gate` belongs to it: weights and photographs are bytes that nobody has
# checked, and the core reads both.
FLOOR = ("errors", "progress", "parallel", "files", "formats", "streams", "config", "gate")
CORE = ("data", "models", "methods", "evaluate", "train")
WINGS = ("sources", "benchmarks", "deploy", "report")
ROOMS = {  # room -> rooms that it may import beside the floor
    "gate": (),
    "data": (),
    "models": ("data",),  # a network says how it sees a face
    "methods": ("models",),
    "evaluate": (),
    "train": ("data", "models", "methods", "evaluate"),
    "protocol": CORE,
    "sources": CORE,
    # a user's set has a place, as a source has; what is scored is a student in use, with its detector and its card
    "benchmarks": (*CORE, "protocol", "sources", "deploy"),
    "deploy": (*CORE, "protocol", "sources"),
    "report": (*CORE, "protocol"),
}
OFFICE = {"", "__main__", "cli", "stages", "plan", "fingerprint", "studies", "repro", "doctor"}  # on top


def imported(path: Path) -> set[str]:
    """Modules that a file imports anywhere, also inside functions."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path.name}: a relative import"
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def room(module: str) -> str:
    """'lrfr.data.align' -> 'data'; 'lrfr.files' -> 'files'; 'lrfr' -> ''."""
    return (module.split(".") + [""])[1]


def neighbours(path: Path) -> set[str]:
    """Other rooms that a file imports from."""
    exist = {room(module_of(source)) for source in SOURCES}
    return {room(name) for name in imported(path) if name.startswith("lrfr.")} & exist - {room(module_of(path))}


def test_every_room_is_known():
    assert {room(module_of(path)) for path in SOURCES} == {*FLOOR, *ROOMS, *OFFICE}


@pytest.mark.parametrize("name", [name for name in (*FLOOR, *ROOMS) if name in ROOMS or name in FLOOR])
def test_a_room_imports_what_stands_below_it(name: str):
    below = {*FLOOR, *ROOMS.get(name, ())} if name in ROOMS else set(FLOOR) - {"gate"}
    for path in SOURCES:
        if room(module_of(path)) == name:
            assert neighbours(path) - {""} <= below, module_of(path)


def test_the_core_imports_no_wing_and_wings_stay_apart():
    """What the table above says, in words of its own."""
    for path in SOURCES:
        own, used = room(module_of(path)), neighbours(path)
        assert own not in CORE or not used & {*WINGS, "protocol", *OFFICE} - {""}, module_of(path)
        assert own != "deploy" or "report" not in used, module_of(path)
        assert own != "report" or "deploy" not in used, module_of(path)
        assert own not in (*CORE, *WINGS, "protocol") or not used & OFFICE - {""}, module_of(path)


def graph() -> dict[str, set[str]]:
    modules = {module_of(path): path for path in SOURCES}
    return {name: {other for other in imported(path) if other in modules} - {name} for name, path in modules.items()}


def test_there_is_no_circle():
    """Neither between modules nor between rooms."""
    modules = graph()
    rooms: dict[str, set[str]] = {}
    for name, others in modules.items():
        rooms.setdefault(room(name), set()).update(room(other) for other in others)
    for edges in (modules, {name: others - {name} for name, others in rooms.items()}):
        waiting = {name: set(others) - {"lrfr", ""} for name, others in edges.items()}
        while free := {name for name, others in waiting.items() if not others & waiting.keys()}:
            waiting = {name: others for name, others in waiting.items() if name not in free}
        assert not waiting, f"a circle among {sorted(waiting)}"


def lines(*rooms: str) -> int:
    chosen = [path for path in SOURCES if not rooms or room(module_of(path)) in rooms]
    return sum(len(path.read_text(encoding="utf-8").splitlines()) for path in chosen)


def test_the_library_is_small():
    """A reader walks the core in an afternoon. Lines are of 120 columns, which ruff holds."""
    assert lines(*CORE) <= 5050
    assert lines() <= 13400
