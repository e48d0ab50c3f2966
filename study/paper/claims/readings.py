"""One reading of the records for a claim, and what several of them say together: p-values and a verdict.

Every claim of a mean is tested twice, at 95 % confidence: that it holds, and that its opposite does. What
neither shows is *not shown*. Seeds are the units.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy.stats
from numpy.typing import ArrayLike, NDArray

from mipoison.metrics.statistics import ROUNDING, mean_interval

Verdict = Literal["stands", "refuted", "not shown", "no record"]
LEVEL = 0.05
"""Of two-sided p-values."""
FEWEST = 3
"""Seeds below which nothing is shown."""


@dataclass(frozen=True)
class Reading:
    """What the records of one study say of a claim, in one of the ways that it speaks of them.

    Attributes:
        where: study, setting and images. data: the data set.
        key: readings with the same key are of the same scenes, the same setting and the same attackers. The
            attackers are its last entry.
        mean, low, high: of the measured quantity, with its two-sided 95 % Student-t interval over seeds; None
            for fewer than two seeds.
        seeds: number of them (of an exact reading: number of records).
        p_holds, p_opposite: one-sided; of an exact reading 0 or 1.
        exact: the claim is one of each single record, and no test is needed.
    """

    where: str
    data: str
    key: tuple[str, ...]
    mean: float
    low: float | None
    high: float | None
    seeds: int
    p_holds: float
    p_opposite: float
    exact: bool = False


@dataclass(frozen=True)
class Place:
    """Where a reading is from: see :class:`Reading`."""

    where: str
    data: str
    key: tuple[str, ...]


def above(values: ArrayLike, threshold: float) -> float:
    """p of the one-sided Student-t test that the mean is above a threshold; 1 with fewer than FEWEST values.

    Values that are all alike leave no doubt: 0 above the threshold, else 1.
    """
    sample = np.asarray(values, dtype=float) - threshold
    if len(sample) < FEWEST or not np.isfinite(sample).all():
        return 1.0
    rounding = ROUNDING * max(float(np.abs(sample).max()), abs(threshold))
    if np.ptp(sample) <= rounding:
        return 0.0 if sample.mean() > rounding else 1.0
    return float(scipy.stats.ttest_1samp(sample, 0.0, alternative="greater").pvalue)


def one_sided(
    place: Place, shown: ArrayLike, threshold: float, *, more: bool, holds: ArrayLike, opposite: ArrayLike
) -> Reading:
    """A claim that a mean is above (``more``) or below a threshold.

    Args:
        shown: values by seed, for the interval.
        holds, opposite: values by seed that the claim and its opposite are tested on. They differ where a
            choice (of an attacker) was made on the same seeds, and each test takes the choice that speaks
            against it.
    """
    sign = 1.0 if more else -1.0
    p_holds = above(sign * np.asarray(holds, dtype=float), sign * threshold)
    p_opposite = above(-sign * np.asarray(opposite, dtype=float), -sign * threshold)
    return _reading(place, shown, p_holds, p_opposite)


def within(
    place: Place, shown: ArrayLike, margin: float, *, small: ArrayLike | None = None,
    large: ArrayLike | None = None,
) -> Reading:  # fmt: skip
    """A claim that a mean lies within plus and minus a margin: two one-sided tests (Schuirmann 1987).

    Args:
        small, large: values by seed on which it is tested that the mean is small, and large; those shown
            where there is no difference.
    """
    low, high = (np.asarray(shown if v is None else v, dtype=float) for v in (small, large))
    p_holds = max(above(high, -margin), above(-low, -margin))
    p_opposite = min(1.0, 2 * min(above(high, margin), above(-low, margin)))
    return _reading(place, shown, p_holds, p_opposite)


def exact(place: Place, number: float, records: int, *, holds: bool) -> Reading:
    """A claim of each single record, which one counterexample refutes."""
    p = (0.0, 1.0) if holds else (1.0, 0.0)
    return Reading(place.where, place.data, place.key, number, None, None, records, *p, exact=True)


def _reading(place: Place, shown: ArrayLike, p_holds: float, p_opposite: float) -> Reading:
    of = mean_interval(shown)
    return Reading(place.where, place.data, place.key, of.mean, of.low, of.high, of.n, p_holds, p_opposite)


def either(readings: Sequence[Reading], key: tuple[str, ...]) -> Reading:
    """One reading of several ways to look, of which one is enough: the one that shows the claim best."""
    best = min(readings, key=lambda r: r.p_holds)
    p_holds = simes(np.array([r.p_holds for r in readings]))
    p_opposite = max(r.p_opposite for r in readings)
    return dataclasses.replace(best, key=key, p_holds=p_holds, p_opposite=p_opposite)


def distinct(readings: Sequence[Reading]) -> list[Reading]:
    """Of readings with one key, the one with the most seeds; of equals, the first."""
    kept: dict[tuple[str, ...], Reading] = {}
    for reading in readings:
        other = kept.get(reading.key)
        if other is None or reading.seeds > other.seeds:
            kept[reading.key] = reading
    return list(kept.values())


@dataclass(frozen=True)
class Together:
    """What all readings of a claim say.

    Attributes:
        p: two-sided: twice the smaller of the p-values of the claim and of its opposite, 1 at most. None for
            exact readings, without any, and where no reading has FEWEST seeds: nothing was tested.
        holds: whether the claim has the smaller one.
        decisive: the reading that the p-value is from; None without any.
        alone: the verdict of this claim, if it were the only one.
    """

    p: float | None
    holds: bool
    decisive: Reading | None
    alone: Verdict


def together(readings: Sequence[Reading], *, every: bool, left_out: bool = False) -> Together:
    """Combine readings.

    Args:
        left_out: there are settings without a reading, since they were only screened. What needs all readings
            (a claim of ``every``, the opposite of another one) is not shown then.

    A claim of ``every`` reading is as sure as the least sure one (intersection-union test), and its opposite
    needs a single reading, of which there were several to choose from: the p-value is Simes' (1986). A claim
    of some reading, the other way round.
    """
    if not readings:
        return Together(None, False, None, "no record")
    holds = np.array([r.p_holds for r in readings])
    opposite = np.array([r.p_opposite for r in readings])
    of_all = (holds if every else opposite).max()
    if left_out:
        of_all = 1.0
    p_holds, p_opposite = (of_all, simes(opposite)) if every else (simes(holds), float(of_all))
    for_it = bool(p_holds < p_opposite)
    of, least = (holds, every) if for_it else (opposite, not every)
    decisive = readings[int(of.argmax() if least else of.argmin())]
    if all(r.exact for r in readings):
        return Together(None, for_it, decisive, "stands" if for_it else "refuted")
    if all(r.seeds < FEWEST for r in readings if not r.exact):
        return Together(None, for_it, decisive, "not shown")
    p = min(1.0, 2 * float(min(p_holds, p_opposite)))
    if p > LEVEL:  # show what the claim fails on
        decisive = readings[int(holds.argmax() if every else holds.argmin())]
    return Together(p, for_it, decisive, decided(p, for_it))


def decided(p: float, holds: bool) -> Verdict:
    """The verdict of a two-sided p-value."""
    if p > LEVEL:
        return "not shown"
    return "stands" if holds else "refuted"


def simes(p: NDArray[np.float64]) -> float:
    """Simes' p-value of the hypothesis that none of several effects is there."""
    return float(scipy.stats.false_discovery_control(p).min())
