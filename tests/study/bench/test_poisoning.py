"""Rows of the poisoning benchmark are milliseconds a sample, against the case that they name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from study.bench import poisoning
from study.bench.poisoning import growth


def test_growth_is_against_the_first_of_its_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []

    def timed(cases: Mapping[str, Callable[[], Any]], **how: Any) -> dict[str, tuple[float, int]]:
        """The i-th case takes i + 1 seconds; each is run once, so that it is there."""
        for name, call in cases.items():
            ran.append(name)
            assert call().ndim == 2
        return {name: (float(i + 1), 3) for i, name in enumerate(cases)}

    monkeypatch.setattr(poisoning, "interleaved", timed)
    monkeypatch.setattr(poisoning, "ROUNDS", 1)
    rows = list(growth(quick=True))
    assert [row.case for row in rows] == ran
    assert {row.benchmark.rpartition(" ")[2] for row in rows} == {"N", "R", "classes", "image"}
    first, second = (r for r in rows if r.benchmark.endswith("with N"))
    assert (first.value, second.value) == (1e3 * 1 / 128, 1e3 * 2 / 256)
    assert (second.against, second.ratio) == ("N = 128", 1.0)
    assert first.ratio is None
