"""Extrapolated learning curves: laws that are known, and what an interval is worth."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.optimize import curve_fit

from mipoison.metrics.learning_curve import EXPONENTS, learning_curve

SIZES = np.array([25, 50, 100, 200, 400])


def law(n: Any, a: float, b: float, c: float) -> Any:
    return a + b * n**-c


def noisy(seed: int, a: float, n: int = 300) -> np.ndarray:
    """Errors of n images, each with a level of its own that all sizes share, and some noise at every size."""
    rng = np.random.default_rng(seed)
    return law(SIZES, a, 0.2, 0.6)[:, None] * rng.gamma(20, 1 / 20, n) + rng.normal(0, 2e-4, (5, n))


@pytest.mark.parametrize(
    ("a", "b", "c"), [(0.03, 0.2, 0.5), (0.0, 0.1, 0.3), (0.05, 1.0, 1.5), (0.02, 0.0, 1.0)]
)
def test_an_exact_law_is_found(a: float, b: float, c: float) -> None:
    found = learning_curve(SIZES, law(SIZES, a, b, c)[:, None], rng=np.random.default_rng(0))
    assert found.limit == pytest.approx(a, abs=2e-5)
    assert found.error(SIZES) == pytest.approx(law(SIZES, a, b, c), abs=1e-6)
    assert found.error(6400) == pytest.approx(law(6400.0, a, b, c), abs=2e-4)
    assert found.low == found.high == found.limit
    assert found.gain_low == found.gain_high == found.gain
    assert found.gain == pytest.approx(1 - a / law(400.0, a, b, c), abs=2e-3)
    if b:
        assert (found.scale, found.exponent) == pytest.approx((b, c), rel=0.01)


def test_the_fit_is_scipys_curve_fit() -> None:
    errors = noisy(0, 0.03)
    found = learning_curve(SIZES, errors, rng=np.random.default_rng(0), resamples=2)
    expected, _ = curve_fit(
        law, SIZES.astype(float), errors.mean(1), p0=(0.02, 0.1, 0.5), bounds=([0, 0, 0.1], [1, 10, 3])
    )
    assert (found.limit, found.scale, found.exponent) == pytest.approx(tuple(expected), rel=1e-3)


def test_the_interval_covers_the_limit() -> None:
    inside = 0
    for seed in range(10):
        found = learning_curve(SIZES, noisy(seed, 0.03), rng=np.random.default_rng(seed), resamples=60)
        assert found.low <= found.limit <= found.high
        inside += found.low <= 0.03 <= found.high
    assert inside >= 8  # of 10


def test_the_gain_s_interval_is_free_of_the_images_level() -> None:
    """Images whose errors differ by a factor, and follow one law: the limit is uncertain, the gain is not."""
    level = np.random.default_rng(0).gamma(2, 1 / 2, 100)
    errors = law(SIZES, 0.03, 0.2, 0.6)[:, None] * level
    found = learning_curve(SIZES, errors, rng=np.random.default_rng(1))
    assert found.high - found.low > 0.2 * found.limit
    assert (found.gain_low, found.gain, found.gain_high) == pytest.approx(
        3 * (1 - 0.03 / law(400, 0.03, 0.2, 0.6),), abs=2e-3
    )
    rising = learning_curve(SIZES, np.linspace(0.02, 0.05, 5)[:, None], rng=np.random.default_rng(0))
    assert rising.gain == pytest.approx(1 - 0.035 / 0.05)
    none = learning_curve(SIZES, np.zeros((5, 2)), rng=np.random.default_rng(0))
    assert (none.gain_low, none.gain, none.gain_high) == (0, 0, 0)


def test_bounds_hold_where_no_law_does() -> None:
    rising = learning_curve(SIZES, np.linspace(0.02, 0.05, 5)[:, None], rng=np.random.default_rng(0))
    assert rising.limit == pytest.approx(0.035)  # never falls: no law, and the mean is the best constant
    assert rising.scale == 0
    straight = learning_curve(SIZES, 0.1 - 0.01 * np.log(SIZES)[:, None], rng=np.random.default_rng(0))
    assert 0 <= straight.limit < 0.04
    assert EXPONENTS[0] <= straight.exponent <= EXPONENTS[1]


@pytest.mark.parametrize(
    ("sizes", "errors", "said"),
    [
        ([1, 2, 3], np.ones((3, 2)), "4 different sizes"),
        ([1, 2, 3, 3], np.ones((4, 2)), "4 different sizes"),
        ([0, 1, 2, 3], np.ones((4, 2)), "from 1 on"),
        ([1, 2, 3, 4], np.ones((3, 2)), "4 sizes, N images"),
        ([1, 2, 3, 4], np.ones(4), "4 sizes, N images"),
        ([1, 2, 3, 4], -np.ones((4, 1)), "at least 0"),
        ([1, 2, 3, 4], np.full((4, 1), np.nan), "finite"),
    ],
)
def test_what_is_refused(sizes: list[int], errors: np.ndarray, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        learning_curve(sizes, errors, rng=np.random.default_rng(0))
