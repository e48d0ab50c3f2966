"""Defenses and attackers of other packages: loading them, and reading records of them without their code."""

from mipoison.plugins.declared import is_stand_in
from mipoison.plugins.loading import (
    Plugin,
    declared_plugins,
    installed,
    load_named,
    load_plugin,
    load_plugins,
    missing_plugins,
    register_stand_ins,
    source_of,
)

__all__ = [
    "Plugin",
    "declared_plugins",
    "installed",
    "is_stand_in",
    "load_named",
    "load_plugin",
    "load_plugins",
    "missing_plugins",
    "register_stand_ins",
    "source_of",
]
