"""The worst case over the attackers of a setting."""

from __future__ import annotations

import math

import pytest

from mipoison.metrics.statistics import mean_interval
from study.analysis.frontier import (
    configuration_table,
)
from study.analysis.worst_case import find_worst, prepare
from study.records.constraints import Constraints
from tests.study.analysis.helpers import failed, make_episodes, record, row_of, table


def test_worst_case_over_the_suite():
    rows = [
        record("a", "lpa", "passive", 0, error=0.02, accuracy=0.5),
        record("a", "lpa", "passive", 1, error=0.04, accuracy=0.9),
        record("a", "lpa", "raw", 0, error=0.01, accuracy=0.6),
        record("a", "lpa", "raw", 1, error=0.03, accuracy=0.7),
        record("label-only", "label-only", "passive", 0, error=0.05, accuracy=0.2),
        record("label-only", "label-only", "passive", 1, error=0.06, accuracy=0.2),
        record("label-only", "label-only", "raw", 0, error=0.04, accuracy=0.4),
        record("label-only", "label-only", "raw", 1, error=0.04, accuracy=0.2),
    ]
    got = row_of(table(rows), "a")
    assert got["worst_attack_accuracy"] == pytest.approx(0.7)
    assert got["worst_attack_accuracy_attacker"] == "passive"
    assert got["worst_reconstruction_error"] == pytest.approx(0.02)
    assert got["worst_reconstruction_error_attacker"] == "raw"
    leakage = mean_interval([1 - 0.01 / 0.04, 1 - 0.03 / 0.04])
    gain = mean_interval([0.5 - 0.4, 0.9 - 0.2])
    for name, expected in (("excess_leakage", leakage), ("excess_attack_accuracy", gain)):
        found = (got[name], got[f"{name}_low"], got[f"{name}_high"])
        assert found == pytest.approx((expected.mean, expected.low, expected.high))
    assert got["n_pairs"] == 2
    assert got["excess_leakage_low"] < 0
    assert not got["within_margin"]  # two seeds show little: a wide interval is no reason to pass
    floor = row_of(table(rows), "label-only")
    assert (floor["excess_leakage"], floor["excess_leakage_bound"], floor["within_margin"]) == (0, 0, True)


def test_a_repeated_episode_counts_once_and_a_successful_one_wins():
    base = record("a", "lpa", "raw", 0, error=0.02)
    for rows, error in (
        ([failed(base), base], 0.02),
        ([base | {"attempt": 1, "reconstruction_error": 0.03}, base | {"attempt": 0}], 0.02),
        ([base | {"episode_id": "z", "reconstruction_error": 0.03}, base], 0.02),
        ([base | {"reconstruction_error": 0.03}, base], 0.02),
    ):
        for order in (rows, rows[::-1]):
            got = table(order)
            assert got["worst_reconstruction_error"].tolist() == [error]
            assert got["n_failed"].tolist() == [0]


def test_mixed_scenes_and_contradicting_knobs_are_refused():
    row = record("a", "lpa", "raw", 0)
    with pytest.raises(ValueError, match="mix dataset: digits, mnist"):
        table([row, record("b", "lpa", "raw", 0, dataset="mnist")])
    with pytest.raises(ValueError, match=r"mix scene\.limit: 10, 20"):
        table([row | {"scene.limit": 10}, row | {"scene.limit": 20}])
    with pytest.raises(ValueError, match=r"trial 'a' has several values of defense\.budget"):
        table([row | {"defense.budget": 0.1}, row | {"defense.budget": 0.2, "seed": 1}])


def test_worst_cases_by_seed():
    frame = make_episodes()
    worst = find_worst(prepare(frame))
    case = worst.case(list(worst.trials).index("t003-lpa"))
    rows = frame[(frame["trial"] == "t003-lpa") & (frame["attack"] == case.error_attacker)]
    assert case.error_by_seed.to_dict() == dict(zip(rows["seed"], rows["reconstruction_error"], strict=True))
    settings = row_of(configuration_table(frame, constraints=Constraints()), "t003-lpa")
    assert math.isclose(settings["worst_reconstruction_error"], case.error_by_seed.mean())
