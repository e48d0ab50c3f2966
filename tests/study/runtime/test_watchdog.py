"""A command whose main thread is inside a native call still ends at a signal, and cleans up."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from study.runtime import watchdog

ROOT = Path(__file__).parents[3]
BEGIN = """
import ctypes, os, sys, threading
from mipoison.storage.files import Storage
from study.runtime import watchdog
from study.runtime.scratch import temporary_run_folder
from study.runtime.signals import interruptible
from study.session.lease import Lease

watchdog.ANSWER_S, watchdog.CLEAN_UP_S = 0.5, 3.0

def stuck():
    lock = ctypes.create_string_buffer(64)
    for _ in range(2):  # the second call waits for ever, and no signal ends it
        ctypes.CDLL(None).pthread_mutex_lock(lock)
"""
NATIVE = """
with interruptible(), temporary_run_folder(), Lease(Storage("out"), "s"):
    threading.Timer(1, print, ["ready"], {"flush": True}).start()  # by then the main thread is stuck
    stuck()
"""
CLEANING = """
with interruptible(), temporary_run_folder(), Lease(Storage("out"), "s"):
    try:
        print("ready", flush=True)
        while True:
            pass
    finally:
        print("cleaning", flush=True)
        stuck()
"""
FORK = """
import time, signal
with interruptible():
    if (child := os.fork()) == 0:
        try:
            print("ready", flush=True)
            time.sleep(60)
        except KeyboardInterrupt:
            os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    time.sleep(1.5)
print("unharmed", flush=True)
"""
RAY = """
import signal
from study.executors.environment import plan_ray
plan = plan_ray(None)
assert plan.local
import ray
from ray.util import placement_group
from study.executors.local_ray import start_local

with interruptible(), temporary_run_folder():
    start_local(plan, num_cpus=1, include_dashboard=False)
    from ray._private import worker
    worker._global_node.kill_gcs_server(check_alive=False)
    print("ready", flush=True)
    placement_group([{"CPU": 1}])
"""


@pytest.fixture
def place() -> Iterator[Path]:
    """A short path, because Ray's sockets are created below it."""
    with tempfile.TemporaryDirectory(prefix="mip", dir="/tmp", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def command(place: Path, code: str) -> subprocess.Popen[str]:
    drop = ("RAY_", "PYTEST_", "MIPOISON_")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(drop)}
    ours = {"HOME": str(place), "TMPDIR": str(place), "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    return subprocess.Popen(
        [sys.executable, "-c", BEGIN + code], cwd=place, text=True, env=kept | ours,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip


def wait_for(process: subprocess.Popen[str], word: str) -> None:
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if line.strip() == word:
            return
    pytest.fail(said)


def nothing_left(place: Path) -> None:
    assert list(place.glob("mipoison-*")) == []
    assert list(place.glob("out/s/drivers/*")) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_native_call_is_ended_after_the_clean_up(place: Path, number: signal.Signals) -> None:
    process = command(place, NATIVE)
    wait_for(process, "ready")
    assert list(place.glob("mipoison-*/m*"))
    assert list(place.glob("out/s/drivers/*"))
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + number, output
    said = "interrupted" if number == signal.SIGINT else f"ended by {number.name}"
    assert output.strip() == f"{said}, inside a native call that did not return; what was finished is kept"
    nothing_left(place)


def test_a_clean_up_that_hangs_is_ended_too(place: Path) -> None:
    process = command(place, CLEANING)
    wait_for(process, "ready")
    process.send_signal(signal.SIGTERM)
    wait_for(process, "cleaning")
    began = time.monotonic()
    process.communicate(timeout=60)
    assert process.returncode == 143
    assert time.monotonic() - began > 1.0  # CLEAN_UP_S, not ANSWER_S
    nothing_left(place)


def test_a_signal_to_a_forked_child_is_not_the_parent_s(place: Path) -> None:
    process = command(place, FORK)
    wait_for(process, "ready")
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(children[0]), signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert (process.returncode, output.strip()) == (0, "unharmed")


def test_somebody_else_s_descriptor_stays() -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer)
    try:
        with watchdog.watched([signal.SIGTERM], lambda: True, str):
            pass
    finally:
        assert signal.set_wakeup_fd(-1) == writer
        os.close(reader)
        os.close(writer)


def test_outside_the_block_nothing_is_watched() -> None:
    descriptors = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with watchdog.watched([signal.SIGTERM], lambda: True, str):
            pass
    assert signal.set_wakeup_fd(-1) == -1
    assert len(os.listdir("/proc/self/fd")) == descriptors


@pytest.mark.ray
@pytest.mark.faults
def test_a_call_that_waits_for_a_dead_control_store_is_ended(place: Path) -> None:
    """Ray would wait for 60 seconds and exit with code 1."""
    process = command(place, RAY)
    wait_for(process, "ready")
    time.sleep(2.0)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=40)
    assert process.returncode == 143, output
    nothing_left(place)
