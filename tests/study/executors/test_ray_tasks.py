"""Functions called with each spec on a local Ray: how many at once, in order, killed, failed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
TIMEOUT_S = 240
pytestmark = [pytest.mark.ray, pytest.mark.timeout(2 * TIMEOUT_S)]

PROGRAM = """
import dataclasses, json, os, signal, sys, time
from pathlib import Path
from study.executors.environment import plan_ray
plan = plan_ray(None)
from study.executors.ray_executor import RayExecutor, start_ray
from study.runtime.scratch import temporary_run_folder
from study.settings.resources import Resources
from tests.study.executors.helpers import SPEC

place, concurrent = Path(sys.argv[1]), int(sys.argv[2]) or None

def work(spec):
    name, what = spec.trial.split("-")
    begun = time.time()
    with open(place / name, "a") as tries:
        tries.write("x")
    times = len((place / name).read_text())
    if what == "fails":
        raise ValueError("no such law")
    if what == "dies" or (what == "once" and times == 1):
        os.kill(os.getpid(), signal.SIGKILL)
    end = time.time() + 120
    while what == "slow" and not (place / "t6").exists() and time.time() < end:
        time.sleep(0.05)
    time.sleep(0.2)
    return name, begun, time.time()

with temporary_run_folder():
    start_ray(plan, dashboard=False)
    try:
        executor = RayExecutor(Resources(workers=0, cpus_per_worker=0.01, concurrent=concurrent), plan)
        specs = [dataclasses.replace(SPEC, trial=f"t{i}-{what}") for i, what in enumerate(sys.argv[3:])]
        told = []
        for found in executor.each(work, specs):
            if isinstance(found, Exception):
                told.append([type(found).__name__, str(getattr(found, "cause", None) or found)])
            else:
                told.append(found)
        print("told " + json.dumps({"found": told, "at_once": executor._tasks_at_once}), flush=True)
    finally:
        executor.close()
"""


@pytest.fixture
def environment() -> Iterator[dict[str, str]]:
    """An environment with its own HOME and temporary folder; the path is short, as Ray puts sockets there."""
    with tempfile.TemporaryDirectory(prefix="mip", dir="/tmp", ignore_cleanup_errors=True) as folder:
        drop = ("RAY_", "PYTEST_", "MIPOISON_")
        keep = {k: v for k, v in os.environ.items() if not k.startswith(drop)}
        ours = {"HOME": folder, "TMPDIR": folder, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
        yield keep | ours


def told(environment: dict[str, str], place: Path, concurrent: int, *tasks: str) -> dict[str, Any]:
    """What the executor yields for tasks of these kinds."""
    program = place / "program.py"
    program.write_text(PROGRAM)
    command = [sys.executable, str(program), str(place), str(concurrent), *tasks]
    ran = subprocess.run(
        command, env=environment, cwd=place, text=True, capture_output=True, timeout=TIMEOUT_S
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    (line,) = [line for line in ran.stdout.splitlines() if line.startswith("told ")]
    return dict(json.loads(line.removeprefix("told ")))


def test_no_more_at_once_than_asked_for_and_in_order(environment: dict[str, str], tmp_path: Path) -> None:
    found = told(environment, tmp_path, 2, "slow", *["brief"] * 6)["found"]
    assert [name for name, _, _ in found] == [f"t{i}" for i in range(7)]
    moments = [(begun, 1) for _, begun, _ in found] + [(end, -1) for _, _, end in found]
    at_once, most = 0, 0
    for _, change in sorted(moments):
        at_once += change
        most = max(most, at_once)
    assert most == 2
    assert found[6][1] < found[0][2]  # the first one, which waits for the last, does not hold the others up


@pytest.mark.faults
def test_lost_and_failed_tasks(environment: dict[str, str], tmp_path: Path) -> None:
    """A killed process runs again; one that always dies, or raises, has its error in its place."""
    answer = told(environment, tmp_path, 0, "once", "dies", "fails", "brief")
    once, dies, fails, brief = answer["found"]
    assert (once[0], brief[0]) == ("t0", "t3")
    assert dies[0] == "WorkerCrashedError"
    assert fails == [fails[0], "no such law"]
    assert "ValueError" in fails[0]
    tries = {name: len((tmp_path / name).read_text()) for name in ("t0", "t1", "t2", "t3")}
    assert tries == {"t0": 2, "t1": 4, "t2": 1, "t3": 1}  # once, and three times again
    assert answer["at_once"] > 1  # as many as fit
