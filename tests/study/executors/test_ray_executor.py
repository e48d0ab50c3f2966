"""Studies on a local Ray from the command line: two trials, worker groups, a kill and a resume."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
import simulated
from simulated import command_of, descendants

from mipoison.storage.files import Storage
from study.analysis.frontier import frontier_table
from study.pareto import main
from study.records.constraints import Constraints
from study.records.curves import read_curves
from study.records.store import Records

ROOT = Path(__file__).parents[3]
SMALL = ["--seeds", "2", "--attackers", "passive", "label-only"]
TINY = [*SMALL, "--limit", "100", "--victim-steps", "30", "--decoder-steps", "20", "--decoder-width", "4",
        "--no-dashboard", "--no-learning-curves"]  # fmt: skip
TIMEOUT_S = 280
pytestmark = [pytest.mark.ray, pytest.mark.timeout(2 * TIMEOUT_S)]


@pytest.fixture
def environment() -> Iterator[dict[str, str]]:
    """An environment with its own HOME and temporary folder; the path is short, as Ray puts sockets there."""
    with tempfile.TemporaryDirectory(prefix="mip", dir="/tmp", ignore_cleanup_errors=True) as folder:
        drop = ("RAY_", "PYTEST_", "MIPOISON_")
        keep = {k: v for k, v in os.environ.items() if not k.startswith(drop)}
        yield keep | {
            "HOME": folder,
            "TMPDIR": folder,
            "MIPOISON_RAY_TMP": f"{folder}/r",
            "PYTHONWARNINGS": "ignore",
        }


def start(environment: dict[str, str], storage: Path, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(ROOT / "study" / "pareto.py"), *TINY, "--storage", str(storage), *more]
    return subprocess.Popen(
        command,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str]) -> str:
    try:
        output, _ = process.communicate(timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    return output


def run(environment: dict[str, str], storage: Path, *more: str) -> str:
    process = start(environment, storage, *more)
    output = finish(process)
    assert process.returncode == 0, output
    return output


def episodes(storage: Path, name: str) -> pd.DataFrame:
    return Records(Storage(storage), name).read()


def numbers(frame: pd.DataFrame) -> pd.DataFrame:
    """What must not depend on how a study was run; trials of two searches have other names."""
    return simulated.numbers(frame).drop(columns="trial")


def assert_frontier_follows(storage: Path, name: str) -> None:
    stored = pq.read_table(storage / name / "frontier.parquet").to_pandas()
    fresh = frontier_table(episodes(storage, name), Constraints())
    assert len(stored)
    assert list(stored["trial"]) == list(fresh["trial"])
    assert stored["worst_reconstruction_error"].tolist() == fresh["worst_reconstruction_error"].tolist()


@pytest.mark.usefixtures("no_report")
def test_two_trials_then_a_kill_and_a_resume(environment: dict[str, str], tmp_path: Path) -> None:
    local = ["--executor", "local", "--learning-curves", "--storage", str(tmp_path / "calm")]
    assert main([*TINY, "--trials", "3", "--name", "s", *local]) == 0
    calm = episodes(tmp_path / "calm", "s")
    assert len(calm) == (3 + 2) * 2 * 3
    assert set(calm["status"]) == {"ok"}

    storage = tmp_path / "killed"
    process = start(environment, storage, "--trials", "3", "--name", "s")
    folder = storage / "s" / "episodes"
    deadline = time.monotonic() + TIMEOUT_S
    while not any(folder.glob("t*.parquet")) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.05)
    assert process.poll() is None, process.communicate()[0]
    os.kill(process.pid, signal.SIGKILL)  # the driver only: Ray's processes have to notice
    process.communicate(timeout=TIMEOUT_S)
    before = {p.name: p.read_bytes() for p in folder.glob("*.parquet")}
    assert before

    again = ["--resume", "--learning-curves"]
    assert "a local Ray on loopback" in run(environment, storage, "--trials", "3", "--name", "s", *again)
    after = {p.name: p.read_bytes() for p in folder.glob("*.parquet")}
    assert all(after.get(name) == data for name, data in before.items()), "a finished trial was written again"
    resumed = episodes(storage, "s")
    assert len(resumed) == len(calm)
    assert resumed["episode_id"].is_unique
    # With two trials at a time the search may differ; the settings that both runs evaluated must agree.
    both = set(calm["episode_id"]) & set(resumed["episode_id"])
    assert len(both) >= 8
    pd.testing.assert_frame_equal(
        numbers(calm[calm["episode_id"].isin(both)]), numbers(resumed[resumed["episode_id"].isin(both)])
    )
    assert_frontier_follows(storage, "s")
    here, there = ({(r["trial"], r["face"]): r for r in read_curves(Storage(root), "s")}
                   for root in (tmp_path / "calm", storage))  # fmt: skip
    for anchor in [(name, face) for name in ("none", "label-only") for face in ("train", "test")]:
        assert here[anchor] == there[anchor]


@pytest.mark.faults
def test_a_killed_worker_is_replaced(environment: dict[str, str], tmp_path: Path) -> None:
    process = start(
        environment, tmp_path, "--trials", "2", "--name", "s", "--decoder-steps", "200", "--concurrent", "1"
    )
    started = tmp_path / "s" / "trials"
    deadline = time.monotonic() + TIMEOUT_S
    while not any(started.glob("*.json")) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.05)
    killed = 0
    while not killed and time.monotonic() < deadline and process.poll() is None:
        trials = [
            pid
            for pid in descendants(process.pid)
            if re.search("ray::(ImplicitFunc|_trainable)", command_of(pid))
        ]
        for pid in trials[:1]:
            os.kill(pid, signal.SIGKILL)
            killed += 1
        time.sleep(0.2)
    output = finish(process)
    assert killed, output
    assert process.returncode == 0, output
    frame = episodes(tmp_path, "s")
    assert len(frame) == (2 + 2) * 2 * 3
    assert set(frame["status"]) == {"ok"}
    assert frame["episode_id"].is_unique


@pytest.mark.long
def test_records_do_not_depend_on_workers(environment: dict[str, str], tmp_path: Path) -> None:
    """0, 1 and 2 workers and no Ray give equal records; a terminal shows the progress of the anchors."""
    frames, shown = {}, {}
    for name, more in {
        "local": ("--executor", "local"),
        "one": ("--workers", "1"),
        "two": ("--workers", "2"),
    }.items():
        shown[name] = run(
            environment | {"FORCE_COLOR": "1"},
            tmp_path / name,
            "--trials",
            "1",
            "--seeds",
            "1",
            "--name",
            "s",
            "--defenses",
            "lpa",
            *more,
        )
        frames[name] = numbers(episodes(tmp_path / name, "s"))
    assert len(frames["local"]) == 3 * 3
    for name in ("one", "two"):
        pd.testing.assert_frame_equal(frames["local"], frames[name])
    assert not list(Path(environment["TMPDIR"]).glob("mipoison-*"))  # the run leaves nothing behind
    # The workers count one scene and two anchors through the progress actor.
    for name, output in shown.items():
        counts = {int(n) for n in re.findall(r"[━─] (\d)/3 \|", output)}
        assert 0 in counts, (name, counts)
        assert counts & {1, 2, 3}, (name, counts)


def test_too_many_workers_are_refused(environment: dict[str, str], tmp_path: Path) -> None:
    process = start(environment, tmp_path, "--trials", "1", "--workers", "1000", "--gpus-per-worker", "0.5")
    output = finish(process)
    assert process.returncode == 2, output
    assert "workers = 1000" in output
    assert "CPUs needed" in output
    assert "GPUs needed" in output
    assert not any(tmp_path.glob("*/study.json"))  # refused before anything was written
