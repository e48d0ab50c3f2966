"""End a command whose main thread does not answer a signal, after cleaning up in its place.

Python runs signal handlers in the main thread between two lines of Python. A main thread inside a native call
never gets there: Ray waits 60 seconds for its control store, which the same signal may have ended, and then
exits with code 1; a factorisation of a large matrix takes minutes. Batch systems kill what remains after
30 seconds, and a killed process leaves its temporary files and its claim on the study.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator

ANSWER_S = 10.0
"""How long the main thread may take to begin with its clean-up."""
CLEAN_UP_S = 40.0
"""How long the clean-up of the main thread may take; less than the 60 seconds after which Ray exits."""
EACH_S = 5.0
"""How long each clean-up may take that is done in the main thread's place."""

_last_resorts: list[Callable[[], None]] = []


@contextlib.contextmanager
def last_resort(clean_up: Callable[[], None]) -> Iterator[None]:
    """Inside the block, the watchdog calls ``clean_up`` from its thread before it ends the process."""
    add_last_resort(clean_up)
    try:
        yield
    finally:
        drop_last_resort(clean_up)


def add_last_resort(clean_up: Callable[[], None]) -> None:
    """Let the watchdog call ``clean_up``; the last one added is called first."""
    _last_resorts.append(clean_up)


def drop_last_resort(clean_up: Callable[[], None]) -> None:
    """Undo :func:`add_last_resort`, once or when it was never called."""
    with contextlib.suppress(ValueError):
        _last_resorts.remove(clean_up)


@contextlib.contextmanager
def watched(
    numbers: Iterable[int], answered: Callable[[], bool], message: Callable[[int], str]
) -> Iterator[None]:
    """Inside the block, end the process if its main thread does not answer one of these signals.

    Call it in the main thread. The exit code is 128 + the number of the signal. It does nothing where
    somebody else, an event loop perhaps, is told about signals.

    Args:
        numbers: signals with a handler of ours.
        answered: whether that handler has run.
        message: the line of text to end with, from the number of the signal.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    if before != -1:
        signal.set_wakeup_fd(before)
        os.close(reader)
        os.close(writer)
        yield
        return
    wanted, over = frozenset(numbers), threading.Event()

    def watch() -> None:
        while told := os.read(reader, 1):
            if told[0] in wanted:
                break
        began = time.monotonic()
        while told and not over.wait(0.1):
            waited = time.monotonic() - began
            if waited > CLEAN_UP_S or (waited > ANSWER_S and not answered()):
                _end(told[0], message(told[0]))

    thread = threading.Thread(target=watch, name="signals", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        now = signal.set_wakeup_fd(-1)
        if now not in (writer, -1):
            signal.set_wakeup_fd(now)
        os.close(writer)  # the thread finds the end of the pipe
        thread.join()
        os.close(reader)


def _forget_in_child() -> None:
    """A forked process must not tell its parent about the child's own signals."""
    with contextlib.suppress(ValueError):
        signal.set_wakeup_fd(-1)


os.register_at_fork(after_in_child=_forget_in_child)


def _end(number: int, message: str) -> None:
    """Clean up and exit."""
    for clean_up in reversed(_last_resorts):
        worker = threading.Thread(target=_quietly, args=(clean_up,), daemon=True)
        worker.start()
        worker.join(EACH_S)
    with contextlib.suppress(OSError):
        os.write(2, f"\n{message}\n".encode())
    os._exit(128 + number)


def _quietly(clean_up: Callable[[], None]) -> None:
    with contextlib.suppress(Exception):
        clean_up()
