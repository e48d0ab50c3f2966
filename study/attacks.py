"""List the registered attackers, or show one in full.

``python study/attacks.py`` prints a table; ``python study/attacks.py NAME`` all of one, with its source.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the imports, which take a while
    from study.runtime.signals import exit_on_signal

    exit_on_signal()

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro

from study.reports.listing import list_registered
from study.runtime.arguments import parse
from study.runtime.signals import as_command


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """The registered attackers: what it does, its options and what it costs."""

    name: Annotated[str | None, tyro.conf.Positional] = None
    """one attacker, in full; default: a table of all"""
    plugin: Annotated[tuple[str, ...], tyro.conf.arg(metavar="MODULE [MODULE ...]")] = ()
    """plug-ins to load first: modules, or names of installed ones. They run code"""


EXAMPLES = (
    "",
    "kernel",
)
"""Shown by ``--help``."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Print; returns the exit code, see :func:`study.reports.listing.list_registered`."""
    return list_registered("attacker", lambda: parse(Arguments, arguments, "attacks", examples=EXAMPLES))


if __name__ == "__main__":
    sys.exit(as_command(main))
