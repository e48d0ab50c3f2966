"""The interface of what runs trials: in this process, on a local Ray, or on a cluster."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from study.records.store import ProgressCallback, no_progress
from study.trial.failure import TrialFailure
from study.trial.run import Outcome
from study.trial.spec import TrialResult, TrialSpec

Ask = Callable[[], TrialSpec | None]
"""The next trial, None where there is none."""
Tell = Callable[[TrialSpec, Outcome | TrialFailure], None]
"""Takes in what came of a trial."""


class Executor(Protocol):
    """Where trials run.

    Attributes:
        max_concurrent: trials at once.
    """

    max_concurrent: int

    def anchors(
        self, specs: list[TrialSpec], on_progress: ProgressCallback = no_progress
    ) -> list[TrialResult]:
        """Prepare the specs' scenes (trained parts go into the artifact store), then run the trials.

        Nothing is written but artifacts; results in order. ``on_progress`` is told how many parts are done
        of how many, where that is known.

        Raises:
            LostError: their processes were lost more often than they are started again.
        """
        ...

    def search(self, n: int, ask: Ask, tell: Tell) -> None:
        """Ask for n trials, execute each, tell what came of it: its outcome, or why it has none.

        Ends early where there is nothing left to ask for (None).
        """
        ...

    def close(self) -> None:
        """Let go of what was started for the study."""
        ...
