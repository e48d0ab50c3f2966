"""The names in the library's registries, as ``--help`` lists them and as the settings are checked against.

A registry imports what it registers, and that imports torch, which takes seconds. Until somebody has imported
it, its names are therefore read from its source file: they are the keys of the dictionary that is assigned
there. Nothing has to be listed a second time.
"""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.util
import sys
from importlib.abc import InspectLoader

PASSIVE = "passive"
"""``mipoison.attacks.PASSIVE``."""
LABEL_ATTACKER = "class-mean"
"""``mipoison.attacks.LABEL_ATTACKER``."""
ANCHORS = ("label-only", "none")
"""``mipoison.defenses.ANCHORS``."""


def attackers() -> tuple[str, ...]:
    """The names of all attackers."""
    return registered("mipoison.attacks", "ATTACKS")


def families() -> tuple[str, ...]:
    """The defense families that can be searched: all but the anchors, which every study evaluates."""
    return tuple(name for name in registered("mipoison.defenses", "DEFENSES") if name not in ANCHORS)


def registered(module: str, registry: str) -> tuple[str, ...]:
    """The names in a registry, in its order.

    Args:
        module: full name of the module that defines it. registry: the name of the dictionary there.
    """
    loaded = getattr(sys.modules.get(module), registry, None)
    if loaded is not None:
        return tuple(loaded)
    written = _written(module, registry)
    return tuple(getattr(importlib.import_module(module), registry)) if written is None else written


@functools.cache
def _written(module: str, registry: str) -> tuple[str, ...] | None:
    """The keys of a dictionary in a module's source; None without a source, or if a key is computed."""
    spec = importlib.util.find_spec(module)
    source = spec.loader.get_source(module) if spec and isinstance(spec.loader, InspectLoader) else None
    for node in reversed(ast.parse(source or "").body):
        value = node.value if isinstance(node, ast.AnnAssign | ast.Assign) else None
        targets = [node.target] if isinstance(node, ast.AnnAssign) else getattr(node, "targets", [])
        if isinstance(value, ast.Dict) and [getattr(t, "id", "") for t in targets] == [registry]:
            keys = [key.value for key in value.keys if isinstance(key, ast.Constant)]
            return tuple(map(str, keys)) if len(keys) == len(value.keys) else None
    return None
