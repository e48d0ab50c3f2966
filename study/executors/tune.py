"""The trainable that Ray Tune runs for each trial, and the searcher that connects Tune to the study.

Lost trials are retried here rather than by Tune: whatever ``max_failures`` says, Tune gives up at once on a
trial whose node died before the trial's first step, for instance on a reused actor.
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
"""The failure of a trial whose process ended normally but reported no outcome."""


def trainable(config: dict[str, Any]) -> dict[str, Any]:
    """The function that Tune runs for a trial: runs it in this process, or as a Train run with workers.

    The outcome is reported as JSON, because Tune flattens nested results before the searcher sees them.
    """
    spec, worker_group = TrialSpec(**config["spec"]), WorkerGroup(**config["worker_group"])
    for tries in range(1 + RETRIES):
        try:
            if worker_group.workers == 0:
                return reported(run_and_record(spec))
            return reported(worker_group.train(trial_loop, {"spec": config["spec"]}, spec.trial))
        except (OSError, TrainingFailedError) as error:  # a lost worker, or a temporary storage failure
            failure = failure_of(error)
            if tries < RETRIES:
                time.sleep(RETRY_WAIT_S)
        except Exception as error:  # not raised: Tune would stop the actor and lose its cached scenes
            failure = failure_of(error)
            break
    return reported(failure)


def reported(end: Outcome | TrialFailure) -> dict[str, Any]:
    """An outcome or a failure in the form that a Tune trial returns."""
    if isinstance(end, TrialFailure):
        return {"failure": json.dumps(end.plain()), "done": True}
    return {"outcome": json.dumps(end), "done": True}


def read_report(result: dict[str, Any] | None) -> Outcome | TrialFailure | None:
    """The inverse of :func:`reported`; None if the process ended without a report."""
    found = result or {}
    if found.get("failure"):
        return TrialFailure.from_plain(json.loads(found["failure"]))
    if "outcome" not in found:
        return None
    outcome: Outcome | None = json.loads(found["outcome"] or "null")
    return NO_OUTCOME if outcome is None else outcome


class TrialErrors(Callback):
    """Looks up Tune's error message of a trial: Tune does not pass it to the searcher."""

    def __init__(self) -> None:
        self._trials: list[Any] = []

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        self._trials = trials

    def of(self, trial_id: str) -> str:
        """Tune's error message for a failed trial, '' if there is none."""
        for trial in reversed(self._trials):
            if trial.trial_id == trial_id:
                # The local file: the trial's own accessor reads a copy that Tune makes later.
                path = trial.error_file
                return Path(path).read_text() if path and Path(path).exists() else ""
        return ""


class TuneSearcher(Searcher):
    """A Tune searcher that gets trials from the study's search and passes their outcomes back.

    Ray's OptunaSearch is not used because it owns its Optuna study. Here one search serves every executor and
    is restored from Parquet, and a missing or non-finite objective fails one trial, not the run.

    Args:
        n: how many trials to ask for; a lost trial that is run again counts once.
    """

    def __init__(
        self, ask: Ask, tell: Tell, worker_group: WorkerGroup, n: int, errors: TrialErrors | None = None
    ) -> None:
        super().__init__(metric=None, mode=None)
        self._ask, self._tell, self._worker_group, self._left = ask, tell, dataclasses.asdict(worker_group), n
        self._errors = errors or TrialErrors()
        self._specs: dict[str, TrialSpec] = {}
        self._to_retry: list[TrialSpec] = []
        self._losses: Counter[tuple[str, bool]] = Counter()

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]
        if self._to_retry:
            spec: TrialSpec | None = self._to_retry.pop(0)
        else:
            spec = self._ask() if self._left > 0 else None
            self._left = 0 if spec is None else self._left - 1
        if spec is None:  # None, not FINISHED, while trials run: a lost one will be suggested again
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
            self._to_retry.append(spec)
        else:
            self._tell(spec, loss.failure())

    def __getstate__(self) -> dict[str, Any]:
        """Almost nothing is pickled: Tune's snapshot is never read, as a study resumes from its records."""
        return {"n": self._left}

    def save(self, checkpoint_path: str) -> None:
        """Write an empty file: a study resumes from its records, not from Tune's checkpoint."""
        Path(checkpoint_path).touch()

    def restore(self, checkpoint_path: str) -> None:
        raise RuntimeError("a study is resumed from its records with --resume")
