"""Folders that one test process makes for all of them: trained parts, small studies, a run of an example."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock


class Once:
    """``Once(factory)(name, make)``: this process's copy of the folder that ``make(folder)`` filled.

    pytest-xdist runs the files in several processes, each with its own session. The first one that asks for a
    name makes the folder while the others wait; each of them then works on a copy. What ``make`` raises is
    raised in every process that asks.
    """

    def __init__(self, factory: pytest.TempPathFactory) -> None:
        self.factory = factory
        base = factory.getbasetemp()
        self.base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base  # that of the whole run

    def __call__(self, name: str, make: Callable[[Path], object]) -> Path:
        place, done = self.base / f"once-{name}", self.base / f"once-{name}.done"
        with FileLock(self.base / f"once-{name}.lock"):
            if not done.exists():
                shutil.rmtree(place, ignore_errors=True)
                place.mkdir()
                make(place)
                done.touch()
        return Path(shutil.copytree(place, self.factory.mktemp(name) / name, symlinks=True))
