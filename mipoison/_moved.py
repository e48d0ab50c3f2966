"""Module names of version 0.1 still import: each gives the present names, with a DeprecationWarning."""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import types
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any


class _Loader(importlib.abc.Loader):
    """Fills an old module with the names of the one that took its place."""

    def __init__(self, new: str) -> None:
        self.new = new

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType | None:
        return None

    def exec_module(self, module: types.ModuleType) -> None:
        warnings.warn(f"{module.__name__} is now {self.new}", DeprecationWarning, stacklevel=2)
        found = vars(importlib.import_module(self.new))
        vars(module).update({name: value for name, value in found.items() if not name.startswith("__")})


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the modules of one package that have moved."""

    def __init__(self, moved: Mapping[str, str]) -> None:
        self.moved = moved

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        new = self.moved.get(name)
        return None if new is None else importlib.util.spec_from_loader(name, _Loader(new))


def redirect(moved: Mapping[str, str]) -> None:
    """Let old module names of a package import.

    Args:
        moved: old full name -> new full name. A name that is a module today must not be among them.
    """
    sys.meta_path.append(_Finder(moved))


def forward(package: str, module: str) -> Callable[[str], Any]:
    """A package's ``__getattr__`` that finds the names of the module which it was in version 0.1.

    Args:
        package: its name, for the error. module: full name of the module that has the names now.
    """

    def find(name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        try:
            return getattr(importlib.import_module(module), name)
        except AttributeError:
            raise AttributeError(f"module {package!r} has no attribute {name!r}") from None

    return find
