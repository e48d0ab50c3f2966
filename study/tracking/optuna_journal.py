"""``optuna.log``: the study as an Optuna journal, for ``optuna-dashboard`` and Optuna's own plots.

The journal is a copy made from the records. The search does not use it as its storage: when a driver dies,
such a journal could hold trials that have no records, and a resumed search would repeat its suggestions.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from study.records.store import Records
from study.runtime.scratch import scratch_folder
from study.search import space
from study.search.objectives import SearchObjective, directions
from study.search.sampler import told_values
from study.trial.spec import FinishedTrial

NAME = "optuna.log"
EVERY_S = 20.0
"""The file is rewritten as a whole, therefore at most once in this many seconds."""


class OptunaJournal:
    """Writes ``<study>/optuna.log``, with the trials in the order in which they finished.

    Args:
        records: the study's. families: the defense families that are searched.
        objectives: what the search minimises, see ``study.search.objectives``.
    """

    def __init__(
        self, records: Records, families: list[str], objectives: Mapping[str, SearchObjective]
    ) -> None:
        self._records, self._families, self._objectives = records, families, objectives
        named = directions(objectives)
        self._held = ExitStack()
        self._path = Path(self._held.enter_context(scratch_folder("optuna"))) / NAME
        self._written = float("-inf")
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._study = optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(self._path))),
            study_name=records.study,
            directions=list(named.values()),
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self._study.set_metric_names(list(named))

    def finished(self, done: FinishedTrial) -> None:
        told = told_values(self._objectives, done.outcome)
        try:
            parameters = space.parameters(done.defense, done.knobs)
            distributions = space.distributions(self._families, done.defense)
            self._study.add_trial(
                optuna.trial.create_trial(
                    state=TrialState.COMPLETE if told else TrialState.FAIL,
                    params=parameters,
                    distributions={name: distributions[name] for name in parameters},
                    values=told,
                    user_attrs={"trial": done.trial, "defense": done.defense, **dict(done.outcome)},
                )
            )
        except ValueError:  # an older version's setting, outside the present space
            return
        if time.monotonic() - self._written > EVERY_S:
            self._write()

    def close(self) -> None:
        with self._held:
            self._write()

    def _write(self) -> None:
        self._records.storage.write(f"{self._records.study}/{NAME}", self._path.read_bytes())
        self._written = time.monotonic()
