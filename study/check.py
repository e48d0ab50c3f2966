"""Check a defense or an attacker of your own against the contract that all of mipoison's keep.

``python study/check.py my_package:MyConfig`` tries a configuration on a small scene of digits and says what
it breaks; of a plug-in's module it checks everything that the module brings.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the imports, which take a while
    from study.runtime.signals import exit_on_signal

    exit_on_signal()

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from rich.console import Console

from mipoison.config import ConfigError, kind_of, one_line
from study.runtime.arguments import parse
from study.runtime.entry import DONE, FAILED, USAGE
from study.runtime.plain import visible_line
from study.runtime.progress import Progress, loading
from study.runtime.scratch import scratch_folder, temporary_run_folder
from study.runtime.signals import Interrupts, as_command, interruptible

if TYPE_CHECKING:
    from mipoison.contract import Result


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Run the contract tests of a defense or an attacker, about a minute each.

    What it is, its configuration tells: make() returns an object with protect (a defense) or with reconstruct
    (an attacker). Exit code 0: every promise is kept. 1: something is broken. 2: it cannot be imported.
    """

    source: Annotated[str, tyro.conf.Positional]
    """module:Config, a configuration class (or an attacker's configuration); or a plug-in's module"""
    draws_nothing: bool = False
    """of an attacker: it answers the same for every seed, and one image is enough for it"""


EXAMPLES = (
    "my_package:MyConfig",
    "my_package",
)
"""Shown by ``--help``."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Check; returns the exit code, see :class:`Arguments`, or 128 + the number of a signal."""
    with interruptible() as interrupts:
        return _main(arguments, interrupts)


def _main(arguments: Sequence[str] | None, interrupts: Interrupts) -> int:
    asked = parse(Arguments, arguments, "check", examples=EXAMPLES)
    console = Console(highlight=False, soft_wrap=True)
    errors = Console(stderr=True, highlight=False, soft_wrap=True)
    try:
        with loading(errors):
            from mipoison.contract.cases import small_scene_config
            from mipoison.scene import prepare

        with temporary_run_folder(), scratch_folder("check") as root, Progress(errors) as progress:
            found = named(asked.source)
            progress.brief("a small scene", 0, 1)
            scene = prepare(small_scene_config(), root)
            broken = 0
            for i, (name, config) in enumerate(found.items()):
                progress.brief(f"checking {name}", i, len(found))
                results = check(name, config, scene, draws_nothing=asked.draws_nothing)
                broken += show(name, results, console)
        return FAILED if broken else DONE
    except ConfigError as error:
        errors.print(f"error: {visible_line(error)}", style="bold red", markup=False)
        return USAGE
    except KeyboardInterrupt:
        errors.print(f"{interrupts.reason}; nothing is kept", markup=False)
        return interrupts.exit_code


def named(source: str) -> dict[str, Any]:
    """What is to be checked: name -> configuration class or configuration.

    Raises:
        ConfigError: it cannot be imported, or is no configuration.
    """
    from mipoison.config import Config
    from mipoison.plugins import load_plugin
    from mipoison.process import import_here

    module, colon, attribute = source.partition(":")
    if not colon:
        plugin = load_plugin(module)
        return {**plugin.defenses, **plugin.attacks}
    found: Any = import_here(module, f"module {module!r}")
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise ConfigError(f"{source!r}: {module} has no {attribute!r}")
        found = getattr(found, part)
    kind = found if isinstance(found, type) else type(found)
    if not issubclass(kind, Config):
        raise ConfigError(f"{source!r} is {kind_of(found)}: expected a subclass of mipoison.config.Config")
    return {attribute: found}


def check(name: str, config: Any, scene: Any, *, draws_nothing: bool) -> list[Result]:
    """Run the contract of a defense or of an attacker, whichever the configuration makes.

    Raises:
        ConfigError: it makes neither, or cannot be made at its defaults.
    """
    from mipoison.contract import ATTACKER_CHECKS, DEFENSE_CHECKS, AttackerCase, DefenseCase, run_checks

    try:
        settings = config() if isinstance(config, type) else config
        made = settings.make()
    except Exception as error:
        raise ConfigError(f"{name} cannot be made at its defaults: {one_line(error)}") from error
    if hasattr(made, "protect"):
        return run_checks(DefenseCase(name, type(settings), scene), DEFENSE_CHECKS)
    if hasattr(made, "reconstruct"):
        case = AttackerCase(name, settings, scene, draws_nothing=draws_nothing)
        return run_checks(case, ATTACKER_CHECKS)
    raise ConfigError(f"{name} makes {kind_of(made)}, which has neither protect nor reconstruct")


def show(name: str, results: list[Result], console: Console) -> int:
    """Print one line per promise; returns how many are broken."""
    broken = [result for result in results if result.broken is not None]
    console.print(f"{name}: {len(results) - len(broken)} of {len(results)} promises kept", markup=False)
    for result in results:
        console.print(f"  {'kept  ' if result.broken is None else 'BROKEN'}  {result.promise}", markup=False)
        if result.broken is not None:
            console.print(f"          {result.name}: {visible_line(result.broken)}", markup=False)
    return len(broken)


if __name__ == "__main__":
    sys.exit(as_command(main))
