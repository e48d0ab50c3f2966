"""What certificate, estimated limit and identification cost: rows, bars, and CPU time that is CPU time."""

from __future__ import annotations

import time

import pytest

from study.bench import BENCHMARKS
from study.bench.three_numbers import cpu_seconds, growth, share


def test_sleep_costs_no_cpu_time_and_work_does() -> None:
    assert cpu_seconds(lambda: time.sleep(0.3)) < 0.1

    def work() -> None:
        end = time.process_time() + 0.05
        while time.process_time() < end:
            pass

    assert cpu_seconds(work) >= 0.05


def test_every_number_has_a_share_and_certificates_a_bar() -> None:
    rows = list(share(quick=True))
    numbers = ("certificate", "estimated limit", "identification")
    assert [r.case for r in rows] == [f"{n}, {d}" for d in ("noise", "rounding") for n in numbers]
    assert all(0 < r.value < 100 for r in rows)
    assert [r.bar for r in rows] == ["<= 2 %", "", ""] * 2
    drawn, counted = (r.value for r in rows if r.case.startswith("certificate"))
    assert drawn > counted


@pytest.mark.parametrize("name", ["three-numbers-growth"])
def test_pools_grow(name: str) -> None:
    rows = list(BENCHMARKS[name]()(quick=True))
    assert [r.case.rpartition(", ")[2] for r in rows] == ["50 vectors"] * 2 + ["100 vectors"] * 2
    assert all(r.value > 0 for r in rows)
    assert [r.case for r in growth(quick=True)] == [r.case for r in rows]
