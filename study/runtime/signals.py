"""SIGTERM and SIGHUP end a command as Ctrl-C does: batch systems, Kubernetes and spot machines send them.

The first one raises KeyboardInterrupt in the main thread, wherever that is; what follows cleans up. Within
the next seconds further ones are impatience and change nothing; a later one ends the process at once (what it
leaves, the next start sweeps, see ``study.runtime.scratch``).
"""

from __future__ import annotations

import atexit
import contextlib
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

NUMBERS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
PATIENCE_S = 30.0
"""So long after the first signal another one is ignored."""


class Interrupts:
    """What was heard.

    Attributes:
        heard: the first signal, None if there was none.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._since = 0.0
        self._dropped = False

    def handle(self, number: int, frame: FrameType | None = None) -> None:
        """The handler. No lock is taken: it may be held where the handler runs."""
        if self._dropped:
            self._dropped = False
            raise KeyboardInterrupt
        if self.received is None:
            self.received, self._since = number, time.monotonic()
            if number != signal.SIGINT:
                _silence_hung_up()
            raise KeyboardInterrupt
        if time.monotonic() - self._since > PATIENCE_S:
            with contextlib.suppress(OSError):
                os.write(2, b"\nended at once, without cleaning up; the next start does that\n")
            os._exit(128 + number)

    def on_unraisable(self, unraisable: Any) -> None:
        """Hook of errors that nobody can catch (at a fork, for one): an interrupt comes once more."""
        if unraisable.exc_type is KeyboardInterrupt and self.received is not None:
            self._dropped = True
            again = threading.Timer(0.1, self._once_more)
            again.daemon = True
            again.start()
        else:
            sys.__unraisablehook__(unraisable)

    def _once_more(self) -> None:
        if self._dropped and self.received is not None:
            os.kill(os.getpid(), self.received)

    @contextlib.contextmanager
    def override_errors(self) -> Iterator[None]:
        """What fails once a signal was heard is its doing: KeyboardInterrupt in place of the error.

        A signal to a whole group of processes (Slurm's) ends Ray in the moment in which we clean up.
        """
        try:
            yield
        except Exception as error:
            if self.received is None:
                raise
            raise KeyboardInterrupt from error

    @property
    def exit_code(self) -> int:
        """128 + the signal's number, as shells say it: whoever started the command can tell them apart."""
        return 128 + (self.received or signal.SIGINT)

    @property
    def reason(self) -> str:
        """For the message: what ended the command."""
        if self.received in (None, signal.SIGINT):
            return "interrupted"
        return f"ended by {signal.Signals(self.received).name}"


_current: list[Interrupts] = []


@contextlib.contextmanager
def interruptible() -> Iterator[Interrupts]:
    """SIGINT, SIGTERM and SIGHUP raise KeyboardInterrupt inside; the handlers from before come back after it.

    A signal that is ignored from the start (``nohup``) stays so. In another thread than the main one nothing
    changes: Python hears signals in that one alone.
    """
    interrupts = Interrupts()
    if threading.current_thread() is not threading.main_thread():
        yield interrupts
        return
    before = {n: signal.getsignal(n) for n in NUMBERS if signal.getsignal(n) != signal.SIG_IGN}
    for number in before:
        signal.signal(number, interrupts.handle)
    hook, sys.unraisablehook = sys.unraisablehook, interrupts.on_unraisable
    _current.append(interrupts)
    try:
        yield interrupts
    finally:
        interrupts._dropped = False
        _current.remove(interrupts)
        sys.unraisablehook = hook
        _put_back(before)


def exit_on_signal() -> None:
    """For the first lines of a script: a signal ends it in one line while the rest is still being imported.

    Nothing has been begun, so that nothing is cleaned up; an exception would pass through half-made modules.
    """
    for number in NUMBERS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _end_now)


def _end_now(number: int, frame: FrameType | None = None) -> None:
    what = "interrupted" if number == signal.SIGINT else f"ended by {signal.Signals(number).name}"
    with contextlib.suppress(OSError):
        os.write(2, f"{what}; nothing was begun\n".encode())
    os._exit(128 + number)


def as_command(main: Callable[[], int]) -> int:
    """A script's main, whose process then ends: signals that come after it change nothing any more."""
    ending = Interrupts()
    ending.received, ending._since = signal.SIGINT, math.inf
    for number in NUMBERS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, ending.handle)
    atexit.register(_ignore)  # Python puts the system's handlers back before it is gone
    try:
        return main()
    finally:
        ending._since = time.monotonic()


@contextlib.contextmanager
def keep_handlers() -> Iterator[None]:
    """Around the start of Ray, which puts a handler of its own for SIGTERM in place: ours come back after it.

    A SIGTERM that meets Ray's, which exits, is heard as any other.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in NUMBERS}
    try:
        yield
        raise_if_interrupted()
    except SystemExit as error:
        _put_back(before)
        if not _current or error.code != signal.SIGTERM:
            raise
        with contextlib.suppress(KeyboardInterrupt):
            _current[-1].handle(signal.SIGTERM)
        raise KeyboardInterrupt from error
    finally:
        _put_back(before)


def raise_if_interrupted() -> None:
    """KeyboardInterrupt if a signal was heard: somebody's clean-up code may have swallowed the first one."""
    if _current and _current[-1].received is not None:
        raise KeyboardInterrupt


def interrupt_main_thread() -> None:
    """Interrupt the main thread from another one, also where Ctrl-C is ignored (a job in the background)."""
    number: int = next((n for n in NUMBERS if callable(signal.getsignal(n))), signal.SIGINT)
    os.kill(os.getpid(), number)


def _ignore() -> None:
    for number in NUMBERS:
        signal.signal(number, signal.SIG_IGN)


def _put_back(handlers: dict[int, Any]) -> None:
    for number, handler in handlers.items():
        if handler is not None:  # None: not set from Python
            signal.signal(number, handler)


def _silence_hung_up() -> None:
    """Where the terminal is gone, writing to it would be an error in the middle of cleaning up."""
    for descriptor in (1, 2):
        try:
            os.write(descriptor, b"")
        except OSError:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, descriptor)
            os.close(null)
