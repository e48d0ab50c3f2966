"""Who is told of a session's course: the live line, Prometheus, copies for other tools."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from mipoison.defenses import ANCHORS
from study.runtime.progress import Progress
from study.session.monitoring import Monitor
from study.trial.spec import FinishedTrial, TrialSpec

Quality = tuple[float | None, float | None]
"""Least worst-case attack accuracy of the feasible settings, and hypervolume (shares); None: not known."""


@dataclass(frozen=True, kw_only=True)
class StudyProgress:
    """How far the trials are, anchors not counted.

    Attributes:
        planned: all of them, those of earlier runs included. done: finished, the failed ones included.
        failed: with a failed episode. running: started and not finished.
        quality: how good the settings are by now, None before there is anything to judge.
    """

    planned: int
    done: int
    failed: int
    running: int
    quality: Quality | None


class Callback:
    """Told of a session's course, in the driver's process. A method that is not overridden does nothing."""

    def on_start(self) -> None:
        """The session begins."""

    def on_resume(self, trials: Sequence[FinishedTrial]) -> None:
        """These trials, anchors included, were finished by earlier runs."""

    def on_anchors_started(self, names: Sequence[str], seeds: int) -> None:
        """Models of so many seeds are prepared now, then the named anchors run."""

    def on_anchors_progress(self, done: int, of: int) -> None:
        """So many of the scenes and anchors are done."""

    def on_anchor_finished(self, trial: FinishedTrial) -> None:
        """The records of an anchor were written."""

    def on_trials_started(self, progress: StudyProgress, max_concurrent: int) -> None:
        """The anchors are there; trials begin, so many at once."""

    def on_trial_started(self, spec: TrialSpec, progress: StudyProgress) -> None:
        """A trial was handed to the executor."""

    def on_trial_finished(self, trial: FinishedTrial, progress: StudyProgress) -> None:
        """The records of a trial were written, of a failed one too."""

    def on_end(self) -> None:
        """The session ends, however it does."""


class LiveLine(Callback):
    """Shows a person what happens."""

    def __init__(self, progress: Progress) -> None:
        self._line = progress

    def on_start(self) -> None:
        self._line.__enter__()

    def on_anchors_started(self, names: Sequence[str], seeds: int) -> None:
        self._line.stage(
            f"preparing victims, evaluators and substitutes of {seeds} seeds; "
            f"then the anchors: {', '.join(names)}"
        )

    def on_anchors_progress(self, done: int, of: int) -> None:
        self._line.part(done, of)

    def on_trials_started(self, progress: StudyProgress, max_concurrent: int) -> None:
        self._line.begin(progress.planned, progress.done, progress.failed, max_concurrent)
        if progress.quality is not None:
            self._line.quality(*progress.quality)

    def on_trial_finished(self, trial: FinishedTrial, progress: StudyProgress) -> None:
        self._line.finished(trial.seconds, trial.failed)
        self._line.quality(*(progress.quality or (None, None)))

    def on_end(self) -> None:
        self._line.__exit__(None, None, None)


class Metrics(Callback):
    """Reports what was recorded to a monitor (Prometheus), so that its counters equal the records."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor

    def on_resume(self, trials: Sequence[FinishedTrial]) -> None:
        for trial in trials:
            self._monitor.finished(trial.rows)

    def on_anchor_finished(self, trial: FinishedTrial) -> None:
        self._count(trial)

    def on_trials_started(self, progress: StudyProgress, max_concurrent: int) -> None:
        self._show(progress)

    def on_trial_started(self, spec: TrialSpec, progress: StudyProgress) -> None:
        self._show(progress)

    def on_trial_finished(self, trial: FinishedTrial, progress: StudyProgress) -> None:
        self._count(trial)
        self._show(progress)

    def _count(self, trial: FinishedTrial) -> None:
        made, reused = (int(trial.outcome.get(f"artifacts_{what}") or 0) for what in ("made", "reused"))
        self._monitor.finished(trial.rows, made, reused)

    def _show(self, progress: StudyProgress) -> None:
        if progress.quality is not None:
            self._monitor.quality(*progress.quality)
        self._monitor.trials(progress.planned, progress.done, progress.failed, progress.running)


class Listener(Protocol):
    """What keeps a copy of finished trials, for instance :class:`study.tracking.Trackers`."""

    def finished(self, done: FinishedTrial) -> None: ...


class Tracking(Callback):
    """Passes the finished trials of the search, anchors left out, to the copies for other tools."""

    def __init__(self, trackers: Listener) -> None:
        self._trackers = trackers

    def on_resume(self, trials: Sequence[FinishedTrial]) -> None:
        for trial in trials:
            if trial.trial not in ANCHORS:
                self._trackers.finished(trial)

    def on_trial_finished(self, trial: FinishedTrial, progress: StudyProgress) -> None:
        self._trackers.finished(trial)
