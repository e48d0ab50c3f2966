"""After a search that screened its settings: the whole suite attacks those that may be on the frontier.

Screening measures a setting with a part of the suite. A further attacker can only raise the highest accuracy
and lower the lowest error, so what screening measured is a bound in favour of the setting. A setting that is
dominated nevertheless, by one that the whole suite has attacked, needs no further attacker. All others are
attacked by the whole suite, in rounds, those first that no other bound dominates. The frontier is then that
of the whole suite on all settings. (As for pruning, this assumes that none of the attackers that were not run
would have failed.)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import moocore
import numpy as np

from study.analysis.frontier import OBJECTIVES, configuration_table
from study.analysis.verdicts import verdict_table
from study.executors.base import Executor
from study.records.flat import knobs_of
from study.runtime.plain import visible_line
from study.session.callbacks import Callback, StudyProgress
from study.session.loop import FixedTrials, TrialLoop, TrialSearch
from study.session.study import Study
from study.trial.failure import FailureKind, TrialFailure
from study.trial.run import Outcome
from study.trial.spec import FinishedTrial, TrialSpec

if TYPE_CHECKING:
    import pandas as pd

    from study.records.constraints import Constraints

DEPLOYABLE = 2
"""Certified settings that are attacked by the whole suite wherever they lie: those of least distortion, which
an answer would recommend."""


class Confirmation(FixedTrials):
    """Trials of a study that are run again, against the whole suite.

    Args:
        study: counts their new outcomes. trials: their descriptions.

    Attributes:
        lost: why trials were lost with their processes, by trial.
    """

    def __init__(self, study: Study, trials: Sequence[TrialSpec]) -> None:
        super().__init__(study.records, [], trials)
        self._study = study
        self.lost: dict[str, str] = {}

    def tell(self, trial: FinishedTrial) -> None:
        super().tell(trial)
        self._study.keep(trial)

    def progress(self) -> StudyProgress:
        counts = super().progress()
        return dataclasses.replace(counts, quality=self._study.progress().quality)


class ConfirmingLoop(TrialLoop):
    """The loop of a confirmation: a trial whose process was lost keeps its records of the screening."""

    def tell(self, search: TrialSearch, spec: TrialSpec, end: Outcome | TrialFailure) -> None:
        lost = isinstance(end, TrialFailure) and end.kind is FailureKind.MACHINE
        if lost and isinstance(search, Confirmation) and isinstance(end, TrialFailure):
            search.lost[spec.trial] = end.message
            return
        super().tell(search, spec, end)


def confirm(
    study: Study,
    executor: Executor,
    callbacks: Sequence[Callback] = (),
    say: Callable[[str], None] = lambda text: None,
) -> pd.DataFrame:
    """Attack with the whole suite what may be on the frontier; returns the study's episodes.

    What an earlier run confirmed is not run again. The records of a confirmed trial replace those of its
    screening. A trial whose process is lost keeps these, and a resumed study confirms it.

    Args:
        say: prints a line for each such trial.

    Raises:
        StorageError: see :meth:`study.session.loop.TrialLoop.run`.
    """
    tried: set[str] = set()
    while True:
        episodes = study.records.read()
        waiting = unconfirmed(episodes, study.settings.constraints, study.settings.margin)
        waiting = [trial for trial in waiting if trial not in tried]
        if not waiting:
            return episodes
        tried |= set(waiting)
        rows = episodes[episodes["trial"].isin(waiting)].drop_duplicates("trial")
        specs = [
            study.template.spec(
                str(row["trial"]),
                str(row["defense"]),
                knobs_of(row),
                attempt=int(row["attempt"]),
                floor=study.floor(),
            )
            for _, row in rows.iterrows()
        ]
        confirmation = Confirmation(study, specs)
        ConfirmingLoop(executor, callbacks, study.lease).run(confirmation, len(specs))
        for trial, why in confirmation.lost.items():
            say(f"{trial} was screened alone, --resume runs its other attackers: {visible_line(why, 200)}")


def unconfirmed(episodes: pd.DataFrame, constraints: Constraints, margin: float) -> list[str]:
    """The trials that the whole suite has to attack next; empty if the frontier is that of the whole suite.

    Args:
        episodes: records of one scene. Trials that were screened have ``screened``.

    Returns:
        Names, sorted: of the feasible screened settings that no confirmed one dominates, those that none of
        the others dominates; and the screened ones among the DEPLOYABLE certified settings.
    """
    screened = episodes["screened"].astype("boolean").fillna(False)
    names = set(episodes.loc[screened, "trial"])
    if not names:
        return []
    table = configuration_table(episodes, constraints=constraints, margin=margin)
    points = table[[o.column for o in OBJECTIVES]].to_numpy(dtype=float, na_value=np.nan)
    feasible = table["feasible"].fillna(False).to_numpy(dtype=bool) & np.isfinite(points).all(axis=1)
    may = feasible & table["trial"].isin(names).to_numpy() & (table["dominated_by"].fillna(0) == 0).to_numpy()
    found = set()
    if may.any():
        best = moocore.is_nondominated(
            points[may], maximise=[o.maximise for o in OBJECTIVES], keep_weakly=True
        )
        found = set(table["trial"].to_numpy(dtype=object)[may][best])
    usable = table[feasible].merge(verdict_table(episodes, margin=margin), on="trial")
    certified = usable[usable["verdict"] == "certified"]
    cheapest = certified.sort_values(["confidence_distortion", "trial"], kind="stable").head(DEPLOYABLE)
    return sorted(found | (set(cheapest["trial"]) & names))
