"""The executor that the settings name; Ray is loaded for its own executor alone."""

from __future__ import annotations

import io
import subprocess
import sys

from rich.console import Console

from study.executors.local import LocalExecutor
from study.executors.starting import make_executor
from study.settings.display import Display
from study.settings.resources import Resources


def test_the_local_executor_is_started_silently() -> None:
    out = io.StringIO()
    executor = make_executor(Resources(executor="local"), Display(), Console(file=out))
    assert isinstance(executor, LocalExecutor)
    assert out.getvalue() == ""


def test_ray_is_not_imported_before_its_environment_is_set() -> None:
    code = "import sys, study.executors.starting; print('ray' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout == "False\n"
