"""What ``mipoison defenses`` and ``mipoison attacks`` do: a table of a registry, or one entry in full."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Literal, Protocol

from rich.console import Console

from mipoison.config import ConfigError, choose
from study.runtime.entry import DONE, USAGE
from study.runtime.plain import visible_line
from study.runtime.progress import loading
from study.runtime.signals import interruptible
from study.settings.registered import registered

Kind = Literal["defense", "attacker"]
REGISTRIES: dict[Kind, tuple[str, str]] = {
    "defense": ("mipoison.defenses", "DEFENSES"),
    "attacker": ("mipoison.attacks", "ATTACKS"),
}
"""Kind -> module and name of its registry."""


class Asked(Protocol):
    """The arguments of both commands: an entry to show (None: a table of all), plug-ins to load first."""

    @property
    def name(self) -> str | None: ...

    @property
    def plugin(self) -> tuple[str, ...]: ...


def list_registered(kind: Kind, ask: Callable[[], Asked]) -> int:
    """Print; returns 0, 2 for a name or plug-in that is not there, or 128 + the number of a signal.

    Args:
        ask: parses the command line.
    """
    with interruptible() as interrupts:
        try:
            _show(kind, ask())
        except ConfigError as error:
            console = Console(stderr=True, highlight=False, soft_wrap=True)
            console.print(f"error: {visible_line(error)}", style="bold red", markup=False)
            return USAGE
        except KeyboardInterrupt:
            print(interrupts.reason, file=sys.stderr)
            return interrupts.exit_code
    return DONE


def _show(kind: Kind, asked: Asked) -> None:
    console = Console(highlight=False)
    console.width = max(console.width, 110)  # in a narrower terminal lines wrap
    if asked.name is not None and not asked.plugin:
        choose(kind, asked.name, registered(*REGISTRIES[kind]))  # without torch
    with loading(Console(stderr=True)):
        from mipoison.plugins import load_plugins
        from study.reports import registered_tables as tables

        load_plugins(asked.plugin)
    table, detail = {
        "defense": (tables.defenses_table, tables.defense_detail),
        "attacker": (tables.attackers_table, tables.attacker_detail),
    }[kind]
    if asked.name is None:
        console.print(table())
        return
    choose(kind, asked.name, registered(*REGISTRIES[kind]))
    console.print(detail(asked.name))
