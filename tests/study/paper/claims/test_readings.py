"""Readings: p-values against closed forms, the combination of several, and what is never shown."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import norm

from study.paper.claims.readings import (
    Place,
    Reading,
    above,
    distinct,
    either,
    exact,
    one_sided,
    simes,
    together,
    within,
)

HERE = Place("study: t0001", "digits", ("digits", "t0001"))


def reading(p_holds: float, p_opposite: float, *, key: str = "a", seeds: int = 3) -> Reading:
    return Reading(key, "digits", (key,), 0.0, -1.0, 1.0, seeds, p_holds, p_opposite)


def test_the_test_of_three_seeds_is_student_t_of_two_degrees() -> None:
    """The distribution function of Student's t with two degrees of freedom has a closed form."""
    values = [1.0, 2.0, 3.0]
    t = (2.0 - 0.5) / (1.0 / math.sqrt(3))
    assert above(values, 0.5) == pytest.approx(0.5 * (1 - t / math.sqrt(2 + t * t)))
    assert above(values, 2.0) == pytest.approx(0.5)
    assert above([-v for v in values], -0.5) == pytest.approx(1 - above(values, 0.5))


@pytest.mark.parametrize("values", [[5.0, 6.0], [5.0], [5.0, 6.0, math.nan]])
def test_too_few_seeds_show_nothing(values: list[float]) -> None:
    assert above(values, 0.0) == 1.0


def test_values_that_are_all_alike_leave_no_doubt() -> None:
    assert above([0.3] * 3, 0.2) == 0.0
    assert above([0.1] * 3, 0.2) == 1.0
    assert above([0.2, 0.2, 0.2 + 1e-15], 0.2) == 1.0


def test_a_claim_below_is_the_mirror_of_one_above() -> None:
    values = np.array([0.01, 0.03, 0.02])
    up = one_sided(HERE, values, 0.005, more=True, holds=values, opposite=values)
    down = one_sided(HERE, -values, -0.005, more=False, holds=-values, opposite=-values)
    assert (up.p_holds, up.p_opposite) == (down.p_holds, down.p_opposite)
    assert up.p_holds + up.p_opposite == pytest.approx(1)
    assert up.mean == pytest.approx(0.02)
    half = 4.302653 * 0.01 / math.sqrt(3)
    assert (up.low, up.high) == pytest.approx((0.02 - half, 0.02 + half))


def test_the_choice_that_speaks_against_each_side_is_used() -> None:
    low, high = np.array([0.01, 0.02, 0.03]), np.array([0.11, 0.12, 0.13])
    found = one_sided(HERE, high, 0.05, more=True, holds=low, opposite=high)
    assert found.p_holds > 0.9
    assert found.p_opposite > 0.9


def test_equivalence_needs_both_sides() -> None:
    close = within(HERE, [0.001, -0.001, 0.0005], 0.02)
    assert close.p_holds < 0.01
    assert close.p_opposite > 0.9
    apart = within(HERE, [0.1, 0.11, 0.105], 0.02)
    assert apart.p_holds > 0.9
    assert apart.p_opposite == pytest.approx(2 * above([0.1, 0.11, 0.105], 0.02))
    assert within(HERE, [0.1, -0.1, 0.0], 0.02).p_holds > 0.1


def test_of_equivalence_each_side_has_values_of_its_own() -> None:
    close, unknown = [0.001, -0.001, 0.0005], [np.nan] * 3
    for side in ("small", "large"):
        assert within(HERE, close, 0.02, **{side: unknown}).p_holds == 1.0
    assert within(HERE, [0.1, 0.11, 0.105], 0.02, small=unknown).p_opposite < 0.01
    assert within(HERE, [0.1, 0.11, 0.105], 0.02, large=unknown).p_opposite == 1.0


def test_what_was_left_out_is_missing_where_all_are_needed() -> None:
    yes, no = reading(0.001, 0.999), reading(0.999, 0.001)
    assert together([yes], every=True).alone == "stands"
    assert together([yes], every=True, left_out=True).alone == "not shown"
    assert together([no], every=True, left_out=True).alone == "refuted"
    assert together([no], every=False).alone == "refuted"
    assert together([no], every=False, left_out=True).alone == "not shown"
    assert together([yes], every=False, left_out=True).alone == "stands"


def test_too_few_seeds_are_no_test() -> None:
    few = reading(1.0, 1.0, seeds=2)
    assert (together([few], every=True).p, together([few], every=True).alone) == (None, "not shown")
    assert together([few, reading(0.5, 0.5)], every=True).p == 1.0


def test_simes_by_hand() -> None:
    assert simes(np.array([0.04, 0.01, 0.6])) == pytest.approx(min(3 * 0.01, 3 * 0.04 / 2, 0.6))
    assert simes(np.array([0.2])) == pytest.approx(0.2)


def test_a_claim_of_all_is_as_sure_as_its_weakest_reading() -> None:
    found = together([reading(0.001, 0.999), reading(0.01, 0.99, key="b")], every=True)
    assert (found.p, found.holds, found.alone) == (pytest.approx(0.02), True, "stands")
    assert found.decisive is not None
    assert found.decisive.where == "b"
    weak = together([reading(0.001, 0.999), reading(0.3, 0.7, key="b")], every=True)
    assert weak.alone == "not shown"
    assert weak.decisive is not None
    assert weak.decisive.where == "b"


def test_one_reading_refutes_a_claim_of_all_and_proves_one_of_some() -> None:
    some = [reading(0.999, 0.001), reading(0.01, 0.99, key="b"), reading(0.02, 0.98, key="c")]
    against = together(some, every=True)
    assert (against.alone, against.p) == ("refuted", pytest.approx(2 * 3 * 0.001))
    mirrored = [reading(r.p_opposite, r.p_holds, key=r.where) for r in some]
    for_it = together(mirrored, every=False)
    assert (for_it.alone, for_it.p) == ("stands", against.p)


def test_many_readings_without_an_effect_rarely_refute() -> None:
    """Under the boundary of the claim p-values are uniform: a two-sided 5 % test errs in at most 5 %."""
    rng = np.random.default_rng(0)
    wrong = 0
    for _ in range(1000):
        p = norm.sf(rng.normal(size=10))
        found = together([reading(1 - v, v, key=str(i)) for i, v in enumerate(p)], every=True)
        wrong += found.alone == "refuted"
    assert wrong / 1000 < 0.05


def test_exact_readings_are_counted() -> None:
    good, bad = exact(HERE, 0.0, 40, holds=True), exact(HERE, 0.025, 40, holds=False)
    assert together([good, good], every=True).alone == "stands"
    found = together([good, bad], every=True)
    assert (found.alone, found.p, found.decisive) == ("refuted", None, bad)
    assert together([], every=True).alone == "no record"


def test_of_two_ways_to_look_one_is_enough() -> None:
    found = either([reading(0.3, 0.7), reading(0.004, 0.996, key="b")], ("c",))
    assert found.key == ("c",)
    assert (found.where, found.p_holds, found.p_opposite) == ("b", 0.008, 0.996)
    assert either([reading(0.3, 0.7)], ("a",)) == reading(0.3, 0.7)


def test_of_one_key_the_one_with_the_most_seeds_counts() -> None:
    few, many = reading(0.5, 0.5), reading(0.1, 0.9, seeds=5)
    assert distinct([few, many, reading(0.2, 0.8, key="b")]) == [many, reading(0.2, 0.8, key="b")]
    assert distinct([many, few]) == [many]
