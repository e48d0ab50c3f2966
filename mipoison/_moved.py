"""Names of packages that are found when they are first used.

:func:`lazily` loads the modules behind a package's public names. :func:`redirect` keeps old module names
importable (an old name gives the new module's contents and a DeprecationWarning), and :func:`forward` the
names of a module that is a package now.
"""

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

    def __init__(self, new: str, renamed: Mapping[str, str]) -> None:
        self.new, self.renamed = new, renamed

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType | None:
        return None

    def exec_module(self, module: types.ModuleType) -> None:
        warnings.warn(f"{module.__name__} is now {self.new}", DeprecationWarning, stacklevel=2)
        found = vars(importlib.import_module(self.new))
        vars(module).update({name: value for name, value in found.items() if not name.startswith("__")})
        vars(module).update({old: found[new] for old, new in self.renamed.items()})


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the modules that have moved, when they are imported by their old names."""

    def __init__(self, moved: Mapping[str, str], renamed: Mapping[str, Mapping[str, str]]) -> None:
        self.moved, self.renamed = moved, renamed

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        new = self.moved.get(name)
        if new is None:
            return None
        return importlib.util.spec_from_loader(name, _Loader(new, self.renamed.get(name, {})))


def lazily(
    namespace: dict[str, Any], home: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """``__getattr__`` and ``__dir__`` of a package that loads each public name when it is first used.

    A module that defines one of the names and lies directly below the package is found as its attribute, too.

    Args:
        namespace: the package's ``globals()``, where names are kept once they are loaded.
        home: public name -> full name of the module that defines it.
    """
    package, modules = namespace["__name__"], set(home.values())

    def find(name: str) -> Any:
        if (module := f"{package}.{name}") in modules:
            return importlib.import_module(module)
        if name not in home:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = namespace[name] = getattr(importlib.import_module(home[name]), name)
        return value

    return find, lambda: sorted({*namespace, *namespace["__all__"]})


def redirect(moved: Mapping[str, str], renamed: Mapping[str, Mapping[str, str]] | None = None) -> None:
    """Make old module names importable.

    Args:
        moved: old full name -> new full name. An old name must not be the name of a present module.
        renamed: old full name of a module -> old name in it -> new name.
    """
    sys.meta_path.append(_Finder(moved, renamed or {}))


def forward(package: str, module: str, renamed: Mapping[str, str] | None = None) -> Callable[[str], Any]:
    """A ``__getattr__`` for a package that was a single module before version 0.1.0.

    It finds the names of the old module in the module that defines them now.

    Args:
        package: the package's name, for the error. module: full name of the module that has the names now.
        renamed: old name -> new name.
    """

    def find(name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        try:
            return getattr(importlib.import_module(module), (renamed or {}).get(name, name))
        except AttributeError:
            raise AttributeError(f"module {package!r} has no attribute {name!r}") from None

    return find
