"""Trials as Ray Tune runs them: what one does, and the searcher that hands them out and hears of their end.

Retries are counted here, not by Tune: it gives up at once on a trial whose node died before its first step (a
kept actor on a lost node, for one), whatever its ``max_failures``.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import time
from collections import Counter
from pathlib import Path
from typing import Any

from ray.train.v2.api.exceptions import TrainingFailedError
from ray.tune import Callback
from ray.tune.search import Searcher

from study.executors.base import Ask, Tell
from study.executors.losses import RETRIES, Loss, failure_of, loss_of
from study.executors.worker_group import WorkerGroup, trial_loop
from study.trial.failure import FailureKind, TrialFailure
from study.trial.run import Outcome, run_and_record
from study.trial.spec import TrialSpec

log = logging.getLogger(__name__)

RETRY_WAIT_S = 5
NO_OUTCOME = TrialFailure(kind=FailureKind.MACHINE, message="the trial's process was lost")
"""A process that ended in order and has nothing to tell."""


def trainable(config: dict[str, Any]) -> dict[str, Any]:
    """A Tune trial: the worker function itself, or a Train run of it.

    What came of it is reported as JSON: Tune flattens nested results before the searcher sees them.
    """
    spec, worker_group = TrialSpec(**config["spec"]), WorkerGroup(**config["worker_group"])
    for tries in range(1 + RETRIES):
        try:
            if worker_group.workers == 0:
                return reported(run_and_record(spec))
            return reported(worker_group.train(trial_loop, {"spec": config["spec"]}, spec.trial))
        except (OSError, TrainingFailedError) as error:  # a lost worker, a storage that is away for a while
            failure = failure_of(error)
            if tries < RETRIES:
                time.sleep(RETRY_WAIT_S)
        except Exception as error:  # raising would cost the actor, and its warm caches
            failure = failure_of(error)
            break
    return reported(failure)


def reported(end: Outcome | TrialFailure) -> dict[str, Any]:
    """What a Tune trial returns: its outcome, or its failure."""
    if isinstance(end, TrialFailure):
        return {"failure": json.dumps(end.plain()), "done": True}
    return {"outcome": json.dumps(end), "done": True}


def read_report(result: dict[str, Any] | None) -> Outcome | TrialFailure | None:
    """The inverse of :func:`reported`; None where the process ended without a report."""
    found = result or {}
    if found.get("failure"):
        return TrialFailure.from_plain(json.loads(found["failure"]))
    if "outcome" not in found:
        return None
    outcome: Outcome | None = json.loads(found["outcome"] or "null")
    return NO_OUTCOME if outcome is None else outcome


class TrialErrors(Callback):
    """Keeps Tune's list of trials, to look up why one was lost: its searcher is not told."""

    def __init__(self) -> None:
        self._trials: list[Any] = []

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        self._trials = trials

    def of(self, trial_id: str) -> str:
        """What Ray says of a trial that failed, '' if nothing."""
        for trial in reversed(self._trials):
            if trial.trial_id == trial_id:
                # The local file: the trial's own accessor reads a copy that is made later.
                path = trial.error_file
                return Path(path).read_text() if path and Path(path).exists() else ""
        return ""


class TuneSearcher(Searcher):
    """Tune's searcher: asks the study's search for the next trial, and tells it the outcome.

    Ray's OptunaSearch would own the Optuna study; here the same search serves every executor, is taught from
    Parquet, and a missing or non-finite objective is a failed trial instead of the end of the run.

    Args:
        n: trials to ask for; a lost trial that is started again is still one of them.
    """

    def __init__(
        self, ask: Ask, tell: Tell, worker_group: WorkerGroup, n: int, errors: TrialErrors | None = None
    ) -> None:
        super().__init__(metric=None, mode=None)
        self._ask, self._tell, self._worker_group, self._left = ask, tell, dataclasses.asdict(worker_group), n
        self._errors = errors or TrialErrors()
        self._specs: dict[str, TrialSpec] = {}
        self._again: list[TrialSpec] = []
        self._losses: Counter[tuple[str, bool]] = Counter()

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]
        if self._again:
            spec: TrialSpec | None = self._again.pop(0)
        else:
            spec = self._ask() if self._left > 0 else None
            self._left = 0 if spec is None else self._left - 1
        if spec is None:  # a running trial may be lost yet, and come back
            return None if self._specs else Searcher.FINISHED
        self._specs[trial_id] = spec
        return {"spec": dataclasses.asdict(spec), "worker_group": self._worker_group}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        spec = self._specs.pop(trial_id, None)
        if spec is None:
            return
        end = None if error else read_report(result)
        if end is not None:
            self._tell(spec, end)
            return
        loss = loss_of(self._errors.of(trial_id))
        kind = (spec.trial, loss is Loss.NODE)
        self._losses[kind] += 1
        if self._losses[kind] <= loss.retries:
            log.warning("trial %s: %s; started again", spec.trial, loss.value)
            self._again.append(spec)
        else:
            self._tell(spec, loss.failure())

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its searcher into a snapshot that is never read: the records are the state."""
        return {"n": self._left}

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the records are the state."""
        Path(checkpoint_path).touch()

    def restore(self, checkpoint_path: str) -> None:
        raise RuntimeError("a study is resumed from its records with --resume")
