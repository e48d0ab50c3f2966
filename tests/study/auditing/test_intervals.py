"""The interval covers a known excess, widens for what it has to pay for, and is 0 where nothing leaks."""

from __future__ import annotations

import numpy as np
import pytest

from study.auditing.intervals import UNTRIED_LEAST, excess_of


def simulated(
    n: int, gain: float, seed: int, attackers: int = 5
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Errors of attackers of which one gains ``gain`` in the mean, the others less."""
    rng = np.random.default_rng(seed)
    floor = rng.gamma(4.0, 0.01, n)
    scores = {"class-mean": floor}
    for a in range(attackers - 1):
        true = 1 - gain if a == 0 else 1 - gain * rng.uniform(0, 0.95)
        scores[f"a{a}"] = np.maximum(floor * (true + 0.2 * rng.standard_normal(n)), 1e-9)
    return scores, {"class-mean": floor}


@pytest.mark.parametrize("gain", [0.0, 0.02, 0.3])
def test_it_covers(gain: float) -> None:
    covered, low, runs = 0, 0, 100
    for seed in range(runs):
        found = excess_of(*simulated(200, gain, seed), None, doublings=0, rng=np.random.default_rng(seed))
        covered += found.low <= gain <= found.high
        low += found.low > gain
    assert covered >= 95
    assert low <= 4


def test_what_widens_it() -> None:
    scores, labels = simulated(300, 0.2, 1)
    halves = np.array([[0.15, 0.19], [0.16, 0.18]])

    def found(halves: np.ndarray | None, doublings: float) -> float:
        rng = np.random.default_rng(0)
        return excess_of(scores, labels, halves, doublings=doublings, rng=rng).high

    assert found(halves, 0) > found(None, 0)
    exact = excess_of(scores, labels, halves, doublings=0, rng=np.random.default_rng(0))
    assert exact.by_training == pytest.approx(np.sqrt((0.04**2 + 0.02**2) / 2 / 4))
    assert found(halves, 2) - found(halves, 0) == pytest.approx(2 * (exact.gain - 0.17))
    worse = excess_of(*simulated(60, 0.2, 1), halves, doublings=0, rng=np.random.default_rng(0))
    assert worse.by_images > exact.by_images


def test_labels_alone_leak_nothing() -> None:
    floor = np.random.default_rng(0).gamma(4.0, 0.01, 100)
    found = excess_of({"class-mean": floor, "b": floor * 1.1}, {"class-mean": floor}, None, doublings=3,
                      rng=np.random.default_rng(0))  # fmt: skip
    assert (found.estimate, found.low, found.gain) == (0, 0, 0)
    assert found.high == pytest.approx(UNTRIED_LEAST)
    assert found.attacker == "class-mean"
    with pytest.raises(ValueError, match="label tells everything"):
        excess_of({"a": 0 * floor}, {"a": 0 * floor}, None, doublings=0, rng=np.random.default_rng(0))
