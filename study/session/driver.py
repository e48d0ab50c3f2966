"""A study from its settings to its frontier, whatever executes the trials.

Parquet is the record of truth: what is finished, what the search has learnt and the frontier are read from
there, so a resumed study needs nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from study.analysis.frontier import frontier_table
from study.executors.base import Executor
from study.records.status import PRUNED
from study.session.callbacks import Callback
from study.session.loop import TrialLoop
from study.session.study import Study


def run_study(
    study: Study, executor: Executor, callbacks: Sequence[Callback] = (), command: Sequence[str] = ()
) -> pd.DataFrame:
    """Prepare, evaluate the anchors, search; returns all episodes.

    Args:
        callbacks: told of its course. command: the command line's words, kept in the study's folder.

    Raises:
        StorageError, LostError: see :meth:`study.session.loop.TrialLoop.run`.
    """
    study.begin(command)  # not before an executor is there: a refused study leaves nothing
    TrialLoop(executor, callbacks, study.lease).run(study, study.trials_left())
    return study.records.read()


def write_frontier(study: Study, episodes: pd.DataFrame) -> pd.DataFrame:
    """``frontier.parquet``: a pure function of the episode records."""
    frontier = frontier_table(episodes, study.settings.max_accuracy_drop)
    records = study.records
    records.storage.write(f"{records.study}/frontier.parquet", frontier.to_parquet(index=False))
    return frontier


def failed_share(episodes: pd.DataFrame) -> float:
    """Share of failed episodes."""
    return float((episodes["status"] == "failed").mean()) if len(episodes) else 0.0


def pruned_share(episodes: pd.DataFrame) -> tuple[int, int]:
    """Settings that were cut short, and the episodes that this saved."""
    cut = episodes[episodes["status"] == PRUNED]
    return int(cut["trial"].nunique()), len(cut)
