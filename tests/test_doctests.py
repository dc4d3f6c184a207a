"""The examples in docstrings are run, and every public function of these rooms has one."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
from types import ModuleType

import pytest

ROOMS = ("lrfr.evaluate",)  # packages and modules


def modules() -> list[ModuleType]:
    rooms = [importlib.import_module(name) for name in ROOMS]
    inside = [
        importlib.import_module(f"{room.__name__}.{found.name}")
        for room in rooms
        for found in pkgutil.iter_modules(getattr(room, "__path__", []))
    ]
    return rooms + inside


@pytest.mark.parametrize("module", modules(), ids=lambda module: module.__name__)
def test_examples(module: ModuleType):
    assert doctest.testmod(module, report=True).failed == 0
    own = inspect.getmembers(module, lambda f: inspect.isfunction(f) and f.__module__ == module.__name__)
    public = [function for name, function in own if not name.startswith("_")]
    assert [f.__name__ for f in public if ">>> " not in (f.__doc__ or "")] == []
