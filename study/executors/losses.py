"""What Ray says of processes that were lost; the one place where the texts of its messages are read."""

from __future__ import annotations

from enum import StrEnum

from ray.train.v2.api.exceptions import TrainingFailedError

from study.trial.failure import FailureKind, TrialFailure

RETRIES = 3
"""Times that a trial whose process died is started again; finished episodes are not repeated."""
NODE_RETRIES = 30
"""The same where its machine went: that says nothing of the trial, and spot machines go often."""


class Loss(StrEnum):
    """How a trial's process was lost; the value is the sentence that records and messages show."""

    NODE = "the trial's node was lost"
    MEMORY = "out of memory: Ray ended the trial's process, since its node was running low on memory"
    PROCESS = "the trial's process was lost (killed, or out of memory)"

    @property
    def retries(self) -> int:
        """Times that a trial is started again after such a loss."""
        return NODE_RETRIES if self is Loss.NODE else RETRIES

    def failure(self) -> TrialFailure:
        """The end of a trial that was lost so more often than it is started again."""
        return TrialFailure(kind=FailureKind.MACHINE, message=f"{self.value}; {1 + self.retries} times")


def loss_of(text: str) -> Loss:
    """The kind of loss, from what Ray says at length."""
    low = text.lower()
    if "running low on memory" in low or "outofmemory" in low:
        return Loss.MEMORY
    if any(words in low for words in ("its node has died", "its node was", "node it was running on is dead")):
        return Loss.NODE
    return Loss.PROCESS


def failure_of(error: Exception) -> TrialFailure:
    """The failure behind what a trial raised where Ray runs it.

    Train wraps what its workers raise: a storage failure among that is one, all else a lost worker.
    """
    failure = TrialFailure.of(error)
    if isinstance(error, TrainingFailedError) and failure.kind is FailureKind.SETTING:
        return TrialFailure(kind=FailureKind.MACHINE, message=failure.message)
    return failure
