"""Signal handling: SIGTERM and SIGHUP end a command as Ctrl-C does.

Batch systems, Kubernetes and spot machines send these signals. The first signal raises KeyboardInterrupt in
the main thread, and the command cleans up. Further signals are ignored for 30 seconds; after that the next
one ends the process without cleaning up, and the next run removes its temporary files
(``study.runtime.scratch``). ``study.runtime.watchdog`` cleans up if the main thread cannot.
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

from study.runtime.entry import until_closed
from study.runtime.watchdog import watched

NUMBERS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
PATIENCE_S = 30.0
"""For this many seconds after the first signal, further ones are ignored."""


class Interrupts:
    """The signals that a command has received, and their handler.

    Attributes:
        received: the first signal, None if there was none.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._since = 0.0
        self._dropped = False

    def handle(self, number: int, frame: FrameType | None = None) -> None:
        """The signal handler. It takes no lock, because the interrupted code may hold it."""
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
        """The ``sys.unraisablehook``: repeats an interrupt that was raised where it cannot propagate.

        This happens, for instance, in a callback of ``os.fork``.
        """
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
        """Replace an exception by KeyboardInterrupt if a signal was received before.

        A signal to the whole process group (as Slurm sends) also ends Ray, whose errors then disturb the
        clean-up.
        """
        try:
            yield
        except Exception as error:
            if self.received is None:
                raise
            raise KeyboardInterrupt from error

    @property
    def exit_code(self) -> int:
        """128 + the signal's number, as shells report it."""
        return 128 + (self.received or signal.SIGINT)

    @property
    def reason(self) -> str:
        """What ended the command, for a message."""
        return _reason(self.received or signal.SIGINT)


def _reason(number: int) -> str:
    return "interrupted" if number == signal.SIGINT else f"ended by {signal.Signals(number).name}"


def _last_words(number: int) -> str:
    return f"{_reason(number)}, inside a native call that did not return; what was finished is kept"


_current: list[Interrupts] = []


@contextlib.contextmanager
def interruptible() -> Iterator[Interrupts]:
    """Let SIGINT, SIGTERM and SIGHUP raise KeyboardInterrupt; the previous handlers are restored at the end.

    A signal that is ignored from the start (``nohup``) stays ignored. Outside the main thread this does
    nothing, because Python handles signals only there.
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
        with watched(before, lambda: interrupts.received is not None, _last_words):
            yield interrupts
    finally:
        interrupts._dropped = False
        _current.remove(interrupts)
        sys.unraisablehook = hook
        _put_back(before)


def until_signalled(body: Callable[[], None]) -> int:
    """Run ``body``; the exit code is 0, or 128 + the number of the signal that ended it, which is printed."""
    with interruptible() as interrupts:
        try:
            body()
        except KeyboardInterrupt:
            print(interrupts.reason, file=sys.stderr)
            return interrupts.exit_code
    return 0


def exit_on_signal() -> None:
    """Let a signal end the process with one line of text. Scripts call it before their imports.

    Nothing needs cleaning up at that time, and KeyboardInterrupt would leave half-imported modules.
    """
    for number in NUMBERS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _end_now)


def _end_now(number: int, frame: FrameType | None = None) -> None:
    with contextlib.suppress(OSError):
        os.write(2, f"{_reason(number)}; nothing was begun\n".encode())
    os._exit(128 + number)


def as_command(main: Callable[[], int]) -> int:
    """Run a script's main function and ignore signals after it, while the process ends."""
    ending = Interrupts()
    ending.received, ending._since = signal.SIGINT, math.inf
    for number in NUMBERS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, ending.handle)
    atexit.register(_ignore)  # Python restores the default handlers shortly before it exits
    try:
        return until_closed(main)
    finally:
        ending._since = time.monotonic()


@contextlib.contextmanager
def keep_handlers() -> Iterator[None]:
    """Restore our signal handlers after the start of Ray, which installs its own for SIGTERM.

    A SIGTERM that Ray's handler receives in between, and answers with SystemExit, is handled as any other.
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
    """Raise KeyboardInterrupt if a signal was received: other code may have caught the first one."""
    if _current and _current[-1].received is not None:
        raise KeyboardInterrupt


def interrupt_main_thread() -> None:
    """Interrupt the main thread from another one, even if SIGINT is ignored (as in a background job)."""
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
    """Redirect output to /dev/null if the terminal is gone: writing would raise during the clean-up."""
    for descriptor in (1, 2):
        try:
            os.write(descriptor, b"")
        except OSError:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, descriptor)
            os.close(null)
