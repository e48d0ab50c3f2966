"""What claims are about, by seed: a column of the records, a worst case, an excess, a gain.

Each quantity knows the values that speak for more and for less of it. They differ where an attacker is
chosen: the choice is made by the same numbers, so that what is said to be large is scored on seeds that did
not choose, and what is said to be small on those that did.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import pandas as pd

from mipoison.attacks import LABEL_ATTACKER
from mipoison.defenses import LABEL_ONLY
from mipoison.metrics.check_conditions import LABEL_ONLY_TOLERANCE
from study.analysis.verdicts import BROKEN, CERTIFIED, VARIES
from study.paper.claims.evidence import Evidence, Setting
from study.paper.claims.readings import FEWEST

TRAIN, TEST = "", "_test"
IMAGES = {TRAIN: "train", TEST: "test"}
"""Ending of a column -> the private images that it is measured on."""
ERROR = "reconstruction_error"


@dataclass(frozen=True)
class Values:
    """A quantity of one setting, by seed.

    Attributes:
        shown: what is reported.
        low: what a claim that it is large is tested on. high: that it is small.
        of: attackers, or other words for the key of a reading.
        partial: it may be larger than seen: no claim that it is small is shown.
    """

    shown: pd.Series
    low: pd.Series
    high: pd.Series
    of: str = ""
    partial: bool = False


class Quantity(Protocol):
    """Something that is measured of a setting."""

    @property
    def pools(self) -> tuple[str, ...]:
        """Endings of columns (of IMAGES) that it is measured for."""

    def __str__(self) -> str: ...

    def values(self, evidence: Evidence, trial: str, pool: str) -> Values | None:
        """Its values by seed; None where the records lack them."""


def _same(values: pd.Series, of: str = "", partial: bool = False) -> Values | None:
    known = values.dropna()
    return Values(known, known, known, of, partial) if len(known) else None


@dataclass(frozen=True)
class Column:
    """A column of the records: of one attacker, or the mean over all.

    Attributes:
        column: its name, without the ending of test images.
        attack: a name of ATTACKS; None for what does not depend on the attacker.
    """

    column: str
    attack: str | None = None
    pools: tuple[str, ...] = (TRAIN,)

    def __str__(self) -> str:
        name = self.column.replace("_", " ")
        return f"{name} of {self.attack}" if self.attack else name

    def values(self, evidence: Evidence, trial: str, pool: str) -> Values | None:
        """See :class:`Quantity`."""
        table = evidence.by_seed(trial, self.column + pool)
        if self.attack is None:
            return _same(table.mean(axis=1)) if table.size else None
        return _same(table[self.attack]) if self.attack in table else None


@dataclass(frozen=True)
class Drop:
    """How much accuracy a defense costs: that of the classifier less that of what is released."""

    pools: tuple[str, ...] = (TRAIN,)

    def __str__(self) -> str:
        return "accuracy drop"

    def values(self, evidence: Evidence, trial: str, pool: str) -> Values | None:
        """See :class:`Quantity`."""
        clean, released = (evidence.by_seed(trial, name) for name in ("model_accuracy", "protected_accuracy"))
        return _same((clean - released).mean(axis=1)) if clean.size and released.size else None


@dataclass(frozen=True)
class Strongest:
    """The largest value of a column among attackers; or by how much it exceeds label-only's.

    Attributes:
        above_label: subtract the largest of label-only.
    """

    column: str
    above_label: bool = False
    pools: tuple[str, ...] = (TRAIN, TEST)

    def __str__(self) -> str:
        less = ", less that under label-only" if self.above_label else ""
        return f"largest {self.column.replace('_', ' ')}{less}"

    def values(self, evidence: Evidence, trial: str, pool: str) -> Values | None:
        """See :class:`Quantity`."""
        table = _whole(evidence, trial, self.column + pool)
        if table is None:
            return None
        partial = evidence.incomplete(trial)
        if not self.above_label:
            low, high = -_chosen(-table, others=True), -_chosen(-table, others=False)
            return Values(high, low, high, _names(table), partial)
        floor = _floor(evidence, table, self.column + pool)
        if floor is None:
            return None
        table = table.loc[floor.index]
        low, high = -_chosen(-table, others=True), -_chosen(-table, others=False)
        least, most = -_chosen(-floor, others=True), -_chosen(-floor, others=False)
        return Values(high - most, low - most, high - least, _names(table), partial)


@dataclass(frozen=True)
class Excess:
    """Excess leakage: the share by which the best attacker's error lies below that of label-only's best."""

    pools: tuple[str, ...] = (TRAIN, TEST)

    def __str__(self) -> str:
        return "excess leakage"

    def values(self, evidence: Evidence, trial: str, pool: str) -> Values | None:
        """See :class:`Quantity`. Attackers that do worse than label-only's show nothing of the defense."""
        table = _whole(evidence, trial, ERROR + pool)
        floor = None if table is None else _floor(evidence, table, ERROR + pool)
        if table is None or floor is None:
            return None
        table = table.loc[floor.index]
        shown = 1 - _chosen(table, others=False) / _chosen(floor, others=False)
        low = 1 - _chosen(table, others=True) / _chosen(floor, others=False)
        high = 1 - _chosen(table, others=False) / _chosen(floor, others=True)
        failed = float(shown.mean()) < -LABEL_ONLY_TOLERANCE
        lacks = not set(floor.columns) <= set(table.columns)
        return Values(shown, low, high, _names(table), failed or lacks or evidence.incomplete(trial))


@dataclass(frozen=True)
class GainOver:
    """The share by which the best attacker's error lies below that of a given one, on the same setting."""

    attack: str
    pools: tuple[str, ...] = (TRAIN, TEST)

    def __str__(self) -> str:
        return f"gain of the best attacker over {self.attack}"

    def values(self, evidence: Evidence, trial: str, pool: str) -> Values | None:
        """See :class:`Quantity`."""
        table = _whole(evidence, trial, ERROR + pool)
        if table is None or self.attack not in table:
            return None
        own = table[self.attack]
        low, high = (1 - _chosen(table, others=others) / own for others in (True, False))
        return Values(high, low, high, _names(table), evidence.incomplete(trial))


@dataclass(frozen=True)
class Certified:
    """The certified excess leakage: the larger of train and test images.

    Only of settings of which every record has both, and no record a check that contradicts them: an attacker
    who did better, or answers that differ when a query is repeated.
    """

    pools: tuple[str, ...] = (TRAIN,)

    def __str__(self) -> str:
        return "certified excess leakage (the larger of train and test)"

    def values(self, evidence: Evidence, trial: str, pool: str) -> Values | None:
        """See :class:`Quantity`."""
        ok = evidence.rows[evidence.rows["trial"] == trial].reindex(
            columns=["seed", *CERTIFIED, BROKEN, VARIES]
        )
        certified = ok[list(CERTIFIED)].astype("Float64")
        raised = ok[[BROKEN, VARIES]].astype("boolean").fillna(False).any(axis=None)
        if raised or certified.isna().any(axis=None):
            return None
        return _same(certified.max(axis=1).astype(float).groupby(ok["seed"]).max())


def _whole(evidence: Evidence, trial: str, column: str) -> pd.DataFrame | None:
    """Seeds and attackers of a setting without a gap; None without an attacker who looks at scores. Attackers
    that lack a seed on which most ran are left out, then seeds that lack an attacker."""
    table = evidence.by_seed(trial, column)
    if not table.size:
        return None
    enough = table.notna().sum() >= min(FEWEST, len(table))
    table = table.loc[:, enough].dropna()
    return table if len(table) and set(table.columns) - {LABEL_ATTACKER} else None


def _floor(evidence: Evidence, of: pd.DataFrame, column: str) -> pd.DataFrame | None:
    """Label-only's values on the seeds that it shares with a setting's; None without any.

    None, too, where one of label-only's attackers is missing, or one of the setting's: the floor would be
    that of weaker attackers.
    """
    trials = evidence.trials(Setting(LABEL_ONLY))
    table = _whole(evidence, trials[0], column) if trials else None
    if table is None:
        return None
    begun = evidence.records.loc[evidence.records["trial"] == trials[0], "attack"]
    if not set(begun) | set(of.columns) <= set(table.columns):
        return None
    table = table.loc[table.index.intersection(of.index)]
    return table if table.size else None


def _chosen(errors: pd.DataFrame, *, others: bool) -> pd.Series:
    """Each seed's error of the attacker with the least mean over all seeds (or over all others)."""
    values = errors.to_numpy(dtype=float)
    n = len(values)
    if others and n > 1:
        best = ((values.sum(axis=0) - values) / (n - 1)).argmin(axis=1)
    else:
        best = np.full(n, values.mean(axis=0).argmin())
    return pd.Series(values[np.arange(n), best], errors.index)


def _names(table: pd.DataFrame) -> str:
    return ",".join(sorted(map(str, table.columns)))


Sign = Literal["above", "below"]
