"""What entry scripts share: exit codes, and the names by which ``--help`` and hints call them."""

from __future__ import annotations

import sys
from pathlib import PurePath

DONE, FAILED, USAGE = 0, 1, 2
"""Exit codes: success; the work failed; invalid input, found before any work. A signal: 128 + its number."""
RESUME_HINT = "finished episodes are kept. Continue with the same settings and --resume"
"""What an interrupted study says."""


def _installed() -> bool:
    """Whether this process runs the console command ``mipoison`` rather than a script of the checkout."""
    return PurePath(sys.argv[0]).stem == "mipoison"


def program(name: str) -> str:
    """The name of an entry script as its ``--help`` shows it: ``mipoison pareto``, or ``study/pareto.py``."""
    return f"mipoison {name}" if _installed() else f"study/{name}.py"


def command(name: str) -> str:
    """The command line that runs an entry script: ``mipoison report``, or ``python study/report.py``."""
    return f"mipoison {name}" if _installed() else f"python study/{name}.py"
