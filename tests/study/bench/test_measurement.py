"""Rows of a benchmark: ratios, turns, bounds on time, bars that are missed."""

from __future__ import annotations

import time

from study.bench.measurement import against, at_most, interleaved, markdown
from tests.study.test_benchmark import row


def test_a_ratio_says_how_many_times_faster() -> None:
    fast = against(row(2.0), "slow", 50.0, bar=20)
    assert fast.ratio == 25
    assert fast.holds is True
    assert against(row(5.0), "slow", 50.0, bar=20).holds is False
    assert against(row(), "slow", 50.0).holds is None
    assert at_most(row(2.0), 1.9).holds is False


def test_cases_take_turns_and_their_median_is_kept() -> None:
    order: list[str] = []
    taken = interleaved(
        {"a": lambda: order.append("a"), "b": lambda: (order.append("b"), time.sleep(0.01))}, repeats=3
    )
    assert order == ["a", "b"] * 4  # once to warm up
    assert 0.01 <= taken["b"][0] < 1
    assert taken["a"][0] < taken["b"][0]
    assert taken["a"][1] == 3


def test_time_is_bounded_but_every_case_is_measured() -> None:
    taken = interleaved({"a": lambda: time.sleep(0.02), "b": lambda: None}, repeats=10_000, limit_s=0.1)
    assert 1 <= taken["a"][1] < 20
    assert taken["b"][1] >= 1


def test_the_table_says_where_a_bar_is_missed() -> None:
    text = markdown([against(row(5.0), "slow", 50.0, bar=20)], "# title")
    assert "| fast | 5 ms | 1 | slow | 50 | 10x | >= 20x | **no** |" in text
    assert "*sizes*" in text
