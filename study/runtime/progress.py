"""The progress line: trials done and failed, how good the settings are, time left."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from study.runtime.plain import NOTHING
from study.runtime.signals import raise_if_interrupted

BAR = 40
"""Width of the bar in characters."""


SILENT_S = 60.0
"""Seconds without a line after which a log, that is no terminal, gets one of a stage's parts."""


class Progress:
    """Shows progress: a line that is updated in place in a terminal; elsewhere a line for each stage and each
    finished trial, and one of a stage's parts about every minute.

    Args:
        console: where to print.
        silent_s: seconds without a line after which a log gets one of a stage's parts.
    """

    def __init__(self, console: Console, silent_s: float = SILENT_S) -> None:
        self.console, self._silent_s = console, silent_s
        self._total, self._done, self._failed, self._max_concurrent = 0, 0, 0, 1
        self._quality = "nothing measured yet"
        self._seconds: list[float] = []
        self._stage, self._began, self._what = "", time.monotonic(), ""
        self._parts: tuple[int, int, float] | None = None
        self._said = time.monotonic()
        self._searching = False
        self._live = (
            Live(console=console, refresh_per_second=2, transient=True, get_renderable=self._render)
            if console.is_terminal
            else None
        )

    def __enter__(self) -> Progress:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def stage(self, text: str) -> None:
        """Start a stage other than the trials, with the text that describes it."""
        self._stage, self._began, self._parts, self._searching = text, time.monotonic(), None, False
        if self._live:
            self._live.refresh()
        else:
            self.console.print(text, highlight=False, soft_wrap=True)
            self._said = time.monotonic()

    def say(self, text: str) -> None:
        """Print a line, in a terminal above the one that is updated."""
        self.console.print(text, highlight=False, soft_wrap=True, markup=False)

    def note(self, text: str, done: int, of: int) -> None:
        """Start one of several stages that share one bar and one estimate of the time left."""
        began = self._began if done else time.monotonic()
        self.stage(text)
        self._began = began
        self.part(done, of)

    def brief(self, text: str, done: int, of: int) -> None:
        """As :meth:`note`, for stages of a few seconds: nothing is printed unless in a terminal."""
        if self._live:
            self.note(text, done, of)

    def part(self, done: int, of: int) -> None:
        """``done`` of ``of`` parts of the stage are finished; a terminal shows a bar and the time left."""
        if not of:
            return
        now = time.monotonic()
        if self._live:
            self._parts = done, of, now
            self._live.refresh()
        elif now - self._said >= self._silent_s:
            so_far = now - self._began
            left = time_left(so_far * (of - done) / done if done else None)
            self.console.print(f"{done} of {of} parts | {left}", highlight=False, soft_wrap=True)
            self._said = now

    def _render(self) -> Text:
        """The text in a terminal; rich calls this twice a second, so that the time left counts down."""
        if self._searching:
            return Text(f"{_bar(self._done, self._total)}\n{self.line()}")
        if self._parts is None:
            return Text(self._stage)
        done, of, at = self._parts
        so_far = time.monotonic() - self._began
        left = (at - self._began) / done * of - so_far if done else None
        # A part takes longer than the earlier ones suggest: show the time spent instead of an estimate.
        when = f"{so_far:.0f} s so far" if left is not None and left < 0 else time_left(left)
        return Text(f"{self._stage}\n{_bar(done, of)} {done}/{of} | {when}")

    def begin(self, total: int, done: int, failed: int, max_concurrent: int, what: str = "") -> None:
        """The trials begin: their number, how many are done and failed, how many run at a time.

        Args:
            what: stands before the counts.
        """
        self._what, self._seconds = what, []
        self._total, self._done, self._failed, self._max_concurrent = (
            total,
            done,
            failed,
            max(1, max_concurrent),
        )
        self._searching = True
        self._show()

    def finished(self, seconds: float, failed: bool) -> None:
        """A trial finished after this many seconds."""
        self._done += 1
        self._failed += failed
        self._seconds.append(seconds)

    def quality(self, text: str) -> None:
        """Show how good the settings are so far."""
        self._quality = text
        self._show()

    def line(self) -> str:
        """The text of the line. Time left: median seconds per trial x remaining trials / trials at a time."""
        left = None
        if self._done >= self._total:
            left = 0.0
        elif self._seconds:
            left = statistics.median(self._seconds) * (self._total - self._done) / self._max_concurrent
        return self._what + progress_line(self._done, self._failed, self._total, self._quality, left)

    def _show(self) -> None:
        if self._live:
            self._live.refresh()
        else:
            self.console.print(self.line(), highlight=False, soft_wrap=True)


def busy(console: Console, text: str) -> Live:
    """A context in which a terminal shows the text, at once, and that something moves."""
    return Live(Spinner("dots", text), console=console, refresh_per_second=10, transient=True)


@contextmanager
def loading(console: Console) -> Iterator[None]:
    """Show in a terminal that imports take seconds.

    Entry scripts parse and check their arguments first, and import the rest inside this block. An import that
    a signal disturbed may fail with any error, which becomes KeyboardInterrupt.
    """
    with busy(console, "loading PyTorch and the library"):
        try:
            yield
        except Exception:
            raise_if_interrupted()
            raise


def _bar(done: int, of: int) -> str:
    filled = BAR * done // max(1, of)
    return "━" * filled + "─" * (BAR - filled)


def time_left(seconds: float | None) -> str:
    """A text like ``7 min left``, with a dash for an unknown time."""
    text = NOTHING
    if seconds is not None and math.isfinite(seconds):
        units = ((100, 1, "s"), (5400, 60, "min"), (math.inf, 3600, "h"))
        _, size, unit = next(u for u in units if seconds < u[0])
        text = f"{max(0.0, seconds) / size:.{1 if unit == 'h' else 0}f} {unit}"
    return f"{text} left"


def progress_line(done: int, failed: int, total: int, quality: str, seconds_left: float | None) -> str:
    """The progress line of a study; ``quality`` says how good its settings are."""
    return f"{done}/{total} done, {failed} failed | {quality} | {time_left(seconds_left)}"
