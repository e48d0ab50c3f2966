"""Knee, attainment and hypervolume agree with hand-computed cases and slow loops."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from study.analysis.frontier import configuration_table, hypervolume, reference_point
from study.analysis.indicators import (
    attained_at,
    attainment,
    hypervolume_by_defense,
    hypervolume_by_seed,
    knee,
    seed_points,
    usable,
)
from study.records.constraints import Constraints
from tests.study.analysis.helpers import make_episodes, one_each, record, table


def test_knee_of_a_bent_front() -> None:
    # Chord from (0, 0.02) to (1, 0.04): (0.2, 0.036) lies highest above it
    points = [(0.0, 1.0, 0.02), (0.1, 1.0, 0.028), (0.2, 1.0, 0.036), (0.6, 1.0, 0.038), (1.0, 1.0, 0.04)]
    assert knee(table(one_each(points))) == "t002"
    assert knee(table(one_each(points[::-1]))) == "t002"  # by place, not by order


@pytest.mark.parametrize(
    "points",
    [
        [(0.0, 1.0, 0.02), (1.0, 1.0, 0.04)],  # two
        [(0.0, 1.0, 0.02), (0.5, 1.0, 0.021), (1.0, 1.0, 0.04)],  # below the chord
        [(0.0, 1.0, 0.04), (0.5, 1.0, 0.03), (1.0, 1.0, 0.02)],  # one point dominates
    ],
)
def test_no_knee(points: list[tuple[float, float, float]]) -> None:
    assert knee(table(one_each(points))) is None


def test_infeasible_and_cut_settings_are_not_usable() -> None:
    rows = one_each([(0.1, 1.0, 0.02), (0.2, 1.0, 0.03), (0.3, 1.0, 0.04)])
    rows[0]["protected_accuracy"] = 0.5
    rows += [rows[1] | {"attack": "tuned", "status": "cut", "reconstruction_error": None}]
    rows += [rows[2] | {"attack": "tuned"}]
    assert usable(table(rows))["trial"].tolist() == ["t002"]


@pytest.mark.parametrize("seed", range(5))
def test_attainment_is_that_of_a_slow_loop(seed: int) -> None:
    rng = np.random.default_rng(seed)
    points = pd.DataFrame(
        [("t", "noise", s, *rng.integers(1, 8, 2) / 8) for s in range(4) for _ in range(6)],
        columns=["trial", "defense", "seed", "distortion", "error"],
    ).sample(frac=1.0, random_state=seed)
    found = attainment(points)
    for level in (25.0, 50.0, 75.0):
        for at in np.unique(points["distortion"]):
            best = sorted(
                (
                    points[(points["seed"] == s) & (points["distortion"] <= at)]["error"].max()
                    for s in range(4)
                ),
                key=lambda v: -np.inf if np.isnan(v) else v,
                reverse=True,
            )
            slow = best[int(np.ceil(4 * level / 100)) - 1]  # so many seeds reach at least this
            got = attained_at(found, level, float(at))
            assert (got is None and np.isnan(slow)) or got == pytest.approx(slow)


def test_no_points_attain_nothing() -> None:
    empty = attainment(pd.DataFrame(columns=["trial", "defense", "seed", "distortion", "error"]))
    assert empty.empty
    assert attained_at(empty, 50.0, 1.0) is None


def test_seed_points_hold_the_worst_attacker_of_each_setting() -> None:
    rows = [
        record("t", "noise", attack, seed, distortion=0.1 + seed, error=error + seed / 100)
        for attack, error in (("raw", 0.03), ("ridge", 0.02))
        for seed in (0, 1)
    ]
    frame = pd.DataFrame(rows)
    got = seed_points(frame, configuration_table(frame, constraints=Constraints()))
    assert got.values.tolist() == [["t", "noise", 0, 0.1, 0.02], ["t", "noise", 1, 1.1, pytest.approx(0.03)]]


def test_hypervolumes() -> None:
    frame = make_episodes(seeds=3)
    reference = reference_point(frame)
    assert reference is not None
    each = [
        hypervolume(configuration_table(frame[frame["seed"] == s], constraints=Constraints()), reference)
        for s in range(3)
    ]
    spread = hypervolume_by_seed(frame, reference, Constraints())
    assert spread.mean == pytest.approx(np.mean(each))
    assert spread.n == 3
    settings = configuration_table(frame, constraints=Constraints())
    by_defense = hypervolume_by_defense(settings, reference)
    assert set(by_defense) == {"anchors", "lpa", "noise", "rounding", "lfp"}
    assert by_defense["lfp"] == by_defense["anchors"]  # costs too much accuracy: not feasible
    assert max(by_defense.values()) <= hypervolume(settings, reference)
