"""Run a study on any executor and write its frontier.

The Parquet records are the only state: finished trials, the history of the search and the frontier are all
computed from them, so a study can be resumed from its records alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from study.analysis.frontier import frontier_table
from study.executors.base import Executor
from study.records.status import PRUNED, is_screened
from study.session.callbacks import Callback
from study.session.loop import TrialLoop
from study.session.study import Study

if TYPE_CHECKING:
    import pandas as pd


def run_study(
    study: Study, executor: Executor, callbacks: Sequence[Callback] = (), command: Sequence[str] = ()
) -> pd.DataFrame:
    """Evaluate the anchors, then search; returns all episodes.

    Args:
        callbacks: called by the trial loop. command: the words of the command line, stored in ``study.json``.

    Raises:
        StorageError, LostError: see :meth:`study.session.loop.TrialLoop.run`.
    """
    study.begin(command)  # only now, with the executor running: a study that cannot start leaves no files
    TrialLoop(executor, callbacks, study.lease).run(study, study.trials_left())
    return study.records.read()


def write_frontier(study: Study, episodes: pd.DataFrame) -> pd.DataFrame:
    """Compute the frontier from the episode records and write ``frontier.parquet``."""
    frontier = frontier_table(episodes, study.settings.constraints, study.settings.margin)
    records = study.records
    records.storage.write(f"{records.study}/frontier.parquet", frontier.to_parquet(index=False))
    return frontier


def failed_share(episodes: pd.DataFrame) -> float:
    """The share of failed episodes among those that were run."""
    ran = episodes[episodes["status"] != PRUNED]
    return float((ran["status"] == "failed").mean()) if len(ran) else 0.0


def not_run(episodes: pd.DataFrame) -> str:
    """A line each on the settings that were screened alone, and on those that were pruned; '' without any."""
    screened = is_screened(episodes) & (episodes["status"] == PRUNED)
    lines = []
    for rows, why in (
        (
            episodes[screened],
            "were screened alone (dominated, leaking beyond the margin, outside the constraints, or not "
            "measured)",
        ),
        (episodes[~screened], "were pruned (label-only dominated them)"),
    ):
        settings, saved = pruned_counts(rows)
        if settings:
            lines.append(f"{settings} settings {why}: {saved} episodes saved\n")
    return "".join(lines)


def pruned_counts(episodes: pd.DataFrame) -> tuple[int, int]:
    """The number of pruned settings, and of the episodes that this saved."""
    pruned = episodes[episodes["status"] == PRUNED]
    return int(pruned["trial"].nunique()), len(pruned)
