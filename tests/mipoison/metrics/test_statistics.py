"""Intervals and paired differences against scipy, enumeration and simulation."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.stats

from mipoison.metrics import Interval, PairedDifference, mean_interval, paired_difference


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("n", [2, 3, 5, 30])
@pytest.mark.parametrize("level", [0.8, 0.95])
def test_mean_interval_is_students(n, level):
    values = rng(n).normal(3, 2, n)
    got = mean_interval(values.tolist(), level)
    reference = scipy.stats.ttest_1samp(values, 0).confidence_interval(level)
    assert got.n == n
    assert got.mean == pytest.approx(values.mean())
    assert (got.low, got.high) == pytest.approx((reference.low, reference.high))


def test_mean_interval_by_hand():
    # t(0.975, 2) = 4.3027 and the standard error of (1, 2, 3) is 1/sqrt(3)
    got = mean_interval([1, 2, 3])
    assert (got.mean, got.low, got.high) == pytest.approx((2, 2 - 2.48414, 2 + 2.48414), abs=1e-5)


def test_one_seed_has_no_interval_and_equal_seeds_a_point():
    assert mean_interval([0.7]) == Interval(0.7, None, None, 1)
    assert mean_interval([0.5, 0.5, 0.5]) == Interval(0.5, 0.5, 0.5, 3)


def test_mean_interval_covers_as_it_claims():
    draws = rng().normal(1, 1, (1000, 4))
    hits = [interval.low <= 1 <= interval.high for interval in map(mean_interval, draws)]
    assert 0.93 < np.mean(hits) < 0.97


def test_paired_difference_is_scipys_percentile_bootstrap():
    a, b = rng(1).normal(0.3, 1, 25), rng(2).normal(0, 1, 25)
    got = paired_difference(a, b, rng=rng(), resamples=20_000)
    reference = scipy.stats.bootstrap((a - b,), np.mean, method="percentile", n_resamples=20_000, rng=rng(9))
    low, high = reference.confidence_interval
    assert got.mean == pytest.approx((a - b).mean())
    assert (got.low, got.high) == pytest.approx((low, high), abs=0.02)
    assert got.n == 25


def test_three_pairs_against_every_possible_resample():
    a, b = np.array([1.0, 2.5, 4.0]), np.array([0.5, 0.0, 3.0])
    means = [np.mean(chosen) for chosen in itertools.product(a - b, repeat=3)]  # 27, equally likely
    got = paired_difference(a, b, level=0.8, rng=rng(), resamples=50_000)
    expected = np.quantile(means, [0.1, 0.9], method="inverted_cdf")
    assert (got.low, got.high) == pytest.approx(tuple(expected))


def test_pairing_removes_what_the_seeds_share():
    shared = rng(3).normal(0, 10, 8)
    a = shared + 0.5 + rng(4).normal(0, 0.05, 8)
    got = paired_difference(a, shared, rng=rng())
    assert got.significant
    assert 0.4 < got.low < got.mean < got.high < 0.6
    assert mean_interval(a).low < shared.mean() < mean_interval(a).high  # unpaired, nothing could be said
    swapped = paired_difference(shared, a, rng=rng())
    assert (swapped.mean, swapped.low, swapped.high) == pytest.approx((-got.mean, -got.high, -got.low))
    assert swapped.significant


def test_few_seeds_do_not_make_chance_significant():
    generator = rng(5)
    outcomes = [
        paired_difference(generator.normal(size=3), np.zeros(3), rng=generator, resamples=400)
        for _ in range(1500)
    ]
    excluded = np.mean([outcome.low > 0 or outcome.high < 0 for outcome in outcomes])
    assert 0.22 < excluded < 0.30  # what the docstring says of the bootstrap alone
    assert np.mean([outcome.significant for outcome in outcomes]) < 0.07


def test_no_interval_below_three_pairs():
    assert paired_difference([2.0], [1.0], rng=rng()) == PairedDifference(1.0, None, None, 1, False)
    assert paired_difference([2.0, 3.0], [1.0, 2.0], rng=rng()) == PairedDifference(1.0, None, None, 2, False)


def test_constant_differences():
    assert paired_difference([1, 2, 3], [1, 2, 3], rng=rng()) == PairedDifference(0.0, 0.0, 0.0, 3, False)
    assert paired_difference([2, 3, 4], [1, 2, 3], rng=rng()) == PairedDifference(1.0, 1.0, 1.0, 3, True)
    # constant up to rounding: 0.1 + 0.2 is not 0.3, and neither is a difference
    assert not paired_difference([0.1 + 0.2] * 4, [0.3] * 4, rng=rng()).significant
    nearly = paired_difference([0.3, 0.4, 0.5], [0.2, 0.3, 0.4], rng=rng())
    assert nearly.low == nearly.high == nearly.mean == pytest.approx(0.1)


def test_same_generator_state_same_answer():
    a, b = rng(1).normal(size=9), rng(2).normal(size=9)
    assert paired_difference(a, b, rng=rng(7)) == paired_difference(a, b, rng=rng(7))
    assert paired_difference(a, b, rng=rng(7)) != paired_difference(a, b, rng=rng(8))


def test_a_wider_level_is_wider():
    a, b = rng(1).normal(size=20), rng(2).normal(size=20)
    narrow, wide = (paired_difference(a, b, level, rng=rng()) for level in (0.5, 0.99))
    assert wide.low < narrow.low < narrow.high < wide.high


@pytest.mark.parametrize(
    ("values", "message"),
    [([], r"\(0,\)"), ([[1.0, 2.0]], r"\(1, 2\)"), ([1.0, float("nan"), None], "2 non-finite of 3")],
)
def test_samples_that_are_none_raise(values, message):
    with pytest.raises(ValueError, match=message):
        mean_interval(values)
    with pytest.raises(ValueError, match=message):
        paired_difference(values, values, rng=rng())


def test_impossible_arguments_raise_with_their_sizes():
    with pytest.raises(ValueError, match="3 and 4"):
        paired_difference([1, 2, 3], [1, 2, 3, 4], rng=rng())
    with pytest.raises(ValueError, match=r"resamples.*0"):
        paired_difference([1, 2, 3], [1, 2, 4], rng=rng(), resamples=0)
    for level in (0, 1, 95):
        with pytest.raises(ValueError, match=f"level.*{level}"):
            mean_interval([1, 2], level)
        with pytest.raises(ValueError, match=f"level.*{level}"):
            paired_difference([1, 2, 3], [3, 2, 1], level, rng=rng())
