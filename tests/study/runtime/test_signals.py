"""SIGTERM and SIGHUP end a command as Ctrl-C does, at any time, and nothing is left behind."""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from study.runtime import signals
from study.runtime.entry import RESUME_HINT
from study.runtime.signals import NUMBERS, interruptible, keep_handlers

ROOT = Path(__file__).parents[3]
TINY = [
    "--trials", "2", "--seeds", "1", "--attackers", "passive", "label-only", "--victim-steps", "30",
    "--decoder-steps", "20", "--no-dashboard", "--name", "s",
]  # fmt: skip
LIMIT_S = 200


def send(number: int) -> None:
    """Send a signal to this process; Python runs its handler before the next line."""
    os.kill(os.getpid(), number)
    time.sleep(0.01)


@pytest.mark.parametrize("number", NUMBERS)
def test_every_signal_interrupts_once_and_the_old_handlers_come_back(number: int) -> None:
    before = [signal.getsignal(n) for n in NUMBERS]
    with interruptible() as interrupts:
        assert interrupts.received is None
        with pytest.raises(KeyboardInterrupt):
            send(number)
        for again in NUMBERS:  # repeated signals during the clean-up are ignored
            send(again)
        assert interrupts.received == number
    assert [signal.getsignal(n) for n in NUMBERS] == before
    assert interrupts.exit_code == 128 + number
    said = {
        signal.SIGINT: "interrupted",
        signal.SIGTERM: "ended by SIGTERM",
        signal.SIGHUP: "ended by SIGHUP",
    }
    assert interrupts.reason == said[signal.Signals(number)]


def test_much_later_a_second_signal_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "PATIENCE_S", -1.0)
    if (pid := os.fork()) == 0:
        with interruptible() as interrupts:
            try:
                interrupts.handle(signal.SIGTERM)
            except KeyboardInterrupt:
                interrupts.handle(signal.SIGHUP)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 128 + signal.SIGHUP


def test_what_is_ignored_stays_ignored() -> None:
    """``nohup`` lets a process ignore SIGHUP, a shell lets background jobs ignore SIGINT."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interruptible() as interrupts:
            send(signal.SIGHUP)
            assert interrupts.received is None
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_lost_lease_interrupts_where_ctrl_c_is_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interruptible() as interrupts, pytest.raises(KeyboardInterrupt):  # noqa: PT012
            threading.Thread(target=signals.interrupt_main_thread).start()
            time.sleep(10)
        assert interrupts.received == signal.SIGTERM
    finally:
        signal.signal(signal.SIGINT, before)


def test_in_another_thread_nothing_changes() -> None:
    found: list[object] = []

    def enter() -> None:
        with interruptible() as interrupts, keep_handlers():
            found.append(interrupts.received)

    before = [signal.getsignal(n) for n in NUMBERS]
    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert found == [None]
    assert [signal.getsignal(n) for n in NUMBERS] == before


def test_handlers_that_ray_puts_in_place_do_not_stay() -> None:
    with interruptible() as interrupts:
        with keep_handlers():
            signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(number))
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGTERM)
        assert interrupts.received == signal.SIGTERM


def test_a_signal_that_meets_ray_s_own_handler_is_heard() -> None:
    with interruptible() as interrupts:
        with pytest.raises(KeyboardInterrupt), keep_handlers():  # noqa: PT012
            signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(number))
            send(signal.SIGTERM)
        assert interrupts.received == signal.SIGTERM
        with pytest.raises(SystemExit), keep_handlers():
            sys.exit(3)  # not caused by a signal


def test_an_error_after_a_signal_is_the_signal_s_doing() -> None:
    with interruptible() as interrupts:
        with pytest.raises(OSError, match="disk"), interrupts.override_errors():
            raise OSError("disk")
        with pytest.raises(KeyboardInterrupt), interrupts.override_errors():  # noqa: PT012
            try:
                send(signal.SIGTERM)
            finally:
                raise OSError("Ray is gone")


def test_a_swallowed_interrupt_is_found_again() -> None:
    signals.raise_if_interrupted()
    with interruptible():
        signals.raise_if_interrupted()
        with contextlib.suppress(KeyboardInterrupt):
            send(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            signals.raise_if_interrupted()
    signals.raise_if_interrupted()


def test_an_interrupt_that_nobody_can_catch_comes_again(capfd: pytest.CaptureFixture[str]) -> None:
    """Ray forks while it starts, and Python drops exceptions that are raised in fork callbacks."""

    class Dying:
        def __del__(self) -> None:
            send(signal.SIGTERM)

    with interruptible() as interrupts:
        with pytest.raises(KeyboardInterrupt):  # noqa: PT012
            Dying()
            assert interrupts.received == signal.SIGTERM
            time.sleep(5)
        send(signal.SIGTERM)  # a repeated signal is ignored
        assert interrupts.received == signal.SIGTERM
    assert capfd.readouterr().err == ""


LATE = """
import os, signal, sys, time
from study.runtime.signals import as_command, interruptible

def send():
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.05)

class Last:
    def __del__(self):  # runs after Python has restored the default handlers
        send()

sys.modules["last"] = Last()

def main():
    with interruptible() as interrupts:
        try:
            send()
        except KeyboardInterrupt:
            return interrupts.exit_code

code = as_command(main)
send()
sys.exit(code)
"""


def test_signals_after_the_end_change_nothing() -> None:
    done = subprocess.run([sys.executable, "-c", LATE], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (143, "")  # it would be -15 if the last signal had killed it


@pytest.fixture
def place() -> Iterator[Path]:
    """A short path, because Ray's sockets are created below it."""
    with tempfile.TemporaryDirectory(prefix="mip", dir="/tmp", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def study(
    place: Path, *more: str, output: int = subprocess.PIPE, group: bool = True
) -> subprocess.Popen[str]:
    drop = ("RAY_", "PYTEST_", "MIPOISON_")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(drop)}
    return subprocess.Popen(
        [sys.executable, str(ROOT / "study" / "pareto.py"), *TINY, "--storage", str(place / "out"), *more],
        env=kept | {"HOME": str(place), "TMPDIR": str(place), "PYTHONWARNINGS": "ignore"},
        stdout=output, stderr=subprocess.STDOUT if output == subprocess.PIPE else output, text=True,
        start_new_session=True,
    )  # fmt: skip


def when(happened: Callable[[], object], process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + LIMIT_S
    while not happened():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < until
        time.sleep(0.02)


def nothing_left(place: Path) -> None:
    assert list(place.glob("mipoison-*")) == []  # token, Ray's session, folders of the trackers
    assert list((place / "out").glob("s/drivers/*")) == []


def test_sigterm_ends_a_study_in_this_process(place: Path) -> None:
    process = study(place, "--executor", "local")
    when((place / "out" / "s" / "study.json").exists, process)
    assert list(place.glob("mipoison-*/m*/optuna-*"))
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 143, output
    assert output.rstrip().splitlines()[-1] == f"ended by SIGTERM; {RESUME_HINT} --name s"
    assert "Traceback" not in output
    nothing_left(place)


def test_a_terminal_that_goes_away_ends_a_study_too(place: Path) -> None:
    """Without a terminal nothing can be printed; the command still cleans up."""
    master, slave = pty.openpty()
    os.set_blocking(master, False)
    process = study(place, "--executor", "local", output=slave)
    os.close(slave)

    def begun() -> bool:
        with contextlib.suppress(BlockingIOError):
            os.read(master, 4096)
        return (place / "out" / "s" / "study.json").exists()

    when(begun, process)
    os.close(master)
    process.send_signal(signal.SIGHUP)
    assert process.wait(LIMIT_S) == 129
    nothing_left(place)


@pytest.mark.ray
@pytest.mark.faults
def test_sigterm_ends_a_study_on_ray(place: Path) -> None:
    process = study(place)
    when(lambda: list((place / "out" / "s" / "trials").glob("t*.json")), process)
    (rays,) = place.glob("mipoison-*/m*/r")
    assert oct(rays.parent.stat().st_mode & 0o777) == oct(0o700)
    os.killpg(process.pid, signal.SIGTERM)  # as Slurm does: Ray's processes receive the signal, too
    output, _ = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 143, output
    # On a busy machine the main thread may be inside Ray for longer than the watchdog waits.
    stuck = "ended by SIGTERM, inside a native call that did not return; what was finished is kept"
    said = output.replace("\n", " ")
    assert f"ended by SIGTERM; {RESUME_HINT} --name s" in said or stuck in said, output
    assert not any(word in output for word in ("Traceback", "SIGABRT", "Check failed"))
    nothing_left(place)
