"""The console command ``mipoison``, with one sub-command for each entry script.

A script is imported only when its sub-command is called, so that ``mipoison --help`` and a misspelt
sub-command answer at once.
"""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Sequence

from mipoison import __version__
from study.runtime.entry import DONE, USAGE, until_closed

COMMANDS = {
    "pareto": "search the defenses' settings against adaptive attackers, print what to deploy",
    "report": "write one self-contained HTML page of a study",
    "render": "write a study's tables and figures again from its records; --compact makes a copy to publish",
    "evaluate": "run a recorded setting again, or another setting on the same scenes",
    "board": "of several studies, the best known setting of each defense and its verdict",
    "protect": "make a protection unit of a study's setting, to be served",
    "defenses": "list the defenses with their knobs, or show one in full",
    "attacks": "list the attackers with their cost, or show one in full",
    "check": "check a defense or an attacker of your own against the contract that all keep",
    "reproduce": "run the paper's tables and figures beside ours",
    "audit": "attack a deployed API over HTTP, say what leaks and which defense it looks like",
    "serve": "serve a protected classifier over HTTP",
    "benchmark": "measure speed and memory on the device at hand",
    "scaling": "measure how trials scale over simulated nodes",
    "costs": "measure what reading and resuming large studies costs",
}
"""Sub-command -> description. Each one is ``study/<name>.py``; its ``main`` returns the exit code."""


def usage() -> str:
    """The text of ``mipoison --help``."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {what}" for name, what in COMMANDS.items()]
    return "\n".join(
        [
            "usage: mipoison COMMAND [OPTIONS]",
            "",
            "Which defense of a classifier's confidence vectors protects its training images, at what cost?",
            "",
            *lines,
            "",
            "mipoison COMMAND --help explains a command; mipoison --version tells the version.",
        ]
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a sub-command.

    Args:
        arguments: the sub-command and its options; default: the command line's.

    Returns:
        The sub-command's exit code; 0 for ``--help`` and ``--version``; 2 for an unknown sub-command.
    """
    return until_closed(lambda: _main(list(sys.argv[1:] if arguments is None else arguments)))


def _main(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help"):
        print(usage())
        return DONE if words else USAGE
    name, rest = words[0], words[1:]
    if name == "--version":
        print(f"mipoison {__version__}")
        return DONE
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        print(
            f"error: unknown command {name!r}{hint}; choose from: {', '.join(sorted(COMMANDS))}",
            file=sys.stderr,
        )
        return USAGE
    return int(importlib.import_module(f"..{name}", __package__).main(rest))


if __name__ == "__main__":
    sys.exit(main())
