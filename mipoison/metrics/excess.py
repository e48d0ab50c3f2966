"""Excess leakage with an interval that accounts for the choice of the worst attacker; verdicts; seeds needed.

A setting's worst attacker is chosen by looking at the errors, and the least of several noisy means is too
low: an interval that treats the chosen one as given sees leakage where there is none. Here it is chosen on
resamples that leave out the seed on which it is then scored.

Shape suffixes: T settings, S seeds, A attackers of a setting, B attackers on label-only, H the mean over all
images and those over half-samples, R resamples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mipoison.metrics.constants import MARGIN as MARGIN
from mipoison.metrics.statistics import ROUNDING

Array = NDArray[np.float64]
LEVEL = 0.95
"""Coverage of each one-sided interval."""
POWER = 0.95
"""What :func:`seeds_needed` aims at. The choice of an attacker lowers the power to about 0.9
(``study/bench/calibration.py``)."""
RESAMPLES = 200
MOST_SEEDS = 1000
"""Cap of :func:`seeds_needed`; a result of this size means that more seeds do not help."""

Verdict = Literal["certified", "safe", "leaks", "undecided"]


@dataclass(frozen=True)
class Excess:
    """What the suite's worst attacker gains over knowing the label alone: ``1 - error / label-only error``.

    Attributes:
        mean: with the worst attackers of all seeds, at least 0: whoever sees a score can ignore it.
        low: lower end of the one-sided 95 % interval of the gain of an attacker chosen on other seeds.
        high: upper end of the one-sided 95 % interval of the gain of the attacker chosen on these very seeds.
            None (both): fewer than two seeds.
        seeds: number of them.
        spread: standard deviation over seeds of what ``low`` is made of; None: fewer than two seeds.
        gain: the mean before it is cut at 0; below 0 the attackers do worse than label-only's.
        p: of the one-sided test that an attacker fixed beforehand gains nothing; None: fewer than two seeds.
    """

    mean: float
    low: float | None
    high: float | None
    seeds: int
    spread: float | None
    gain: float
    p: float | None


def excess_interval(
    error_SAH: Array, floor_SBH: Array, *, rng: np.random.Generator, level: float = LEVEL
) -> Excess:
    """:func:`excess_intervals` of one setting."""
    return excess_intervals(np.asarray(error_SAH)[None], floor_SBH, rng=rng, level=level)[0]


def excess_intervals(
    error_TSAH: Array, floor_SBH: Array, *, rng: np.random.Generator, level: float = LEVEL
) -> list[Excess]:
    """Excess leakage of settings on one pool of images a seed, and its two one-sided intervals.

    Seeds and images are resampled together: a resample is a draw of seeds with replacement and, for each of
    them, of one of its half-samples of images. In each resample the worst attacker is chosen, and scored on a
    seed that is not in it (out of bag). Student's t over these scores gives ``low``: what an attacker gains
    who was fixed beforehand. Seeds that chose and seeds that are scored overlap from score to score, so that
    the scores are correlated as those of a cross-validation are: their variance is corrected as by Nadeau and
    Bengio (2003), ``1/n`` to ``1/n + 1/(n - 1)``, the less the more often the resamples choose alike.
    For ``high`` the setting's attacker is chosen with the scored seed in the resample, which overstates the
    gain, and label-only's without it: what is called safe has to be safe either way.

    Args:
        error_TSAH: mean errors of each setting's attackers; index 0 of H is the mean over all images, the
            others are those of the pool's half-samples (none: images are not resampled).
        floor_SBH: the same for the attackers on label-only; same seeds, same pools.
        rng: draws the resamples, which all settings share.
        level: of each one-sided interval.

    Raises:
        ValueError: shapes that do not fit, errors that are not finite, below 0, or on label-only not above 0.
    """
    import scipy.special
    import scipy.stats

    error_TSAH = _checked(error_TSAH, 4, "errors must be (settings, seeds, attackers, 1 + half-samples)")
    floor_SBH = _checked(floor_SBH, 3, "label-only errors must be (seeds, attackers, 1 + half-samples)")
    if not (floor_SBH > 0).all():
        raise ValueError("label-only errors must be above 0: the excess is a share of them")
    n_settings, n, _, n_halves = error_TSAH.shape
    if (n, n_halves) != (floor_SBH.shape[0], floor_SBH.shape[2]):
        raise ValueError(
            f"errors of the setting and of label-only differ in seeds or half-samples: "
            f"{error_TSAH.shape[1:]} and {floor_SBH.shape}"
        )
    error_TSA, floor_SB = error_TSAH[..., 0], floor_SBH[..., 0]
    gain_T = 1 - error_TSA.mean(1).min(1) / floor_SB.mean(0).min()
    mean_T = np.maximum(0.0, gain_T)
    if n < 2:
        return [Excess(max(0.0, float(gain)), None, None, n, None, float(gain), None) for gain in gain_T]
    out_TS, in_TS = np.empty((2, n_settings, n))
    chosen_TSR = np.empty((n_settings, n, RESAMPLES), dtype=int)
    fixed_SR = np.empty((n, RESAMPLES), dtype=int)
    for s in range(n):
        seed_RS = rng.choice(np.delete(np.arange(n), s), (RESAMPLES, n - 1))
        half_RS = rng.integers(0, n_halves, (RESAMPLES, n))
        without = _weights(seed_RS, half_RS[:, 1:], n, n_halves)
        own = _weights(np.full((RESAMPLES, 1), s), half_RS[:, :1], n, n_halves)
        chosen_TSR[:, s] = _least(error_TSAH, without)
        fixed_SR[s] = _least(floor_SBH[None], without)[0]
        worst_TR = _least(error_TSAH, without * (n - 1) / n + own / n)
        floor_R = floor_SB[s, fixed_SR[s]]
        for scores_TS, least_TR in ((out_TS, chosen_TSR[:, s]), (in_TS, worst_TR)):
            scores_TS[:, s] = 1 - (np.take_along_axis(error_TSA[:, s], least_TR, 1) / floor_R).mean(1)
    fixed_unlike = _disagreement(fixed_SR)
    quantile, out = float(scipy.stats.t.ppf(level, n - 1)), []
    for all_seeds, mean, chosen_SR, out_S, in_S in zip(
        gain_T, mean_T, chosen_TSR, out_TS, in_TS, strict=True
    ):
        unlike = max(_disagreement(chosen_SR), fixed_unlike)
        gain, spread = float(out_S.mean()), float(out_S.std(ddof=1))
        inflated = spread * math.sqrt(1 + n / (n - 1) * min(1.0, 2 * unlike))
        error = max(inflated / math.sqrt(n), ROUNDING)
        high = max(float(in_S.mean()), mean) + quantile * float(in_S.std(ddof=1)) / math.sqrt(n)
        p = float(scipy.special.stdtr(n - 1, -gain / error))
        low = gain - quantile * error
        out.append(Excess(float(mean), low, float(high), n, spread, float(all_seeds), p))
    return out


def _checked(values: Array, n_dim: int, shape: str) -> Array:
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != n_dim or 0 in values.shape:
        raise ValueError(f"{shape}, got {values.shape}")
    if not (np.isfinite(values).all() and (values >= 0).all()):
        raise ValueError(f"{shape.partition(' must')[0]} must be finite and at least 0")
    return values


def _weights(seed_RS: NDArray[np.int64], half_RS: NDArray[np.int64], n: int, n_halves: int) -> Array:
    """What each resample takes of each seed's means: (R, n * n_halves), rows that sum to 1."""
    weights = np.zeros((len(seed_RS), n * n_halves))
    rows = np.repeat(np.arange(len(seed_RS)), seed_RS.shape[1])
    np.add.at(weights, (rows, (seed_RS * n_halves + half_RS).ravel()), 1 / seed_RS.shape[1])
    return weights


def _least(error_TSAH: Array, weights: Array) -> NDArray[np.int64]:
    """The attacker of least mean error in each resample (T, R); of equals, the first."""
    t, s, a, h = error_TSAH.shape
    flat = error_TSAH.transpose(1, 3, 0, 2).reshape(s * h, t * a)
    return (weights @ flat).reshape(-1, t, a).argmin(2).T


def _disagreement(chosen: NDArray[np.int64]) -> float:
    """Chance that two resamples choose different attackers."""
    share = np.bincount(chosen.ravel()) / chosen.size
    return 1 - float(np.square(share).sum())


def verdict(
    train: Excess,
    test: Excess | None,
    *,
    certified_excess: float | None = None,
    margin: float = MARGIN,
    whole: bool = True,
) -> Verdict:
    """What may be said of a setting.

    ``certified``: no attacker at all gains more than the margin. ``safe``: the upper ends are within the
    margin, on private train and on private test images. ``leaks``: a gain above zero is shown on one of the
    pools, at half the error probability each, since there are two chances to be wrong. ``undecided``:
    neither.

    Args:
        train, test: on private train and on private test images. None: not measured there, and never safe.
        certified_excess: the larger of the certificates on both pools; None: there is none.
        margin: accepted excess.
        whole: whether what was measured may show that little leaks; if not it is never safe, and may leak.
    """
    if certified_excess is not None and certified_excess <= margin:
        return "certified"
    pools = [pool for pool in (train, test) if pool is not None]
    if whole and test is not None and all(pool.high is not None and pool.high <= margin for pool in pools):
        return "safe"
    if any(pool.p is not None and pool.p * len(pools) < 1 - LEVEL for pool in pools):
        return "leaks"
    return "undecided"


def seeds_needed(
    spread: float, effect: float, *, pilot: int, level: float = 1 - (1 - LEVEL) / 2, power: float = POWER
) -> int:
    """Seeds at which a one-sided test finds an effect of this size in ``power`` of all studies.

    Stein's (1945) two-stage rule: ``(t_level + t_power)^2 spread^2 / effect^2`` with Student's t of the
    pilot's degrees of freedom, which pays for not knowing the spread.

    Args:
        spread: standard deviation over the pilot's seeds. effect: what is to be told from zero, above 0.
        pilot: seeds that the spread was measured on, at least 2.

    Returns:
        Number of seeds in all, those of the pilot included; MOST_SEEDS at most.
    """
    import scipy.stats

    if pilot < 2:
        raise ValueError(f"the spread of {pilot} seeds is unknown: run at least 2")
    if not effect > 0:
        raise ValueError(f"effect = {effect}: must be above 0")
    t = scipy.stats.t.ppf(level, pilot - 1) + scipy.stats.t.ppf(power, pilot - 1)
    return int(min(max(math.ceil((t * spread / effect) ** 2), pilot), MOST_SEEDS))
