"""Classify Ray's messages about lost processes. No other module reads the text of Ray's messages."""

from __future__ import annotations

from enum import StrEnum

from ray.train.v2.api.exceptions import TrainingFailedError

from study.trial.failure import FailureKind, TrialFailure

RETRIES = 3
"""How often a trial is restarted after its process died; finished episodes are not repeated."""
NODE_RETRIES = 30
"""How often a trial is restarted after its node was lost: spot machines are taken away often, whatever the
trial does."""


class Loss(StrEnum):
    """How a trial's process was lost. The value is the text that records and messages show."""

    NODE = "the trial's node was lost"
    MEMORY = "out of memory: Ray ended the trial's process, since its node was running low on memory"
    PROCESS = "the trial's process was lost (killed, or out of memory)"

    @property
    def retries(self) -> int:
        """How often a trial is restarted after such a loss."""
        return NODE_RETRIES if self is Loss.NODE else RETRIES

    def failure(self) -> TrialFailure:
        """The failure of a trial that was lost in this way after its last retry."""
        return TrialFailure(kind=FailureKind.MACHINE, message=f"{self.value}; {1 + self.retries} times")


def loss_of(text: str) -> Loss:
    """The kind of loss that a message of Ray describes."""
    low = text.lower()
    if "running low on memory" in low or "outofmemory" in low:
        return Loss.MEMORY
    if any(words in low for words in ("its node has died", "its node was", "node it was running on is dead")):
        return Loss.NODE
    return Loss.PROCESS


def failure_of(error: Exception) -> TrialFailure:
    """The failure behind an exception of a trial that ran on Ray.

    Train wraps exceptions of its workers in TrainingFailedError. If the wrapped exception is a storage
    failure, so is the result; otherwise a worker was lost, and the kind is MACHINE.
    """
    failure = TrialFailure.of(error)
    if isinstance(error, TrainingFailedError) and failure.kind is FailureKind.SETTING:
        return TrialFailure(kind=FailureKind.MACHINE, message=failure.message)
    return failure
