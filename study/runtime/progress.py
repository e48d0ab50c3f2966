"""The live line: trials done and failed, best worst case, hypervolume, time left."""

from __future__ import annotations

import math
import statistics
import time
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.text import Text

from study.runtime.plain import NOTHING, number

BAR = 40
"""Characters of the bar."""


class Progress:
    """A line that is rewritten in a terminal, and printed once per finished trial elsewhere.

    Args:
        console: where to.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self._total, self._done, self._failed, self._max_concurrent = 0, 0, 0, 1
        self._best: float | None = None
        self._volume: float | None = None
        self._seconds: list[float] = []
        self._stage, self._began = "", time.monotonic()
        self._parts: tuple[int, int, float] | None = None
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
        """Say what is going on before the trials."""
        self._stage, self._began, self._parts, self._searching = text, time.monotonic(), None, False
        if self._live:
            self._live.refresh()
        else:
            self.console.print(text, highlight=False, soft_wrap=True)

    def note(self, text: str, done: int, of: int) -> None:
        """A stage of several, all of which are timed together."""
        began = self._began if done else time.monotonic()
        self.stage(text)
        self._began = began
        self.part(done, of)

    def brief(self, text: str, done: int, of: int) -> None:
        """As :meth:`note`, of what takes seconds: elsewhere than in a terminal nothing is printed."""
        if self._live:
            self.note(text, done, of)

    def part(self, done: int, of: int) -> None:
        """So many parts of the stage are done: a bar and the time left, in a terminal."""
        if self._live and of:
            self._parts = done, of, time.monotonic()
            self._live.refresh()

    def _render(self) -> Text:
        """What a terminal shows now; asked for twice a second: the time left goes on between parts."""
        if self._searching:
            return Text(f"{_bar(self._done, self._total)}\n{self.line()}")
        if self._parts is None:
            return Text(self._stage)
        done, of, at = self._parts
        so_far = time.monotonic() - self._began
        left = (at - self._began) / done * of - so_far if done else None
        # A part that takes longer than those before it: no time left would be true.
        when = f"{so_far:.0f} s so far" if left is not None and left < 0 else time_left(left)
        return Text(f"{self._stage}\n{_bar(done, of)} {done}/{of} | {when}")

    def begin(self, total: int, done: int, failed: int, max_concurrent: int) -> None:
        """The search begins: trials in all, already done and failed, at once."""
        self._total, self._done, self._failed, self._max_concurrent = (
            total,
            done,
            failed,
            max(1, max_concurrent),
        )
        self._searching = True
        self._show()

    def finished(self, seconds: float, failed: bool) -> None:
        """A trial ended after so many seconds."""
        self._done += 1
        self._failed += failed
        self._seconds.append(seconds)

    def quality(self, best: float | None, hypervolume: float | None) -> None:
        """Shares: best worst-case attack accuracy of feasible settings, and the frontier's hypervolume."""
        self._best, self._volume = best, hypervolume
        self._show()

    def line(self) -> str:
        """The line's text; time left: the median trial's times those to come, over the trials at once."""
        left = None
        if self._done >= self._total:
            left = 0.0
        elif self._seconds:
            left = statistics.median(self._seconds) * (self._total - self._done) / self._max_concurrent
        return progress_line(self._done, self._failed, self._total, self._best, self._volume, left)

    def _show(self) -> None:
        if self._live:
            self._live.refresh()
        else:
            self.console.print(self.line(), highlight=False, soft_wrap=True)


def _bar(done: int, of: int) -> str:
    filled = BAR * done // max(1, of)
    return "━" * filled + "─" * (BAR - filled)


def time_left(seconds: float | None) -> str:
    """``7 min left``; a dash for what is not known yet."""
    text = NOTHING
    if seconds is not None and math.isfinite(seconds):
        units = ((100, 1, "s"), (5400, 60, "min"), (math.inf, 3600, "h"))
        _, size, unit = next(u for u in units if seconds < u[0])
        text = f"{max(0.0, seconds) / size:.{1 if unit == 'h' else 0}f} {unit}"
    return f"{text} left"


def progress_line(
    done: int,
    failed: int,
    total: int,
    best_worst_accuracy: float | None,
    hypervolume: float | None,
    seconds_left: float | None,
) -> str:
    """The live line of a study; what is not known yet shows as a dash."""
    best, volume = (number(math.nan if v is None else v, ".3f") for v in (best_worst_accuracy, hypervolume))
    counts = f"{done}/{total} done, {failed} failed"
    quality = f"lowest worst-case attack accuracy {best} | hypervolume {volume}"
    return f"{counts} | {quality} | {time_left(seconds_left)}"
