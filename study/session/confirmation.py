"""After a search that screened its settings: the whole suite attacks those that may be on the frontier.

Screening measures a setting with a part of the suite. A further attacker can only raise the highest accuracy
and lower the lowest error, so what screening measured is a bound in favour of the setting. A setting that is
dominated nevertheless, by one that the whole suite has attacked, needs no further attacker. All others are
attacked by the whole suite, in rounds, those first that no other bound dominates; except those that the
screening has shown to leak, and beyond the accepted margin. These are on the frontier with a bound: they leak
at least so much. Up to the margin the frontier is then that of the whole suite on all settings. (As for
pruning, this assumes that none of the attackers that were not run would have failed.) A few that are
dominated are attacked as well, where the study's answer may recommend them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from mipoison.defenses import ANCHORS, LABEL_ONLY
from study.analysis.frontier import configuration_table, nondominated, waiting
from study.analysis.verdicts import verdict_table
from study.executors.base import Executor
from study.records.flat import knobs_of
from study.records.status import PRUNED, is_screened
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
"""Settings that are attacked by the whole suite wherever they lie, as an answer would recommend them: so many
certified ones, of least distortion, and so many that may be safe and would cost less than all of those."""
MOST_TRIED = 6
"""While none is certified or safe, so many in all that may be safe are tried, DEPLOYABLE at a time."""
CLAIMS = ("certified", "safe")


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
        failure = end if isinstance(end, TrialFailure) else None
        if failure and failure.kind is FailureKind.MACHINE and isinstance(search, Confirmation):
            search.lost[spec.trial] = failure.message
        else:
            super().tell(search, spec, end)


def confirm(
    study: Study,
    episodes: pd.DataFrame,
    executor: Executor,
    callbacks: Sequence[Callback] = (),
    say: Callable[[str], None] = lambda text: None,
) -> pd.DataFrame:
    """Attack with the whole suite what may be on the frontier; returns the study's episodes.

    What an earlier run confirmed is not run again. The records of a confirmed trial replace those of its
    screening. A trial whose process is lost keeps these, and a resumed study confirms it.

    Args:
        episodes: the study's, as :func:`study.session.driver.run_study` returns them.
        say: prints a line for each such trial.

    Raises:
        StorageError: see :meth:`study.session.loop.TrialLoop.run`.
    """
    settings, floor = study.settings, study.floor()
    tried: set[str] = set()
    while found := set(unconfirmed(episodes, settings.constraints, settings.margin)) - tried:
        tried |= found
        rows = episodes[episodes["trial"].isin(found)].drop_duplicates("trial")
        specs = [
            study.template.spec(
                str(row["trial"]),
                str(row["defense"]),
                knobs_of(row),
                attempt=int(row["attempt"]),
                floor=floor,
            )
            for _, row in rows.iterrows()
        ]
        confirmation = Confirmation(study, specs)
        ConfirmingLoop(executor, callbacks, study.lease).run(confirmation, len(specs))
        for trial, why in confirmation.lost.items():
            say(f"{trial} was screened alone, --resume runs its other attackers: {visible_line(why, 200)}")
        episodes = study.records.read()
    return episodes


def unconfirmed(episodes: pd.DataFrame, constraints: Constraints, margin: float) -> list[str]:
    """The trials that the whole suite has to attack next; empty if the frontier is that of the whole suite.

    Args:
        episodes: records of one scene. Trials that were screened have ``screened``.

    Returns:
        Names, sorted: of the feasible screened settings that no confirmed one dominates and that are not
        shown to leak beyond the margin, those that none of the others dominates; the screened ones among
        the DEPLOYABLE certified settings; and, if the frontier needs none of them, those among the DEPLOYABLE
        cheapest that may be safe which cost less than any certified or safe setting besides the anchors.
        While there is none, the next ones follow those that proved not to be safe: MOST_TRIED in all.
    """
    names = set(episodes.loc[is_screened(episodes), "trial"])
    if not names:
        return []
    table = configuration_table(episodes, constraints=constraints, margin=margin)
    open_ = table[waiting(table) & table["trial"].isin(names)]
    found = set(nondominated(open_)["trial"])
    usable = table[table["feasible"].fillna(False)].dropna(subset=["confidence_distortion"])
    usable = usable.merge(verdict_table(episodes, margin=margin), on="trial")
    certified = usable[usable["verdict"] == "certified"]
    cheapest = certified.sort_values(["confidence_distortion", "trial"], kind="stable").head(DEPLOYABLE)
    found |= set(cheapest["trial"]) & names
    if not found:
        claimed = usable[usable["verdict"].isin(CLAIMS) & ~usable["defense"].isin(ANCHORS)]
        cheaper = _may_be_safe(usable, episodes, names, margin)
        if len(claimed):
            cheaper = cheaper.head(DEPLOYABLE)
            cheaper = cheaper[cheaper["confidence_distortion"] < claimed["confidence_distortion"].min()]
        else:
            tried = int((~cheaper["trial"].isin(names)).sum())
            cheaper = cheaper.head(min(tried + DEPLOYABLE, MOST_TRIED))
        found = set(cheaper["trial"]) & names
    return sorted(found)


def _may_be_safe(
    usable: pd.DataFrame, episodes: pd.DataFrame, names: set[str], margin: float
) -> pd.DataFrame:
    """The settings that are dominated, cost less than label-only, and leak to the screening's attackers no
    more than the margin, on several seeds, the cheapest first; before these, those that they show to be safe.

    They are judged by the screening's attackers alone, also those that the whole suite has attacked since. As
    these stay dominated and in their place, no more than so many are ever attacked for this reason.

    Args:
        usable: the feasible settings with their distortion. names: those that were screened alone.
    """
    ran = episodes[episodes["status"] != PRUNED]
    attackers = set(ran.loc[ran["trial"].isin(names), "attack"])
    seen = verdict_table(ran[ran["attack"].isin(attackers)], margin=margin).set_index("trial")
    within = (seen["suite_excess_worst"] <= margin).fillna(False)
    floor = usable.loc[usable["defense"] == LABEL_ONLY, "confidence_distortion"]
    some = usable[
        usable["trial"].isin(seen.index[within])
        & ~usable["defense"].isin(ANCHORS)
        & (usable["dominated_by"] > 0).fillna(False)
        & (usable["n_shared_seeds"] > 1)
        & (usable["confidence_distortion"] < (floor.min() if len(floor) else float("inf")))
    ]
    some = some.assign(last=(some["trial"].map(seen["verdict"]) != "safe").fillna(True))
    order = ["last", "confidence_distortion", "trial"]
    return some.sort_values(order, kind="stable")
