"""Excess leakage: intervals that pay for the choice of the attacker, verdicts, seeds needed."""

import dataclasses
import math

import numpy as np
import pytest
import scipy.stats
from numpy.typing import NDArray

from mipoison.metrics.excess import (
    MOST_SEEDS,
    Excess,
    excess_interval,
    excess_intervals,
    seeds_needed,
    verdict,
)


def errors(level_SA: NDArray[np.float64], noise: float = 0.0, seed: int = 0) -> NDArray[np.float64]:
    """Mean errors with four half-samples, which differ from the mean by noise."""
    rng = np.random.default_rng(seed)
    halves = level_SA[..., None] * (1 + noise * rng.standard_normal((*level_SA.shape, 4)))
    return np.concatenate([level_SA[..., None], halves], axis=2)


def test_with_one_attacker_each_it_is_student_t_over_seeds() -> None:
    rng = np.random.default_rng(1)
    setting, floor = 0.04 + 0.002 * rng.random((2, 6, 1))
    found = excess_interval(errors(setting, 0.1), errors(floor, 0.1), rng=rng)
    gains = 1 - setting[:, 0] / floor[:, 0]
    half = scipy.stats.t.ppf(0.95, 5) * gains.std(ddof=1) / math.sqrt(6)
    assert found.low == pytest.approx(gains.mean() - half)
    assert found.high == pytest.approx(max(gains.mean(), 0) + half)
    assert found.p == pytest.approx(scipy.stats.ttest_1samp(gains, 0, alternative="greater").pvalue)
    assert found.spread == pytest.approx(gains.std(ddof=1))
    assert found.seeds == 6


def test_the_attacker_that_is_best_on_every_seed_is_the_one_that_counts() -> None:
    setting = np.array([[1.0, 0.9, 0.95], [1.1, 0.99, 1.05], [0.9, 0.81, 0.86]])
    floor = np.array([[1.0, 1.2], [1.1, 1.3], [0.9, 1.0]])
    found = excess_interval(errors(setting), errors(floor), rng=np.random.default_rng(0))
    assert found.mean == pytest.approx(0.1)
    assert found.low == pytest.approx(0.1, abs=1e-9)
    assert found.high == pytest.approx(0.1, abs=1e-9)


def test_a_choice_among_equals_is_no_leak_where_the_naive_interval_sees_one() -> None:
    """Twenty attackers as good as label-only's one: the least of their errors is below it by chance."""
    rng = np.random.default_rng(5)
    naive = found = 0
    for _ in range(200):
        setting = 1 + 0.01 * rng.standard_normal((5, 20))
        floor = np.ones((5, 1))
        gains = 1 - setting[:, setting.mean(0).argmin()]
        naive += scipy.stats.ttest_1samp(gains, 0, alternative="greater").pvalue < 0.05
        p = excess_interval(errors(setting), errors(floor), rng=rng).p
        found += p is not None and p < 0.05
    assert naive / 200 > 0.3
    assert found / 200 <= 0.08  # 5 % and twice the standard error of 200 studies


def test_it_is_never_below_zero_and_one_seed_has_no_interval() -> None:
    found = excess_interval(np.full((1, 2, 3), 1.2), np.full((1, 1, 3), 1.0), rng=np.random.default_rng(0))
    assert found == Excess(0.0, None, None, 1, None, pytest.approx(-0.2), None)


@pytest.mark.parametrize(
    ("setting", "floor", "message"),
    [
        (np.ones((3, 2)), np.ones((3, 2, 1)), "settings, seeds, attackers"),
        (np.ones((3, 2, 2)), np.ones((2, 2, 2)), "differ in seeds"),
        (np.full((2, 1, 1), np.nan), np.ones((2, 1, 1)), "finite and at least 0"),
        (np.full((2, 1, 1), -0.1), np.ones((2, 1, 1)), "finite and at least 0"),
        (np.ones((2, 1, 1)), np.zeros((2, 1, 1)), "label-only errors must be above 0"),
    ],
)
def test_bad_input(setting: NDArray[np.float64], floor: NDArray[np.float64], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        excess_interval(setting, floor, rng=np.random.default_rng(0))


def pool(low: float, high: float, p: float) -> Excess:
    return Excess(max(low, 0.0), low, high, 5, 0.01, low, p)


def test_verdicts_in_order() -> None:
    quiet, loud = pool(-0.01, 0.01, 0.4), pool(0.03, 0.09, 0.001)
    assert verdict(loud, loud, certified_excess=0.02) == "certified"
    assert verdict(quiet, quiet, certified_excess=0.021) == "safe"
    assert verdict(quiet, None) == "undecided"  # nothing is known of the test images
    assert verdict(quiet, quiet, whole=False) == "undecided"
    assert verdict(quiet, loud, whole=False) == verdict(loud, quiet, whole=False) == "leaks"
    assert verdict(quiet, loud) == "leaks"
    assert verdict(pool(-0.01, 0.05, 0.3), quiet) == "undecided"
    assert verdict(quiet, quiet, margin=0.005) == "undecided"
    assert verdict(pool(0.0001, 0.05, 0.04), pool(-0.01, 0.05, 0.4)) == "undecided"  # two chances: 0.025 each
    one = Excess(0.1, None, None, 1, None, 0.1, None)
    assert verdict(one, one) == "undecided"


def test_seeds_needed_gives_the_power_of_steins_rule() -> None:
    """Simulated: pilots of four seeds, then so many seeds as named; the t-test finds the effect."""
    rng = np.random.default_rng(2)
    found = 0
    for _ in range(400):
        pilot = rng.normal(0.02, 0.01, 4)
        n = seeds_needed(float(pilot.std(ddof=1)), 0.02, pilot=4, level=0.95, power=0.9)
        sample = np.concatenate([pilot, rng.normal(0.02, 0.01, n - 4)])
        found += scipy.stats.ttest_1samp(sample, 0, alternative="greater").pvalue < 0.05
    assert found / 400 >= 0.87
    assert seeds_needed(0.0, 0.1, pilot=3) == 3
    assert seeds_needed(1.0, 0.001, pilot=3) == MOST_SEEDS
    with pytest.raises(ValueError, match="at least 2"):
        seeds_needed(0.1, 0.1, pilot=1)
    with pytest.raises(ValueError, match="effect = 0: must be above 0"):
        seeds_needed(0.1, 0, pilot=3)


def test_many_settings_at_once_are_each_as_alone() -> None:
    rng = np.random.default_rng(7)
    settings = 1 + 0.05 * rng.standard_normal((4, 5, 3, 9))
    floor = 1 + 0.05 * rng.standard_normal((5, 2, 9))
    together = excess_intervals(settings, floor, rng=np.random.default_rng(1))
    for setting, found in zip(settings, together, strict=True):
        alone = excess_interval(setting, floor, rng=np.random.default_rng(1))
        assert dataclasses.astuple(found) == pytest.approx(dataclasses.astuple(alone))
