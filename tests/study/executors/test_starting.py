"""The executor that the settings name; Ray is loaded for its own executor alone."""

from __future__ import annotations

import io
import subprocess
import sys

import pytest
from rich.console import Console

from mipoison.config import ConfigError
from study.executors.local import LocalExecutor
from study.executors.starting import check_gpus_here, make_executor
from study.settings.display import Display
from study.settings.resources import Resources


def test_the_local_executor_is_started_silently() -> None:
    out = io.StringIO()
    executor = make_executor(Resources(executor="local"), Display(), Console(file=out))
    assert isinstance(executor, LocalExecutor)
    assert out.getvalue() == ""


def test_gpus_that_are_not_here_are_refused_before_ray_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    check_gpus_here(Resources())
    check_gpus_here(Resources(workers=2, gpus_per_worker=0.5))
    with pytest.raises(
        ConfigError, match=r"more than this machine has .*1\.5 GPUs needed, 1 there.*--address"
    ):
        check_gpus_here(Resources(workers=3, gpus_per_worker=0.5))


def test_ray_is_not_imported_before_its_environment_is_set() -> None:
    code = "import sys, study.executors.starting; print('ray' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout == "False\n"
