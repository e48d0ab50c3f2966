"""Keeps old module names importable: an old name gives the new module's contents and a DeprecationWarning."""

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
    """Fills a module of the old name with the contents of the new one."""

    def __init__(self, new: str) -> None:
        self.new = new

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType | None:
        return None

    def exec_module(self, module: types.ModuleType) -> None:
        warnings.warn(f"{module.__name__} is now {self.new}", DeprecationWarning, stacklevel=2)
        found = vars(importlib.import_module(self.new))
        vars(module).update({name: value for name, value in found.items() if not name.startswith("__")})


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the modules that have moved, when they are imported by their old names."""

    def __init__(self, moved: Mapping[str, str]) -> None:
        self.moved = moved

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        new = self.moved.get(name)
        return None if new is None else importlib.util.spec_from_loader(name, _Loader(new))


def redirect(moved: Mapping[str, str]) -> None:
    """Make old module names importable.

    Args:
        moved: old full name -> new full name. An old name must not be the name of a present module.
    """
    sys.meta_path.append(_Finder(moved))


def forward(package: str, module: str) -> Callable[[str], Any]:
    """A ``__getattr__`` for a package that was a single module in version 0.1.

    It finds the names of the old module in the module that defines them now.

    Args:
        package: the package's name, for the error. module: full name of the module that has the names now.
    """

    def find(name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        try:
            return getattr(importlib.import_module(module), name)
        except AttributeError:
            raise AttributeError(f"module {package!r} has no attribute {name!r}") from None

    return find
