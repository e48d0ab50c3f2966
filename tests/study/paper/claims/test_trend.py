"""The rule of a trend: tau by hand, groups of settings that differ in the knob alone, seeds without a tau."""

from __future__ import annotations

import pytest

from study.paper.claims.evidence import setting
from study.paper.claims.quantities import Column
from study.paper.claims.readings import distinct
from study.paper.claims.trend import Trend
from tests.study.paper.claims.made_up import evidence, row

X = Column("x")
RULE = Trend(X, setting("lpa"), "budget", "above")


def rising(slope: float, budgets: list[float], prefix: str, **more: object) -> list[dict[str, object]]:
    """Settings whose x rises by ``slope`` from one budget to the next."""
    return [
        row(f"{prefix}{i}", "lpa", "a", s, x=1 + slope * i + 0.001 * s, **{"defense.budget": b}, **more)
        for i, b in enumerate(budgets)
        for s in range(3)
    ]


def test_the_trend_is_kendalls_tau_on_each_seed() -> None:
    """Of four settings in order but for one exchanged pair: five pairs of six agree, so tau is 4/6."""
    rows = []
    for i, x in enumerate([1.0, 3.0, 2.0, 4.0]):
        rows += [row(f"t{i}", "lpa", "a", s, x=x, **{"defense.budget": 0.1 * (i + 1)}) for s in range(3)]
    (found,) = RULE.readings(evidence(rows))
    assert found.mean == pytest.approx(4 / 6)
    few = [r for r in rows if r["trial"] != "t3"]
    assert RULE.readings(evidence(few)) == []


BUDGETS = [0.01, 0.02, 0.03, 0.04]


def test_the_same_tau_on_all_seeds_may_be_by_lot() -> None:
    """Of the 24 orders of four settings, one has tau 1; nine have 1/3 or more: 1, 3 and 5."""
    (found,) = RULE.readings(evidence(rising(0.1, BUDGETS, "t")))
    assert found.p_holds == pytest.approx((1 / 24) ** 3)
    assert found.p_opposite == 1
    some = [r | {"x": [2.0, 1.0, 4.0, 3.0][int(str(r["trial"])[1:])]} for r in rising(0, BUDGETS, "t")]
    (weak,) = RULE.readings(evidence(some))
    assert weak.mean == pytest.approx(1 / 3)
    assert weak.p_holds == pytest.approx((9 / 24) ** 3)


@pytest.mark.parametrize("first", ["a", "z"])
def test_settings_that_differ_in_another_knob_are_a_trend_of_their_own(first: str) -> None:
    """Their order is that of the trials' names, and must not matter."""
    rows = rising(0.1, BUDGETS, first, **{"defense.search": "descent"})
    rows += rising(-0.1, BUDGETS, "m", **{"defense.search": "restarts"})
    found = RULE.readings(evidence(rows))
    assert sorted(r.mean for r in found) == [-1, 1]
    assert len({r.where for r in found}) == len({r.key for r in found}) == 2
    mixed = rising(0.1, BUDGETS[:2], "a") + rising(0.1, BUDGETS[2:], "b", **{"defense.rounds": 7})
    assert RULE.readings(evidence(mixed)) == []


def test_other_budgets_are_another_reading() -> None:
    low, high = evidence(rising(0.1, BUDGETS, "t"), "a"), evidence(rising(-0.1, [1.0, 2, 3, 4], "t"), "b")
    found = distinct([*RULE.readings(low), *RULE.readings(high)])
    assert [r.mean for r in found] == [1, -1]
    assert len(distinct([*RULE.readings(low), *RULE.readings(low)])) == 1


def test_a_seed_on_which_all_values_are_equal_has_no_tau() -> None:
    rows = [r | ({"x": 1.0} if r["seed"] == 2 else {}) for r in rising(0.1, BUDGETS, "t")]
    (found,) = RULE.readings(evidence(rows))
    assert (found.mean, found.seeds) == (1, 2)
    assert RULE.readings(evidence([r | {"x": 1.0} for r in rows])) == []


def test_screened_settings_are_counted() -> None:
    rows = rising(0.1, BUDGETS, "t")
    rows += [row("t9", "lpa", "a", s, status="cut", **{"defense.budget": 0.09}) for s in range(3)]
    rows += [row("t9", "lpa", "b", s, **{"defense.budget": 0.09}) for s in range(3)]
    by_a = Trend(Column("x", "a"), setting("lpa"), "budget", "above")
    assert len(by_a.readings(evidence(rows))) == 1
    assert len(by_a.left_out(evidence(rows))) == 1
