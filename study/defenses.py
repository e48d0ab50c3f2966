"""List the registered defenses, or show one in full.

``python study/defenses.py`` prints a table; ``python study/defenses.py NAME`` all of one, with its source.
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
from rich.console import Console

from mipoison.config import ConfigError, choose
from study.runtime.arguments import parse
from study.runtime.entry import DONE, USAGE
from study.runtime.plain import visible_line
from study.runtime.progress import loading
from study.runtime.signals import as_command, interruptible
from study.settings.registered import registered


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """The registered defenses: what each does, its knobs, whether it reads the image and keeps the label."""

    name: Annotated[str | None, tyro.conf.Positional] = None
    """one defense, in full; default: a table of all"""
    plugin: Annotated[tuple[str, ...], tyro.conf.arg(metavar="MODULE [MODULE ...]")] = ()
    """plug-ins to load first: modules, or names of installed ones. They run code"""


EXAMPLES = (
    "",
    "rounding",
)
"""Shown by ``--help``."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Print; returns 0, 2 for a name or plug-in that is not there, or 128 + the number of a signal."""
    with interruptible() as interrupts:
        try:
            return _show(arguments)
        except ConfigError as error:
            console = Console(stderr=True, highlight=False, soft_wrap=True)
            console.print(f"error: {visible_line(error)}", style="bold red", markup=False)
            return USAGE
        except KeyboardInterrupt:
            print(interrupts.reason, file=sys.stderr)
            return interrupts.exit_code


def _show(arguments: Sequence[str] | None) -> int:
    asked = parse(Arguments, arguments, "defenses", examples=EXAMPLES)
    console = Console(highlight=False)
    console.width = max(console.width, 110)  # in a narrower terminal lines wrap
    if asked.name is not None and not asked.plugin:
        choose("defense", asked.name, registered("mipoison.defenses", "DEFENSES"))  # without torch
    with loading(Console(stderr=True)):
        from mipoison.defenses import DEFENSES
        from mipoison.plugins import load_plugins
        from study.reports.registered_tables import defense_detail, defenses_table

        load_plugins(asked.plugin)
    if asked.name is None:
        console.print(defenses_table())
        return DONE
    choose("defense", asked.name, DEFENSES)
    console.print(defense_detail(asked.name))
    return DONE


if __name__ == "__main__":
    sys.exit(as_command(main))
