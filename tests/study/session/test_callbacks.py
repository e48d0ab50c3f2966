"""Callbacks of the loop: the progress line, the monitor's counters, the trackers."""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import Any

from rich.console import Console

from study.records.constraints import Constraints
from study.runtime.progress import Progress
from study.session.callbacks import Callback, LiveLine, Metrics, StudyProgress, Tracking
from study.session.monitoring import Monitor, Record
from study.session.quality import Least, Quality
from study.trial.spec import FinishedTrial, TrialSpec

FIRST = Quality(0.5)
SECOND = Quality(0.4, 0.1, Least(0.3, 0.02), Least(0.7, 0.05))
ROW = {"status": "ok", "defense": "noise", "attack": "passive", "seed": 0}
ANCHOR = FinishedTrial("none", "none", {}, [ROW], {"artifacts_made": 3.0, "artifacts_reused": 1.0})
TRIAL = FinishedTrial(
    "t0001-noise", "noise", {"budget": 0.1}, [ROW, ROW | {"status": "failed"}], {"artifacts_made": 2.0}
)
SPEC = TrialSpec(
    study="s",
    constraints=Constraints().flat(),
    trial="t0001-noise",
    attempt=0,
    defense="noise",
    knobs={},
    attackers=(),
    scenes=(),
    root="unused",
    data_root=None,
)


def progress(done: int, running: int, quality: Quality | None = None) -> StudyProgress:
    return StudyProgress(planned=4, done=done, failed=done, running=running, quality=quality)


def tell(callback: Callback) -> None:
    """Call a callback as a loop does that runs the second trial of a resumed study."""
    callback.on_start()
    callback.on_resume([ANCHOR, TRIAL])
    callback.on_anchors_started(["label-only"], 2)
    callback.on_anchors_progress(1, 3)
    callback.on_anchor_finished(ANCHOR)
    callback.on_trials_started(progress(1, 0, FIRST), 2)
    callback.on_trial_started(SPEC, progress(1, 1))
    callback.on_trial_finished(TRIAL, progress(2, 0, SECOND))
    callback.on_end()


class Counting(Monitor):
    """Records the calls."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, int, int]] = []
        self.states: list[tuple[int, ...]] = []
        self.qualities: list[Quality] = []

    def finished(self, rows: Iterable[Record], made: int = 0, reused: int = 0) -> None:
        self.rows.append((len(list(rows)), made, reused))

    def trials(self, planned: int, done: int, failed: int, running: int) -> None:
        self.states.append((planned, done, failed, running))

    def quality(self, quality: Quality) -> None:
        self.qualities.append(quality)


def test_a_callback_that_overrides_nothing_does_nothing() -> None:
    callback = Callback()
    tell(callback)
    assert vars(callback) == {}
    methods = {name for name in vars(Callback) if name.startswith("on_")}
    assert methods == {name for name in tell.__code__.co_names if name.startswith("on_")}


def test_the_live_line_is_printed_once_a_trial_where_there_is_no_terminal() -> None:
    out = io.StringIO()
    tell(LiveLine(Progress(Console(file=out, width=200)), shared_classes=False))
    lines = out.getvalue().splitlines()
    assert lines[0] == (
        "preparing victims, evaluators and substitutes of 2 seeds; then the anchors: label-only"
    )
    assert [line.partition(" |")[0] for line in lines[1:]] == [
        "1/4 done, 1 failed",
        "1/4 done, 1 failed",
        "2/4 done, 2 failed",
    ]
    assert "0.400" in lines[-1]
    assert "0.100" in lines[-1]
    assert "least excess leakage 0.300 (distortion 0.02)" in lines[-1]
    assert "identification" not in lines[-1]


def test_where_the_classes_are_shared_the_line_shows_identification_and_no_attack_accuracy() -> None:
    out = io.StringIO()
    tell(LiveLine(Progress(Console(file=out, width=200)), shared_classes=True))
    line = out.getvalue().splitlines()[-1]
    assert "identification AUC 0.700 (distortion 0.05)" in line
    assert "accuracy" not in line


def test_the_monitor_counts_what_was_recorded_once() -> None:
    monitor = Counting()
    tell(Metrics(monitor))
    assert monitor.rows == [
        (1, 0, 0),
        (2, 0, 0),
        (1, 3, 1),
        (2, 2, 0),
    ]  # artifacts of earlier runs are not counted
    assert monitor.states == [(4, 1, 1, 0), (4, 1, 1, 1), (4, 2, 2, 0)]
    assert monitor.qualities == [FIRST, SECOND]


def test_copies_for_other_tools_have_no_anchors() -> None:
    class Kept:
        def __init__(self) -> None:
            self.trials: list[Any] = []

        def finished(self, done: FinishedTrial) -> None:
            self.trials.append(done)

    kept = Kept()
    tell(Tracking(kept))
    assert kept.trials == [TRIAL, TRIAL]
