"""The interface that every executor implements."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol, TypeVar

from study.records.store import ProgressCallback, no_progress
from study.trial.failure import TrialFailure
from study.trial.run import Outcome
from study.trial.spec import TrialResult, TrialSpec

R = TypeVar("R")
Ask = Callable[[], TrialSpec | None]
"""Returns the next trial to run, or None if there are no more."""
Tell = Callable[[TrialSpec, Outcome | TrialFailure], None]
"""Receives a trial's outcome, or the reason why it has none."""


class Executor(Protocol):
    """Runs trials.

    Attributes:
        max_concurrent: how many trials run at the same time.
    """

    max_concurrent: int

    def anchors(
        self, specs: list[TrialSpec], on_progress: ProgressCallback = no_progress
    ) -> list[TrialResult]:
        """Train what the specs' scenes need, then run the trials. Writes artifacts but no records.

        Args:
            on_progress: called with the number of finished scenes and trials, and their total.

        Returns:
            The results, in the order of the specs.

        Raises:
            LostError: worker processes died more often than they are restarted.
        """
        ...

    def search(self, n: int, ask: Ask, tell: Tell) -> None:
        """Run n trials: get each from ``ask``, run it, pass its outcome or failure to ``tell``.

        Ends early when ``ask`` returns None.
        """
        ...

    def each(self, work: Callable[[TrialSpec], R], specs: list[TrialSpec]) -> Iterator[R | Exception]:
        """Call a function with each spec where trials run; yields the results in the order of the specs.

        The specs' scenes have been prepared. What the function raises, or the loss of its process after all
        retries, is yielded in its result's place.
        """
        ...

    def close(self) -> None:
        """Release what the executor started, for instance a local Ray."""
        ...
