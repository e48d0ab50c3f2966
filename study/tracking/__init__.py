"""Copies of a study for other tools: optuna-dashboard, TensorBoard, MLflow.

Trackers only receive what was recorded; nothing is read back from them. A tracker that fails is dropped with
a warning, and the study continues.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from study.records.store import Records
    from study.search.sampler import Search
    from study.trial.spec import FinishedTrial


class Tracker(Protocol):
    """Receives each finished trial once in every run of the study, those of earlier runs first."""

    def finished(self, done: FinishedTrial) -> None: ...

    def close(self) -> None: ...


class Trackers:
    """Passes finished trials to several trackers, and drops a tracker that raises.

    Args:
        warn: prints one line for the user.
    """

    def __init__(self, trackers: Mapping[str, Tracker], warn: Callable[[str], None]) -> None:
        self._trackers, self._warn = dict(trackers), warn

    def finished(self, done: FinishedTrial) -> None:
        self._tell(lambda tracker: tracker.finished(done))

    def close(self) -> None:
        self._tell(lambda tracker: tracker.close())

    def _tell(self, call: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self._trackers.items()):
            try:
                call(tracker)
            except Exception as error:
                del self._trackers[name]
                reason = f"{type(error).__name__}: {error}".splitlines()[0]
                self._warn(f"{name} is no longer updated ({reason}); the records are not affected")


class Copies(Protocol):
    """Which copies the settings ask for, see ``study.settings.display.Copies``."""

    @property
    def tensorboard(self) -> bool: ...

    @property
    def mlflow(self) -> str | None: ...


def make_trackers(
    settings: Copies, records: Records, search: Search, warn: Callable[[str], None]
) -> Trackers:
    """The trackers that the settings ask for.

    Args:
        records: the study's. search: its search.

    Raises:
        ConfigError: MLflow is not installed, or its address contains a password.
    """
    # Optuna, TensorBoard and MLflow take seconds to import; TensorBoard and MLflow may not be installed.
    from study.tracking.optuna_journal import OptunaJournal
    from study.tracking.tensorboard import TensorBoard

    trackers: dict[str, Tracker] = {
        "the Optuna journal": OptunaJournal(records, search.families, search.objectives)
    }
    if settings.tensorboard:
        trackers["the TensorBoard log"] = TensorBoard(records)
    if settings.mlflow:
        from study.tracking.mlflow import MLflow

        trackers["the MLflow experiment"] = MLflow(settings.mlflow, records.study)
    return Trackers(trackers, warn)
