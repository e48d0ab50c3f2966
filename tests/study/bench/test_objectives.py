"""Objectives of LPA, compared at one distortion."""

import pytest

from study.bench.objectives import VARIANTS, change_of_gain, final_alignment


def test_objectives_are_compared_at_one_distortion(tiny_scene) -> None:
    (row,) = final_alignment(tiny_scene, features="raw", budgets=(0.05,), n=30, rounds=8)
    assert row["exact"] > row["start"]
    for name in VARIANTS:
        assert abs(row[f"{name} distortion"] / row["exact distortion"] - 1) < 0.1
        assert row[name] > row["start"]


def test_a_change_of_gain_by_hand() -> None:
    """Two runs of two budgets, gains of 0.1 and 0.3; the variant gains 0.02 more, and 0.04 less."""
    rows = [
        {"dataset": "d", "seed": seed, "start": -0.1, "exact": -0.1 + gain, "other": -0.1 + gain + more}
        for seed, gain, more in ((0, 0.05, 0.02), (0, 0.15, 0.02), (1, 0.2, -0.03), (1, 0.4, -0.05))
    ]
    mean, low, high = change_of_gain(rows, "other")
    assert mean == pytest.approx(-0.01 / 0.2)
    assert high - mean == pytest.approx(mean - low)
    assert high - mean == pytest.approx(12.706 * 0.03 / 0.2, rel=1e-3)  # t with one degree of freedom
