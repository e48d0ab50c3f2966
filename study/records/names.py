"""Names of studies and trials, which become folders and files."""

from __future__ import annotations

import re

from mipoison.config import ConfigError


def check_name(name: str, what: str = "study") -> str:
    """Return a name that can be a folder (letters, digits, dot, dash, underscore), else raise ConfigError."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
        raise ConfigError(
            f"{what} name {name!r}: "
            "use 1 to 100 letters, digits, '.', '-' or '_', beginning with one of the first two"
        )
    return name
