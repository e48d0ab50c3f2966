"""Learning curve of an attacker, extrapolated: the error that it would reach with ever more images.

Errors at several sizes are fitted by a power law with an asymptote, ``error = a + b n^-c`` (Cortes, Jackel,
Solla, Vapnik and Denker, "Learning curves: asymptotic values and rate of convergence", NIPS 1993). The
asymptote a is an extrapolation and no bound: another attacker may do better, and a curve that is not yet bent
leaves a wide interval.

Which n of its images an attacker happens to have moves all private images' errors together, relatively by
about n^-1/2. Resampling private images does not see that; it shows in how the curves of several seeds differ
in shape, from which it is estimated. ``study.bench.extrapolation`` measures how often the intervals cover.

Shape suffixes: S sizes, N private images, G seeds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

EXPONENTS = (0.1, 3.0)
"""Bounds of c. A flatter law cannot be told from a straight line in log n, whose limit is 0 for any data."""
STARTS = np.geomspace(*EXPONENTS, 16)
"""Exponents among which the best is refined."""
LEAST_SIZES = 4
"""One more than the law has parameters."""


@dataclass(frozen=True)
class LearningCurve:
    """A fitted law.

    Attributes:
        limit: a, the extrapolated error.
        low, high: percentile bootstrap interval of the limit, over the private images of each seed and, with
            two seeds or more, over the attacker's images. With one seed it is too narrow.
        gain: 1 - limit / mean error at the largest size: the share of that error which more images would take
            away; at most 1, below 0 where the limit lies above that error.
        gain_low, gain_high: its interval. It is narrower than the limit's, since an image that is hard to
            reconstruct is so at every size.
        noise: relative standard deviation of a seed's mean error at the largest size, by the choice of the
            attacker's images; None with one seed.
        scale: b; 0 where the errors do not fall, then the limit is but their weighted mean. exponent: c.
    """

    limit: float
    low: float
    high: float
    gain: float
    gain_low: float
    gain_high: float
    noise: float | None
    scale: float
    exponent: float

    def error(self, size: ArrayLike) -> NDArray[np.float64]:
        """The law's error with so many images."""
        return self.limit + self.scale * np.asarray(size, float) ** -self.exponent


def learning_curve(
    sizes_S: ArrayLike,
    errors_SN: ArrayLike,
    *,
    rng: np.random.Generator,
    seed_N: ArrayLike | None = None,
    level: float = 0.95,
    resamples: int = 200,
) -> LearningCurve:
    """Fit the law to the mean errors by weighted least squares, a and b at least 0, c within ``EXPONENTS``.

    An error's weight is that of a relative deviation of n^-1/2: a size's square counts n / error^2. That
    halves the error of extrapolations of small sets to twice their size.

    Args:
        sizes_S: numbers of the attacker's own images, at least four different ones.
        errors_SN: each private image's error at every size: a row a size, the same images in each. With one
            column (mean errors) the interval has no width.
        rng: draws the resamples; the only source of randomness.
        seed_N: which seed each column is of: seeds have their own victims and attacker's images. None: one.
        level: coverage in (0, 1) that is aimed at.
        resamples: number of refits.

    Raises:
        ValueError: too few sizes, sizes below 1 or twice, errors of another shape, negative or not finite.
    """
    sizes, errors = np.asarray(sizes_S, float), np.asarray(errors_SN, float)
    if sizes.ndim != 1 or len(np.unique(sizes)) != len(sizes) or len(sizes) < LEAST_SIZES or sizes.min() < 1:
        raise ValueError(
            f"a learning curve needs {LEAST_SIZES} different sizes or more from 1 on, got {sizes}"
        )
    if errors.ndim != 2 or errors.shape[0] != len(sizes) or errors.shape[1] == 0:
        raise ValueError(f"errors must be ({len(sizes)} sizes, N images), got shape {errors.shape}")
    if not (np.isfinite(errors).all() and (errors >= 0).all()):
        raise ValueError("errors must be finite and at least 0")
    largest, n = int(np.argmax(sizes)), errors.shape[1]
    seeds = np.zeros(n, int) if seed_N is None else np.asarray(seed_N)
    if seeds.shape != (n,):
        raise ValueError(f"seeds must name one seed for each of {n} images, got shape {seeds.shape}")
    of_seed = [np.flatnonzero(seeds == seed) for seed in np.unique(seeds)]
    noise, freedom = _noise(sizes, np.stack([errors[:, own].mean(axis=1) for own in of_seed]))
    limit, scale, exponent = _fit(sizes, errors.mean(axis=1))
    limits, gains = [], []
    for _ in range(resamples if n > 1 else 1):
        drawn = np.concatenate([own[rng.integers(0, len(own), len(own))] for own in of_seed])
        mean_S = errors[:, drawn].mean(axis=1)
        if noise:  # its own uncertainty, too: few seeds estimate it
            deviation = noise * np.sqrt(freedom / rng.chisquare(freedom) / len(of_seed))
            mean_S = mean_S * np.exp(deviation * _relative(sizes) * rng.normal(size=len(sizes)))
        limits.append(_fit(sizes, mean_S)[0])
        gains.append(_gain(limits[-1], float(mean_S[largest])))
    ends = [(1 - level) / 2, (1 + level) / 2]
    (low, high), (gain_low, gain_high) = (map(float, np.quantile(v, ends)) for v in (limits, gains))
    gain = _gain(limit, float(errors[largest].mean()))
    return LearningCurve(limit, low, high, gain, gain_low, gain_high, noise, scale, exponent)


def _relative(size_S: NDArray[np.float64]) -> NDArray[np.float64]:
    """Standard deviations of the noise at the sizes, in units of that at the largest."""
    return np.sqrt(size_S.max() / size_S)


def _noise(size_S: NDArray[np.float64], mean_GS: NDArray[np.float64]) -> tuple[float | None, int]:
    """The relative noise of a seed's mean error at the largest size, and its degrees of freedom.

    What is left of the log errors when each size's mean over seeds and each seed's level are taken away.
    """
    freedom = (len(mean_GS) - 1) * (len(size_S) - 1)
    if freedom == 0 or not (mean_GS > 0).all():
        return None, freedom
    weight_S = _relative(size_S) ** -2
    log_GS = np.log(mean_GS)
    log_GS = log_GS - log_GS.mean(axis=0)
    log_GS = log_GS - (log_GS @ weight_S / weight_S.sum())[:, None]
    return float(np.sqrt((log_GS**2 @ weight_S).sum() / freedom)), freedom


def _gain(limit: float, error: float) -> float:
    return 1 - limit / error if error > 0 else 0.0


def _fit(size_S: NDArray[np.float64], error_S: NDArray[np.float64]) -> tuple[float, float, float]:
    """a, b, c of weighted least squares. For a given c the law is linear, and a, b come from non-negative
    least squares: what is left is a search in one bounded variable, on a grid and then around its best."""
    from scipy.optimize import minimize_scalar, nnls

    relative_S = size_S / size_S.max()
    weight_S = 1 / _relative(size_S)
    if (error_S > 0).all():
        weight_S = weight_S * error_S.mean() / error_S

    def solved(c: float) -> tuple[NDArray[np.float64], float]:
        law_S2 = np.column_stack([np.ones_like(relative_S), relative_S**-c])
        return nnls(weight_S[:, None] * law_S2, weight_S * error_S)

    best = int(np.argmin([solved(c)[1] for c in STARTS]))
    around = (STARTS[max(best - 1, 0)], STARTS[min(best + 1, len(STARTS) - 1)])
    c = float(minimize_scalar(lambda c: solved(c)[1], bounds=around, method="bounded").x)
    a, b = solved(c)[0]
    return float(a), float(b * size_S.max() ** c), c
