"""Rules: what of the records a claim is about, and the threshold at which it stands."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from study.analysis.comparisons import NEAR
from study.paper.claims.evidence import Evidence, Setting
from study.paper.claims.quantities import IMAGES, TRAIN, Column, Quantity, Sign, Values
from study.paper.claims.readings import Place, Reading, either, exact, one_sided, within

DISTORTION = Column("confidence_distortion")


class Rule(Protocol):
    """Reads a study for a claim. Its text says the rule in full."""

    def __str__(self) -> str: ...

    def readings(self, evidence: Evidence) -> list[Reading]:
        """None where the study has nothing on the claim."""

    def left_out(self, evidence: Evidence) -> list[tuple[str, ...]]:
        """Keys (without attackers) of what would be read of settings that were screened, had all attackers
        run."""


@dataclass(frozen=True)
class Mean:
    """A quantity of each setting that fits, against a threshold.

    Attributes:
        sign: the claim is that the mean over seeds is above the threshold, or below it.
        some_pool: it need not hold on both pools of images (of a leak, one is enough).
    """

    quantity: Quantity
    of: Setting
    sign: Sign
    threshold: float
    some_pool: bool = False

    def __str__(self) -> str:
        pools = pools_text(self.quantity)
        pools = pools.replace(" and on ", " or on ") if self.some_pool else pools
        return f"{self.quantity} of {self.of} is {self.sign} {self.threshold:g}{pools}"

    def readings(self, evidence: Evidence) -> list[Reading]:
        """See :class:`Rule`."""
        found = []
        for trial in evidence.trials(self.of):
            pools = []
            for pool in self.quantity.pools:
                values = self.quantity.values(evidence, trial, pool)
                if values is not None:
                    place = _place(evidence, (trial, trial), pool, self.quantity, values.of)
                    pools.append(_against(place, values, self.sign, self.threshold))
            if self.some_pool and pools:
                attackers = ";".join(sorted({reading.key[-1] for reading in pools}))
                key = (*evidence.key((trial, trial), EITHER), attackers)
                pools = [either(pools, key)]
            found += pools
        return found

    def left_out(self, evidence: Evidence) -> list[tuple[str, ...]]:
        """See :class:`Rule`."""
        found = []
        for trial in evidence.trials(self.of):
            if trial not in evidence.screened:
                continue
            gone = [p for p in self.quantity.pools if self.quantity.values(evidence, trial, p) is None]
            if self.some_pool:
                gone = [EITHER] if len(gone) == len(self.quantity.pools) else []
            found += [evidence.key((trial, trial), pool) for pool in gone]
        return found


def _against(place: Place, values: Values, sign: Sign, threshold: float) -> Reading:
    more = sign == "above"
    # What may be larger than seen is not shown to be small, neither as a claim nor as its opposite.
    high = values.high * np.nan if values.partial else values.high
    holds, opposite = (values.low, high) if more else (high, values.low)
    return one_sided(place, values.shown, threshold, more=more, holds=holds, opposite=opposite)


@dataclass(frozen=True)
class Difference:
    """A quantity under one setting less the quantity under another one, paired by seed.

    Attributes:
        quantity, of: the first. other, than: the second; None: the same quantity.
        sign: ``above`` or ``below`` the threshold, or ``within`` plus and minus it.
        how: ``relative``: as a share of the second one's mean over seeds; ``log10``: the logarithm of the
            first divided by the second, in place of their difference.
        match: which settings are compared: each with each (None); those with an equal knob of this name;
            ``distortion``: each with the one of the nearest distortion, at most a factor 1.5 away.
        cut: values below 0 count as 0 (for an excess: attackers that fail are no protection).
        twice: subtract the same difference under this setting (a difference of differences).
    """

    quantity: Quantity
    of: Setting
    sign: str
    threshold: float
    than: Setting
    other: Quantity | None = None
    how: Literal["plain", "relative", "log10"] = "plain"
    match: str | None = None
    cut: bool = False
    twice: Setting | None = None

    def __str__(self) -> str:
        second = f"{self.other or self.quantity} of {self.than}"
        if self.other is None:
            second = f"that of {self.than}"
        where = {None: "", "distortion": " of equal distortion"}.get(self.match, f" of equal {self.match}")
        how = " relative to it" if self.how == "relative" else ""
        minus = f", less the same of {self.twice}" if self.twice else ""
        bounds = (
            f"within +-{self.threshold:g}" if self.sign == "within" else f"{self.sign} {self.threshold:g}"
        )
        less = "over" if self.how == "log10" else "less"
        log = "log10 of " if self.how == "log10" else ""
        return (
            f"{log}{self.quantity} of {self.of} {less} {second}{where}{minus} is {bounds}{how}"
            f"{pools_text(self.quantity)}"
        )

    def readings(self, evidence: Evidence) -> list[Reading]:
        """See :class:`Rule`."""
        found = []
        for pair in self._pairs(evidence):
            for pool in self.quantity.pools:
                values = self._values(evidence, pair, pool)
                if values is None:
                    continue
                place = _place(evidence, pair, pool, self.quantity, values.of)
                small, large, more = values.high, values.low, self.sign == "above"
                if self.sign == "within":
                    found.append(within(place, values.shown, self.threshold, small=small, large=large))
                else:
                    holds, opposite = (large, small) if more else (small, large)
                    found.append(
                        one_sided(
                            place, values.shown, self.threshold, more=more, holds=holds, opposite=opposite
                        )
                    )
        return found

    def left_out(self, evidence: Evidence) -> list[tuple[str, ...]]:
        """See :class:`Rule`."""
        return [
            evidence.key(pair, pool)
            for pair in self._pairs(evidence)
            if evidence.screened & set(pair)
            for pool in self.quantity.pools
            if self._values(evidence, pair, pool) is None
        ]

    def _values(self, evidence: Evidence, pair: tuple[str, str], pool: str) -> Values | None:
        found = self._difference(evidence, *pair, pool)
        if found is not None and self.twice is not None:
            trials = evidence.trials(self.twice)
            base = self._difference(evidence, trials[0], trials[0], pool) if trials else None
            if base is None:
                return None
            parts = (found.shown - base.shown, found.low - base.high, found.high - base.low)
            found = Values(*parts, found.of + base.of)
        if found is None or not len(shown := found.shown.dropna()):
            return None
        return Values(shown, found.low[shown.index], found.high[shown.index], found.of)

    def _difference(self, evidence: Evidence, a: str, b: str, pool: str) -> Values | None:
        """By seed. ``low`` is NaN where the difference may be smaller than shown, since more may be read of
        the second setting than was seen; ``high``, where it may be larger."""
        first = self.quantity.values(evidence, a, pool)
        second = (self.other or self.quantity).values(evidence, b, pool)
        if first is None or second is None:
            return None
        x, y = first.shown, second.shown
        seeds = x.index.intersection(y.index)
        x, y = x[seeds], y[seeds]
        if self.cut:
            x, y = x.clip(lower=0), y.clip(lower=0)
        scale = abs(float(y.mean())) if self.how == "relative" else 1.0
        if not scale > 0 or (self.how == "log10" and not ((x > 0).all() and (y > 0).all())):
            return None
        shown = np.log10(x / y) if self.how == "log10" else (x - y) / scale
        low, high = (shown * np.nan if one.partial else shown for one in (second, first))
        return Values(shown, low, high, ";".join(filter(None, (first.of, second.of))))

    def _pairs(self, evidence: Evidence) -> Iterator[tuple[str, str]]:
        firsts, seconds = evidence.trials(self.of), evidence.trials(self.than)
        for a in firsts:
            if self.match == "distortion":
                yield from ((a, b) for b in _nearest(evidence, a, seconds))
                continue
            if self.of == self.than:
                yield a, a
                continue
            for b in seconds:
                if self.match is None:
                    yield a, b
                    continue
                knobs = [evidence.knobs[trial].get(self.match) for trial in (a, b)]
                if None not in knobs and knobs[0] == knobs[1]:
                    yield a, b


def _nearest(evidence: Evidence, trial: str, others: list[str]) -> list[str]:
    """The one of the nearest distortion, if it is at most a factor NEAR away."""
    logs = {}
    for name in (trial, *others):
        values = DISTORTION.values(evidence, name, TRAIN)
        if values is not None and values.shown.mean() > 0:
            logs[name] = math.log(values.shown.mean())
    if trial not in logs:
        return []
    apart = {name: abs(logs[name] - logs[trial]) for name in others if name in logs and name != trial}
    best = min(apart, key=lambda name: (apart[name], name), default=None)
    return [best] if best is not None and apart[best] <= math.log(NEAR) else []


@dataclass(frozen=True)
class Always:
    """A column of every record, without an exception: a flag is never raised, a number never too small.

    Attributes:
        least, most: bounds of every value (a flag is 0 or 1).
        known: only records in which this column has a value, too.
    """

    column: str
    of: Setting | None = None
    least: float = -math.inf
    most: float = math.inf
    known: str | None = None

    def __str__(self) -> str:
        bounds = [f"at least {self.least:g}"] * math.isfinite(self.least)
        bounds += [f"at most {self.most:g}"] * math.isfinite(self.most)
        which = f" of {self.of}" if self.of else ""
        known = f" that has {self.known}" if self.known else ""
        return f"{self.column} is {' and '.join(bounds)} in every record{which}{known}"

    def readings(self, evidence: Evidence) -> list[Reading]:
        """See :class:`Rule`; the number shown is the share of records that break the bounds."""
        rows = evidence.rows
        if self.column not in rows or (self.known is not None and self.known not in rows):
            return []
        if self.of is not None:
            rows = rows[rows["trial"].isin(evidence.trials(self.of))]
        if self.known is not None:
            rows = rows[rows[self.known].notna()]
        values = rows[self.column].astype("Float64").dropna().astype(float)
        if not len(values):
            return []
        broken = (values < self.least) | (values > self.most)
        of = str(self.of or "all settings")
        # Each study has records of its own, of which none may be dropped.
        place = Place(f"{evidence.name}: {of}", evidence.dataset, (evidence.name, of, self.column))
        return [exact(place, float(broken.mean()), len(values), holds=not broken.any())]

    def left_out(self, evidence: Evidence) -> list[tuple[str, ...]]:
        """None: a record is enough."""
        return []


EITHER = "train or test"
"""The pool in the key of a reading for which one of both is enough."""


def _place(evidence: Evidence, pair: tuple[str, str], pool: str, quantity: Quantity, of: str) -> Place:
    images = f", {IMAGES[pool]}" if len(quantity.pools) > 1 else ""
    trial, other = pair
    versus = f" vs {evidence.text(other)}" if other != trial else ""
    where = f"{evidence.name}: {trial} ({evidence.text(trial)}){versus}{images}"
    return Place(where, evidence.dataset, (*evidence.key(pair, pool), of))


def pools_text(quantity: Quantity) -> str:
    return " on private train and on private test images" if len(quantity.pools) > 1 else ""
