"""Shared by the fault tests: a simulated cluster, a study on it, and assertions about its records."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
from rich.console import Console

from mipoison.defenses import ANCHORS
from mipoison.storage.files import Storage
from study.analysis.frontier import frontier_table
from study.bench import simulated_cluster as simulation
from study.executors.local import LocalExecutor
from study.records.constraints import Constraints
from study.records.store import Records
from study.session.loop import TrialLoop
from study.session.opening import open_study
from study.settings.study_settings import StudySettings
from study.trial.run import run_and_record

ROOT = Path(__file__).parents[2]
SLACK = float(os.environ.get("CI_SLACK", "1"))
"""More than 1 on a slow or busy machine, as for ``.ci/run``."""
TIMEOUT_S = 280 * SLACK
SETTINGS: dict[str, Any] = {
    "seeds": 1,
    "limit": 100,
    "victim_steps": 30,
    "decoder_steps": 20,
    "decoder_width": 4,
    "defenses": ("noise", "rounding"),
    "attackers": ("class-mean", "passive", "label-only"),
}


@contextmanager
def private_environment() -> Iterator[dict[str, str]]:
    """An environment with its own home, temporary folder and token, on loopback, with the tests' hooks."""
    with simulation.private_environment(
        # Ray notices a lost node after two seconds instead of fifteen.
        RAY_health_check_initial_delay_ms="1000",
        RAY_health_check_period_ms="500",
        RAY_health_check_failure_threshold="4",
    ) as environment:
        environment["PYTHONPATH"] += f":{Path(__file__).with_name('hooks')}"
        yield environment | {"FAULTS": environment["TMPDIR"]}


class Simulated(simulation.Nodes):
    """A simulated cluster that can be killed as a whole."""

    def lose(self) -> None:
        """Kill all of its processes at once, including the head."""
        ours = [self.process.pid, *descendants(self.process.pid)]
        for pid in ours:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(timeout=30)

    def close(self) -> None:
        """Stop it in order, and kill the processes that are left after a while."""
        below = descendants(self.process.pid) if self.process.poll() is None else []
        super().close()
        for pid in below:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def descendants(pid: int) -> list[int]:
    """The ids of a process's descendants."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found, queue = [], [pid]
    while queue:
        below = children.get(queue.pop(), [])
        found += below
        queue += below
    return found


def command_of(pid: int) -> str:
    """The command line of a process, '' if it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
    except OSError:
        return ""


def arguments(storage: Path, **changes: Any) -> list[str]:
    """Command line of a small study."""
    out = ["--storage", str(storage), "--name", "s", "--no-learning-curves"]
    for name, value in (SETTINGS | changes).items():
        values = value if isinstance(value, tuple) else (value,)
        out += [f"--{name.replace('_', '-')}", *map(str, values)]
    return out


class Driver:
    """``study/pareto.py`` in its own process, with its output in a file."""

    def __init__(self, environment: Mapping[str, str], command: list[str]) -> None:
        self.log = Path(tempfile.mkstemp(prefix="log", dir=environment["TMPDIR"])[1])
        with open(self.log, "w") as sink:
            self.process = subprocess.Popen(
                [sys.executable, str(ROOT / "study" / "pareto.py"), *command],
                env=dict(environment),
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait_for(self, happened: Callable[[], bool], limit_s: float = TIMEOUT_S) -> None:
        """Wait for a condition; fails if the study ends first, or after a timeout."""
        deadline = time.monotonic() + limit_s
        while not happened():
            assert self.process.poll() is None, f"ended before: {self.log.read_text()[-3000:]}"
            assert time.monotonic() < deadline, f"not within {limit_s} s: {self.log.read_text()[-3000:]}"
            time.sleep(0.05)

    def finish(self, expected: int = 0, limit_s: float = TIMEOUT_S) -> str:
        """Wait for the end, check the exit code, and return the output."""
        try:
            self.process.wait(timeout=limit_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"not done within {limit_s} s: {self.log.read_text()[-3000:]}") from None
        output = self.log.read_text()
        assert self.process.returncode == expected, output[-5000:]
        return output

    def kill(self) -> None:
        """Send SIGKILL to the driver only."""
        with suppress(ProcessLookupError):
            os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait(timeout=30)


def trials_done(storage: Path) -> int:
    """Finished trials of the search (anchors not counted)."""
    return len(list((storage / "s" / "episodes").glob("t*.parquet")))


def is_cost(column: str) -> bool:
    """Whether a column is a cost, which differs from run to run."""
    return column.startswith("seconds_") or column.endswith("_ms_per_sample") or column == "peak_memory_mb"


def numbers(frame: pd.DataFrame) -> pd.DataFrame:
    """The columns that must not depend on how a study was run."""
    frame = frame.drop(columns=[c for c in frame if is_cost(c) or c in ("study", "attempt")])
    return frame.sort_values("episode_id", ignore_index=True)


def undisturbed(storage: Path, calm: Path, **changes: Any) -> pd.DataFrame:
    """Evaluate the same settings one by one in this process, in another storage."""
    started = Records(Storage(storage), "s").started()
    settings = StudySettings(
        **SETTINGS | changes | {"storage": str(calm), "name": "s", "executor": "local", "trials": 0}
    )
    study = open_study(settings, Console(file=io.StringIO()))
    TrialLoop(LocalExecutor()).evaluate_anchors(study)
    for trial, begun in sorted(started.items()):
        if trial not in ANCHORS:
            run_and_record(study.template.spec(trial, begun["defense"], begun["knobs"], floor=study.floor()))
    return study.records.read()


def assert_whole(storage: Path, calm: Path, trials: int, **changes: Any) -> pd.DataFrame:
    """No episode is missing or repeated; records and frontier equal those of an undisturbed run."""
    records = Records(Storage(storage), "s")
    found = records.read()
    assert "class-mean" in (SETTINGS | changes)["attackers"]  # the command line adds it otherwise
    per_trial = len((SETTINGS | changes)["attackers"]) * (SETTINGS | changes)["seeds"]
    assert set(found["status"]) <= {"ok", "cut"}, found.loc[found["status"] == "failed", "error"].unique()
    assert found["episode_id"].is_unique
    assert found["trial"].nunique() == trials + len(ANCHORS)
    assert len(found) == (trials + len(ANCHORS)) * per_trial
    files = list((storage / "s" / "episodes").glob("*.parquet"))
    sound = [p for p in files if "failed" not in pq.read_table(p, columns=["status"])["status"].to_pylist()]
    assert len(sound) == len(records.finished())  # no finished trial was written twice
    pd.testing.assert_frame_equal(numbers(found), numbers(undisturbed(storage, calm, **changes)))
    stored = pq.read_table(storage / "s" / "frontier.parquet").to_pandas()
    fresh = frontier_table(found, Constraints())
    assert len(stored)
    assert list(stored["trial"]) == list(fresh["trial"])
    assert stored["worst_reconstruction_error"].tolist() == fresh["worst_reconstruction_error"].tolist()
    return found
