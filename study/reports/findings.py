"""What a report is made of: a study's records, and the tables that follow from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar, cast

import pandas as pd

from mipoison.metrics.excess import MARGIN
from study.analysis.distinct import distinct_table
from study.analysis.frontier import configuration_table, pareto_front
from study.analysis.identification import identification_table
from study.analysis.selection_bias import selection_bias
from study.analysis.utility import utility_table
from study.analysis.verdicts import verdict_table
from study.records.constraints import Constraints
from study.records.curves import read_curves
from study.records.finished import StoredStudy
from study.records.status import PRUNED, is_screened
from study.reports.cells import describe
from study.reports.extrapolations import bounded_curves
from study.reports.leakage import ATTACKER, leakage_table

COSTS: dict[str, tuple[str, ...]] = {
    "distortion": ("confidence_distortion",),
    "accuracy lost": ("accuracy_drop",),
    "order below the top": ("tail_rank_correlation",),
    "second class kept": ("top2_agreement",),
    "five classes kept": ("top5_agreement",),
    "log loss": ("log_loss", "clean_log_loss"),
    "Brier score": ("brier_score", "clean_brier_score"),
    "calibration error": ("ece", "clean_ece"),
}
"""Faces of utility -> their columns: of the released vectors, and of the clean ones to compare with."""
IDENTIFIED = ("certified_identification", "certified_identification_test")
MEASURED = (
    *(name for names in COSTS.values() for name in names if name != "accuracy_drop"),
    *(f"identification_{name}{pool}" for name in ("rate", "auc", "chance") for pool in ("", "_test")),
    *IDENTIFIED,
    *(f"estimated_limit{end}" for end in ("", "_low", "_high")),
)
"""Columns of the records that the summary takes means of."""

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Findings:
    """The records of one study. Each table is computed when it is first asked for, and once.

    Attributes:
        episodes: the records of the search. fresh: those on held-out seeds, None without.
        about: name and scale of the study, for captions.
        constraints: what a feasible setting may cost in utility.
        curves: the rows of the study's learning curves; none without.
        margin: accepted excess leakage (share of label-only's error).
    """

    episodes: pd.DataFrame
    fresh: pd.DataFrame | None = None
    about: Mapping[str, object]
    constraints: Constraints
    margin: float = MARGIN
    curves: Sequence[Mapping[str, Any]] = ()
    _made: dict[Any, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    @classmethod
    def of(cls, study: StoredStudy) -> Findings:
        """Those of a finished study."""
        return cls(
            episodes=study.episodes,
            fresh=study.fresh,
            about=study.title_info,
            constraints=study.constraints,
            margin=study.margin,
            curves=read_curves(study.storage, study.folder),
        )

    def once(self, make: Callable[[Findings], T]) -> T:
        """``make(self)``, computed once: for what ``report.md`` and the page both show."""
        if make not in self._made:
            self._made[make] = make(self)
        return cast(T, self._made[make])

    @cached_property
    def info(self) -> str:
        """One line on where the numbers come from, for captions."""
        return describe(self.episodes, self.about)

    @cached_property
    def configurations(self) -> pd.DataFrame:
        """The ``configuration_table`` of the search."""
        return configuration_table(self.episodes, constraints=self.constraints, margin=self.margin)

    @cached_property
    def alike(self) -> pd.DataFrame:
        """The episodes of the attackers that all settings faced: of those that screened; all episodes where
        nothing was screened."""
        screened = is_screened(self.episodes)
        if not screened.any():
            return self.episodes
        ran = self.episodes[screened & (self.episodes["status"] != PRUNED)]
        return self.episodes[self.episodes["attack"].isin(set(ran["attack"]))]

    @cached_property
    def comparable(self) -> pd.DataFrame:
        """The ``configuration_table`` of :attr:`alike`, to compare settings under the same attackers."""
        if self.alike is self.episodes:
            return self.configurations
        return configuration_table(self.alike, constraints=self.constraints, margin=self.margin)

    @cached_property
    def alike_info(self) -> str:
        """For the captions of such comparisons."""
        if self.alike is self.episodes:
            return self.info
        names = ", ".join(sorted(set(self.alike["attack"])))
        return f"All settings under the attackers that screened: {names}. {self.info}"

    @cached_property
    def front(self) -> pd.DataFrame:
        """The Pareto front."""
        return pareto_front(self.configurations)

    @cached_property
    def utility(self) -> pd.DataFrame:
        """The ``utility_table``: every face of every setting's utility."""
        return utility_table(self.episodes)

    @cached_property
    def verdicts(self) -> pd.DataFrame:
        """The ``verdict_table``."""
        return verdict_table(self.episodes, margin=self.margin)

    @cached_property
    def extrapolated(self) -> list[dict[str, Any]]:
        """The learning curves, cut off at certificates."""
        return bounded_curves(self.curves, self.episodes)

    @cached_property
    def leakage(self) -> pd.DataFrame:
        """The ``leakage_table``, for the figure and the table of limits."""
        return leakage_table(self.episodes, self.verdicts, self.extrapolated)

    @cached_property
    def identified(self) -> pd.DataFrame:
        """The ``identification_table``."""
        return identification_table(self.episodes)

    @cached_property
    def with_leakage(self) -> pd.DataFrame:
        """The configurations with the columns of ``leakage`` and ``identified``; null where unknown."""
        table = self.configurations.merge(self.leakage, on="trial", how="left")
        return table.merge(self.identified, on="trial", how="left")

    @cached_property
    def judged(self) -> pd.DataFrame:
        """The configurations with their verdicts, counts of a ``distinct_table`` and means of MEASURED,
        one row each."""
        ok = self.episodes[self.episodes["status"] == "ok"]
        wanted = ok.reindex(columns=["trial", "attack", *MEASURED])
        values = wanted[list(MEASURED)].astype("Float64").groupby([wanted["trial"], wanted["attack"]]).mean()
        # The strongest attacker at telling images apart; what is measured once a setting is the same for all.
        strongest = values.groupby(level=0).max().drop(columns=["confidence_distortion"])
        named = list(IDENTIFIED)
        strongest[named] = wanted[named].astype("Float64").groupby(wanted["trial"]).max()  # on the worst seed
        strongest = strongest.reset_index()
        table = self.configurations.merge(self.verdicts, on="trial", how="left")
        table = table.merge(self.leakage[["trial", *ATTACKER.values()]], on="trial", how="left")
        table = table.merge(distinct_table(self.episodes), on="trial", how="left")
        return table.merge(strongest, on="trial", how="left")

    @cached_property
    def again(self) -> pd.DataFrame | None:
        """The ``configuration_table`` of the held-out seeds; None without."""
        if self.fresh is None or not len(self.fresh):
            return None
        return configuration_table(self.fresh, constraints=self.constraints, margin=self.margin)

    @cached_property
    def held_out(self) -> pd.DataFrame | None:
        """The ``verdict_table`` of the held-out seeds alone, by trial; None without."""
        if self.fresh is None or not len(self.fresh):
            return None
        return verdict_table(self.fresh, margin=self.margin).set_index("trial")

    @cached_property
    def bias(self) -> pd.DataFrame | None:
        """The frontier on the seeds of the search and on held-out ones; None without."""
        return None if self.again is None else selection_bias(self.configurations, self.again)
