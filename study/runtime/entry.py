"""What entry scripts share: exit codes, and the names by which ``--help`` and hints call them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import PurePath
from typing import TypeVar

T = TypeVar("T")

DONE, FAILED, USAGE = 0, 1, 2
"""Exit codes: success; the work failed; invalid input, found before any work. A signal: 128 + its number."""
RESUME_HINT = "finished episodes are kept. Continue with --resume"
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


def until_closed(run: Callable[[], T]) -> T:
    """Run; if nobody reads the output any more (``| head``), end without a trace.

    Raises:
        SystemExit: what ``run`` raised; or 141, as shells report SIGPIPE, if the output was closed.
    """
    try:
        try:
            result = run()
        except SystemExit:
            sys.stdout.flush()
            raise
        sys.stdout.flush()
        return result
    except BrokenPipeError:
        # What is still to be printed goes nowhere, so that Python does not complain as it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(141) from None
