"""The loop over trials that the search, the anchors, the held-out seeds and the paper's tables all use."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from typing import Protocol

from mipoison.defenses import ANCHORS
from mipoison.storage.files import StorageError, storage_failure
from study.executors.base import Executor
from study.records.constraints import Constraints
from study.records.store import Records
from study.runtime import signals
from study.session.callbacks import Callback, StudyProgress
from study.session.lease import Lease
from study.session.quality import Quality, quality
from study.trial.failure import FailureKind, TrialFailure
from study.trial.run import Outcome, record_failure, record_trial
from study.trial.spec import FinishedTrial, TrialResult, TrialSpec


class TrialSearch(Protocol):
    """Chooses the trials to run and receives their results, as Optuna's ask-and-tell interface does.

    Attributes:
        records: the records of the trials. resumed: the trials that earlier runs finished.
    """

    records: Records
    resumed: Sequence[FinishedTrial]

    def missing_anchors(self) -> list[TrialSpec]:
        """The anchors to evaluate before the trials, each with all of its seeds."""
        ...

    def ask(self) -> TrialSpec | None:
        """The next trial, None if there are no more."""
        ...

    def tell(self, trial: FinishedTrial) -> None:
        """Receive a finished anchor or trial. A trial that is never passed here counts as unfinished."""
        ...

    def progress(self) -> StudyProgress:
        """How many trials are planned, done, failed and running."""
        ...


class TrialLoop:
    """Passes trials from a search to an executor, and their results to the search and the callbacks.

    A trial that fails because of its setting or its machine gets records with the error. A storage failure
    leaves the trial unfinished and ends the loop: the loop asks for no further trial, lets running ones
    finish, and raises StorageError. A resumed study runs unfinished trials again.

    Args:
        executor: runs the trials.
        callbacks: called in this order.
        lease: the loop ends when this lease is lost; None for no lease.
    """

    def __init__(
        self, executor: Executor, callbacks: Sequence[Callback] = (), lease: Lease | None = None
    ) -> None:
        self.executor, self.callbacks, self.lease = executor, list(callbacks), lease
        self._began: dict[str, float] = {}
        self._trouble: str | None = None

    def run(self, search: TrialSearch, n: int) -> None:
        """Evaluate the anchors that the search lacks, then up to n trials.

        Raises:
            StorageError: the storage failed or the lease was lost; trials without records stay unfinished.
            LostError: processes of the anchors were lost after all retries.
        """
        try:
            for callback in self.callbacks:
                callback.on_start()
            for callback in self.callbacks:
                callback.on_resume(search.resumed)
            self.evaluate_anchors(search)
            progress = search.progress()
            for callback in self.callbacks:
                callback.on_trials_started(progress, self.executor.max_concurrent)
            if n > 0:
                self.executor.search(
                    n, lambda: self.ask(search), lambda spec, end: self.tell(search, spec, end)
                )
        finally:
            for callback in self.callbacks:
                callback.on_end()
        reason = self._ended()
        if reason is not None:
            raise StorageError(reason)

    def evaluate_anchors(self, search: TrialSearch) -> None:
        """Run the missing anchors, their seeds in parallel; write all of them at the end, label-only first.

        Raises:
            StorageError, LostError: as for :meth:`run`; no anchor is recorded then.
        """
        anchors = {spec.trial: spec for spec in search.missing_anchors()}
        if not anchors:
            return
        scenes = next(iter(anchors.values())).scenes
        for callback in self.callbacks:
            callback.on_anchors_started(list(anchors), len(scenes))
        parts = [
            dataclasses.replace(spec, scenes=(scene,)) for spec in anchors.values() for scene in spec.scenes
        ]
        try:
            results = self.executor.anchors(parts, self._show_part)
        except Exception as error:
            reason = storage_failure(error)
            if reason is None:
                raise
            raise StorageError(reason) from error
        merged = {name: TrialResult([], {}) for name in anchors}
        for part, result in zip(parts, results, strict=True):
            whole = merged[part.trial]
            whole.records.extend(result.records)
            whole.count(result.made, result.reused)
            if part.scenes[0] == anchors[part.trial].scenes[0]:
                whole.pictures = result.pictures
        raw = [
            record
            for name in ANCHORS
            for record in (merged[name].records if name in merged else search.records.read_trial(name))
        ]
        for name, spec in anchors.items():
            trial = self._finished(search, spec, record_trial(spec, merged[name], raw))
            search.tell(trial)
            for callback in self.callbacks:
                callback.on_anchor_finished(trial)

    def ask(self, search: TrialSearch) -> TrialSpec | None:
        """The search's next trial, None if there are no more or the loop ends."""
        if self._ended() is not None:
            return None
        signals.raise_if_interrupted()
        spec = search.ask()
        if spec is not None:
            self._began[spec.trial] = time.monotonic()
            progress = search.progress()
            for callback in self.callbacks:
                callback.on_trial_started(spec, progress)
        return spec

    def tell(self, search: TrialSearch, spec: TrialSpec, end: Outcome | TrialFailure) -> None:
        """Receive the result of a trial that :meth:`ask` returned."""
        if isinstance(end, TrialFailure):
            if end.kind is FailureKind.STORAGE:
                self._trouble = self._trouble or end.message
                return
            end = record_failure(spec, end)
        trial = self._finished(search, spec, end)
        search.tell(trial)
        progress = search.progress()
        for callback in self.callbacks:
            callback.on_trial_finished(trial, progress)

    def _ended(self) -> str | None:
        """Why no further trial may start; None while trials may start."""
        return self._trouble or (self.lease.lost if self.lease else None)

    def _show_part(self, done: int, of: int) -> None:
        for callback in self.callbacks:
            callback.on_anchors_progress(done, of)

    def _finished(self, search: TrialSearch, spec: TrialSpec, outcome: Outcome) -> FinishedTrial:
        began = self._began.pop(spec.trial, None)
        return FinishedTrial(
            trial=spec.trial,
            defense=spec.defense,
            knobs=spec.knobs,
            rows=search.records.read_trial(spec.trial, spec.attempt),
            outcome=outcome,
            seconds=0.0 if began is None else time.monotonic() - began,
        )


class FixedTrials:
    """A search that returns given trials in order.

    Args:
        records: the records of the trials. anchors, trials: what to run.
    """

    def __init__(self, records: Records, anchors: Sequence[TrialSpec], trials: Sequence[TrialSpec]) -> None:
        self.records = records
        self.resumed: Sequence[FinishedTrial] = ()
        self._anchors, self._trials = list(anchors), list(trials)
        self._asked = self._done = self._failed = 0
        self._quality: Quality | None = None

    def missing_anchors(self) -> list[TrialSpec]:
        return self._anchors

    def ask(self) -> TrialSpec | None:
        if self._asked == len(self._trials):
            return None
        self._asked += 1
        return self._trials[self._asked - 1]

    def tell(self, trial: FinishedTrial) -> None:
        if trial.trial not in ANCHORS:
            self._done += 1
            self._failed += trial.failed
            self._quality = quality({trial.trial: trial.outcome}, None, Constraints(max_accuracy_drop=1.0))

    def progress(self) -> StudyProgress:
        """The quality is that of the latest trial alone, as the given settings need not form one frontier."""
        return StudyProgress(
            planned=len(self._trials),
            done=self._done,
            failed=self._failed,
            running=self._asked - self._done,
            quality=self._quality,
        )
