"""The live line: a bar and the time left while something long is prepared; one line outside a terminal."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from study import progress as module
from study.progress import Progress
from study.reporting.tables import time_left


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
        assert progress._live is not None
        with console.capture() as capture:
            console.print(progress._live.get_renderable())
    text = capture.get()
    assert "preparing" in text
    assert "1/4 | 90 s left" in text.replace("\n", " ")
    assert text.count("━") == 10


def test_elsewhere_a_stage_is_one_line() -> None:
    sink = io.StringIO()
    with Progress(Console(file=sink)) as progress:
        progress.stage("preparing")
        for i in range(4):
            progress.part(i, 4)
    assert sink.getvalue() == "preparing\n"


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, "- left"), (7.4, "7 s left"), (600.0, "10 min left"), (7200.0, "2.0 h left")]
)
def test_time_left_in_words(seconds: float | None, text: str) -> None:
    assert time_left(seconds) == text
