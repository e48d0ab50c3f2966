"""Callbacks of the trial loop: the live progress line, Prometheus metrics, copies for other tools."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from mipoison.defenses import ANCHORS
from study.records.status import PRUNED
from study.runtime.progress import Progress
from study.session.monitoring import Monitor
from study.session.quality import Quality
from study.trial.spec import FinishedTrial, TrialSpec


@dataclass(frozen=True, kw_only=True)
class StudyProgress:
    """How many trials are in which state, not counting the anchors.

    Attributes:
        planned: all trials, including those of earlier runs.
        done: finished trials, including failed ones.
        failed: trials with a failed episode.
        running: trials that have started and not finished.
        quality: how good the settings are so far; None before the first result.
    """

    planned: int
    done: int
    failed: int
    running: int
    quality: Quality | None


class Callback:
    """Called by the trial loop, in the driver's process. A method that is not overridden does nothing."""

    def on_start(self) -> None:
        """The loop begins."""

    def on_resume(self, trials: Sequence[FinishedTrial]) -> None:
        """The study continues; earlier runs finished these trials, including anchors."""

    def on_anchors_started(self, names: Sequence[str], seeds: int) -> None:
        """The executor prepares the models of this many seeds, then runs the named anchors."""

    def on_anchors_progress(self, done: int, of: int) -> None:
        """``done`` of ``of`` scenes and anchors are finished."""

    def on_anchor_finished(self, trial: FinishedTrial) -> None:
        """The records of an anchor have been written."""

    def on_trials_started(self, progress: StudyProgress, max_concurrent: int) -> None:
        """The anchors are finished; trials begin, at most ``max_concurrent`` at a time."""

    def on_trial_started(self, spec: TrialSpec, progress: StudyProgress) -> None:
        """A trial was passed to the executor."""

    def on_trial_finished(self, trial: FinishedTrial, progress: StudyProgress) -> None:
        """The records of a trial have been written; a failed trial has records, too."""

    def on_end(self) -> None:
        """The loop ends, normally or with an exception."""


class LiveLine(Callback):
    """Shows the progress on the console.

    Args:
        shared_classes: whether attacker and victim know the same classes, so that the line shows how well
            images are identified, and not attack accuracy.
        what: what is done with the trials; stands before their counts.
    """

    def __init__(self, progress: Progress, *, shared_classes: bool, what: str = "") -> None:
        self._line, self._shared_classes, self._what = progress, shared_classes, what

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
        self._line.begin(progress.planned, progress.done, progress.failed, max_concurrent, self._what)
        if progress.quality is not None:
            self._line.quality(self._text(progress.quality))

    def on_trial_finished(self, trial: FinishedTrial, progress: StudyProgress) -> None:
        self._line.finished(trial.seconds, trial.failed)
        self._line.quality(self._text(progress.quality or Quality()))

    def on_end(self) -> None:
        self._line.__exit__(None, None, None)

    def _text(self, quality: Quality) -> str:
        return quality.text(shared_classes=self._shared_classes)


class Metrics(Callback):
    """Reports written records to a monitor (Prometheus), so that its counters equal the records.

    Of a setting that was screened the episodes that were not run are not counted: they may run later, and its
    others are counted once.
    """

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor
        self._counted: dict[str, set[tuple[str, int]]] = {}

    def on_resume(self, trials: Sequence[FinishedTrial]) -> None:
        for trial in trials:
            self._monitor.finished(self._new(trial))

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
        self._monitor.finished(self._new(trial), made, reused)

    def _new(self, trial: FinishedTrial) -> list[dict[str, Any]]:
        """The rows to count."""
        before = self._counted.pop(trial.trial, set())
        rows = [r for r in trial.rows if (r["attack"], r["seed"]) not in before]
        if any(r.get("screened") for r in rows):
            rows = [r for r in rows if r["status"] != PRUNED]
            self._counted[trial.trial] = {(r["attack"], r["seed"]) for r in rows}
        return rows

    def _show(self, progress: StudyProgress) -> None:
        if progress.quality is not None:
            self._monitor.quality(progress.quality)
        self._monitor.trials(progress.planned, progress.done, progress.failed, progress.running)


class Listener(Protocol):
    """Keeps a copy of finished trials, for instance :class:`study.tracking.Trackers`."""

    def finished(self, done: FinishedTrial) -> None: ...


class Tracking(Callback):
    """Passes finished trials, without the anchors, to the trackers of other tools."""

    def __init__(self, trackers: Listener) -> None:
        self._trackers = trackers

    def on_resume(self, trials: Sequence[FinishedTrial]) -> None:
        for trial in trials:
            if trial.trial not in ANCHORS:
                self._trackers.finished(trial)

    def on_trial_finished(self, trial: FinishedTrial, progress: StudyProgress) -> None:
        self._trackers.finished(trial)
