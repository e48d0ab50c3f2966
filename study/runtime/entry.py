"""How an entry script was called: its name in ``--help`` and in hints, and the exit codes that all share."""

from __future__ import annotations

import sys
from pathlib import PurePath

DONE, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130
"""Exit codes: done; the work failed; bad input, before any work; interrupted by Ctrl-C."""


def _installed() -> bool:
    """Whether this process is the console command ``mipoison`` (not a script of the checkout)."""
    return PurePath(sys.argv[0]).stem == "mipoison"


def program(name: str) -> str:
    """The name of an entry script as its ``--help`` shows it: ``mipoison pareto``, or ``study/pareto.py``."""
    return f"mipoison {name}" if _installed() else f"study/{name}.py"


def command(name: str) -> str:
    """What a person types to run an entry script: ``mipoison report``, or ``python study/report.py``."""
    return f"mipoison {name}" if _installed() else f"python study/{name}.py"
