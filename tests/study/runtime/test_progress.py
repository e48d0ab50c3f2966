"""The progress line: a bar and the time left in a terminal, single lines elsewhere."""

from __future__ import annotations

import contextlib
import io
import signal

import pytest
from rich.console import Console

from study.runtime import progress as module
from study.runtime.progress import Progress, loading, time_left
from study.runtime.signals import interruptible


class Clock:
    now = 100.0

    def monotonic(self) -> float:
        return self.now


def test_a_stage_s_time_left_is_that_of_its_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    with Progress(console) as progress:
        progress.stage("preparing")
        progress.part(0, 4)
        clock.now += 30
        progress.part(1, 4)
        text = str(progress._render())
    assert "preparing" in text
    assert "1/4 | 90 s left" in text.replace("\n", " ")
    assert text.count("━") == 10


def test_the_time_left_goes_on_while_a_part_takes_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    with Progress(Console(file=io.StringIO(), force_terminal=True, width=100)) as progress:
        progress.stage("preparing")
        clock.now += 10
        progress.part(1, 4)
        shown = []
        for seconds in (0, 10, 30):
            clock.now += seconds
            shown.append(str(progress._render()).rpartition("| ")[2])
        assert shown == ["30 s left", "20 s left", "50 s so far"]
        progress.begin(3, 0, 0, 1)
        assert "0/3 done" in str(progress._render())


def test_elsewhere_a_stage_is_one_line() -> None:
    sink = io.StringIO()
    with Progress(Console(file=sink)) as progress:
        progress.stage("preparing")
        for i in range(4):
            progress.part(i, 4)
    assert sink.getvalue() == "preparing\n"


def test_a_log_hears_of_a_long_stage_about_every_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, sink = Clock(), io.StringIO()
    monkeypatch.setattr(module, "time", clock)
    with Progress(Console(file=sink)) as progress:
        progress.stage("preparing")
        for i in range(13):  # two minutes
            progress.part(i, 12)
            clock.now += 10
        progress.part(0, 0)
    assert sink.getvalue().splitlines() == [
        "preparing",
        "6 of 12 parts | 60 s left",
        "12 of 12 parts | 0 s left",
    ]


def test_a_log_may_hear_of_a_stage_more_often_and_lines_in_between(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, sink = Clock(), io.StringIO()
    monkeypatch.setattr(module, "time", clock)
    with Progress(Console(file=sink), silent_s=10) as progress:
        progress.stage("asking")
        for i in range(1, 4):
            clock.now += 6
            progress.part(i, 4)
        progress.say("[busy]: the next try is in 4 s")
    assert sink.getvalue().splitlines() == [
        "asking",
        "2 of 4 parts | 12 s left",
        "[busy]: the next try is in 4 s",
    ]


def test_what_is_brief_is_shown_in_a_terminal_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The line starts and stops several times: before Ray, during the study, during the report."""
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    sink = io.StringIO()
    with Progress(Console(file=sink)) as progress:
        progress.brief("starting", 0, 2)
    assert sink.getvalue() == ""
    progress = Progress(Console(file=sink, force_terminal=True, width=100))
    for text in ("starting", "writing"):
        with progress:
            progress.brief(text, 0, 2)
            clock.now += 3
            progress.brief(text, 1, 2)
            assert progress._live is not None
            assert progress._live.is_started
    assert "writing" in sink.getvalue()
    assert "1/2 | 3 s left" in sink.getvalue()


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, "- left"), (7.4, "7 s left"), (600.0, "10 min left"), (7200.0, "2.0 h left")]
)
def test_time_left_in_words(seconds: float | None, text: str) -> None:
    assert time_left(seconds) == text


@pytest.mark.parametrize("terminal", [True, False])
def test_loading_is_shown_at_once_in_a_terminal_alone(terminal: bool) -> None:
    file = io.StringIO()
    with loading(Console(file=file, force_terminal=terminal, width=100)):
        shown = file.getvalue()
    assert ("loading PyTorch and the library" in shown) == terminal
    if not terminal:
        assert file.getvalue() == ""


def test_an_import_that_a_signal_disturbs_is_an_interrupt() -> None:
    console = Console(file=io.StringIO())
    with pytest.raises(ImportError), loading(console):
        raise ImportError("of its own")
    with interruptible() as interrupts:
        with contextlib.suppress(KeyboardInterrupt):
            interrupts.handle(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt), loading(console):
            raise ImportError("half imported")
