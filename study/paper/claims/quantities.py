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

from mipoison.defenses import LABEL_ONLY
from mipoison.metrics.checks import LABEL_ONLY_TOLERANCE
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
        low, high = _chosen(-table, others=True), _chosen(-table, others=False)
        floor = 0.0
        if self.above_label:
            of_label = _floor(evidence, table.index, self.column + pool)
            if of_label is None:
                return None
            floor = of_label.max(axis=1)
        return Values(-high - floor, -low - floor, -high - floor, _names(table), evidence.incomplete(trial))


@dataclass(frozen=True)
class Excess:
    """Excess leakage: the share by which the best attacker's error lies below that of label-only's best."""

    pools: tuple[str, ...] = (TRAIN, TEST)

    def __str__(self) -> str:
        return "excess leakage"

    def values(self, evidence: Evidence, trial: str, pool: str) -> Values | None:
        """See :class:`Quantity`. Attackers that do worse than label-only's show nothing of the defense."""
        table = _whole(evidence, trial, ERROR + pool)
        floor = None if table is None else _floor(evidence, table.index, ERROR + pool)
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
    """The certified excess leakage: the larger of train and test images where both are known."""

    pools: tuple[str, ...] = (TRAIN,)

    def __str__(self) -> str:
        return "certified excess leakage (the larger of train and test)"

    def values(self, evidence: Evidence, trial: str, pool: str) -> Values | None:
        """See :class:`Quantity`."""
        tables = [evidence.by_seed(trial, f"certified_excess{end}") for end in IMAGES]
        if not all(table.size for table in tables):
            return None
        return _same(pd.concat([t.max(axis=1) for t in tables], axis=1).dropna().max(axis=1))


def _whole(evidence: Evidence, trial: str, column: str) -> pd.DataFrame | None:
    """Seeds and attackers of a setting without a gap; None without any. Attackers that lack a seed on which
    most ran are left out, then seeds that lack an attacker."""
    table = evidence.by_seed(trial, column)
    if not table.size:
        return None
    enough = table.notna().sum() >= min(FEWEST, len(table))
    table = table.loc[:, enough].dropna()
    return table if table.size else None


def _floor(evidence: Evidence, seeds: pd.Index, column: str) -> pd.DataFrame | None:
    """Label-only's errors on the seeds that it shares with a setting; None without any."""
    trials = evidence.trials(Setting(LABEL_ONLY))
    table = _whole(evidence, trials[0], column) if trials else None
    if table is None:
        return None
    table = table.loc[table.index.intersection(seeds)]
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
