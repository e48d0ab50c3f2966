"""How often the intervals of extrapolated learning curves cover a known limit, in simulated studies.

    python -m study.bench.extrapolation

Errors follow ``a + b n^-c`` for each private image, times a level of its own, with noise at every size
that all private images of a seed share: the attacker's n images are drawn once, nested, so that the noise at
n is the mean of n draws. Printed is a line for each law and noise: the share of 95 % intervals that cover the
limit and the gain, and the median of the limits over the true one.

Shape suffixes: S sizes, N private images.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import tyro
from numpy.typing import NDArray

from mipoison.metrics.learning_curve import learning_curve

LAWS = ((0.03, 0.1, 0.5), (0.03, 0.06, 0.3), (0.03, 0.3, 0.8))
"""a, b, c."""
NOISES = (0.0, 0.003, 0.013)
"""Relative standard deviation at the largest size: none, Fashion-MNIST's at 1,600 images, digits' at 360."""


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Coverage of the intervals of extrapolated learning curves."""

    studies: int = 100
    """simulated studies for each line"""
    sizes: tuple[int, ...] = (45, 90, 180, 360)
    """numbers of the attacker's images"""
    seeds: tuple[int, ...] = (2, 3)
    """numbers of seeds of a study"""
    images: int = 300
    """private images of a seed"""
    resamples: int = 100
    """refits of an interval"""


@dataclass(frozen=True)
class Coverage:
    """Of one law, noise and number of seeds.

    Attributes:
        limit, gain: share of the intervals that cover. ratio: median of the fitted over the true limit.
        width: median width of the limit's interval over the true limit.
    """

    limit: float
    gain: float
    ratio: float
    width: float


def simulated(
    rng: np.random.Generator,
    sizes_S: NDArray[np.float64],
    law: tuple[float, float, float],
    noise: float,
    n: int,
) -> NDArray[np.float64]:
    """Errors (S, N) of one seed's private images."""
    a, b, c = law
    # Brownian motion at n over n: the mean of n independent draws, of deviation n^-1/2.
    steps = np.diff(sizes_S, prepend=0.0)
    shared_S = np.cumsum(rng.normal(size=len(sizes_S)) * np.sqrt(steps)) / sizes_S * np.sqrt(sizes_S[-1])
    mean_S = (a + b * sizes_S**-c) * np.exp(noise * shared_S)
    errors_SN = mean_S[:, None] * rng.gamma(4, 1 / 4, n) * rng.gamma(100, 1 / 100, (len(sizes_S), n))
    return errors_SN


def coverage(law: tuple[float, float, float], noise: float, seeds: int, chosen: Arguments) -> Coverage:
    """Simulate studies and count intervals that cover."""
    sizes_S = np.array(sorted(chosen.sizes), float)
    a, b, c = law
    gain = 1 - a / (a + b * sizes_S[-1] ** -c)
    found = []
    for study in range(chosen.studies):
        rng = np.random.default_rng([study, seeds, LAWS.index(law) if law in LAWS else 0])
        errors = [simulated(rng, sizes_S, law, noise, chosen.images) for _ in range(seeds)]
        found.append(
            learning_curve(
                sizes_S, np.concatenate(errors, axis=1), rng=rng, resamples=chosen.resamples,
                seed_N=np.repeat(np.arange(seeds), chosen.images),
            )
        )  # fmt: skip
    return Coverage(
        float(np.mean([f.low <= a <= f.high for f in found])),
        float(np.mean([f.gain_low <= gain <= f.gain_high for f in found])),
        float(np.median([f.limit for f in found]) / a),
        float(np.median([f.high - f.low for f in found]) / a),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Simulate and print."""
    chosen = tyro.cli(Arguments, args=arguments, prog="python -m study.bench.extrapolation")
    for law, noise, seeds in itertools.product(LAWS, NOISES, chosen.seeds):
        c = coverage(law, noise, seeds, chosen)
        print(
            f"a, b, c = {law}, noise {noise:g}, {seeds} seeds: covers the limit {c.limit:.2f}, the gain "
            f"{c.gain:.2f}; limit / true {c.ratio:.2f}, width / true {c.width:.2f}",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
