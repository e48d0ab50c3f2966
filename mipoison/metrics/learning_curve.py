"""Learning curve of an attacker, extrapolated: the error that it would reach with ever more images.

Errors at several sizes are fitted by a power law with an asymptote, ``error = a + b n^-c`` (Cortes, Jackel,
Solla, Vapnik and Denker, "Learning curves: asymptotic values and rate of convergence", NIPS 1993). The
asymptote a is an extrapolation and no bound: another attacker may do better, and a curve that is not yet bent
leaves a wide interval.

Shape suffixes: S sizes, N private images, R resamples.
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
        low, high: percentile bootstrap interval of the limit, over the private images.
        gain: 1 - limit / mean error at the largest size: the share of that error which more images would take
            away; at most 1, below 0 for a curve that rises.
        gain_low, gain_high: its interval. It is narrower than the limit's, since an image that is hard to
            reconstruct is so at every size.
        scale: b. exponent: c.
    """

    limit: float
    low: float
    high: float
    gain: float
    gain_low: float
    gain_high: float
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
    level: float = 0.95,
    resamples: int = 200,
) -> LearningCurve:
    """Fit the law to the mean errors by least squares, with a and b at least 0 and c within ``EXPONENTS``.

    Args:
        sizes_S: numbers of the attacker's own images, at least four different ones.
        errors_SN: each private image's error at every size: a row a size, the same images in each. With one
            column (mean errors) the interval has no width.
        rng: draws the resamples of images; the only source of randomness.
        level: coverage in (0, 1).
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
    limit, scale, exponent = _fit(sizes, errors.mean(axis=1))
    limits, gains = [], []
    for _ in range(resamples if n > 1 else 1):
        mean_S = errors[:, rng.integers(0, n, n)].mean(axis=1)
        limits.append(_fit(sizes, mean_S)[0])
        gains.append(_gain(limits[-1], float(mean_S[largest])))
    ends = [(1 - level) / 2, (1 + level) / 2]
    (low, high), (gain_low, gain_high) = (map(float, np.quantile(v, ends)) for v in (limits, gains))
    gain = _gain(limit, float(errors[largest].mean()))
    return LearningCurve(limit, low, high, gain, gain_low, gain_high, scale, exponent)


def _gain(limit: float, error: float) -> float:
    return 1 - limit / error if error > 0 else 0.0


def _fit(size_S: NDArray[np.float64], error_S: NDArray[np.float64]) -> tuple[float, float, float]:
    """a, b, c of least squares. For a given c the law is linear, and a, b come from non-negative least
    squares: what is left is a search in one bounded variable, which cannot end in another local minimum."""
    from scipy.optimize import minimize_scalar, nnls

    relative_S = size_S / size_S.max()

    def solved(c: float) -> tuple[NDArray[np.float64], float]:
        return nnls(np.column_stack([np.ones_like(relative_S), relative_S**-c]), error_S)

    best = int(np.argmin([solved(c)[1] for c in STARTS]))
    around = (STARTS[max(best - 1, 0)], STARTS[min(best + 1, len(STARTS) - 1)])
    c = float(minimize_scalar(lambda c: solved(c)[1], bounds=around, method="bounded").x)
    a, b = solved(c)[0]
    return float(a), float(b * size_S.max() ** c), c
