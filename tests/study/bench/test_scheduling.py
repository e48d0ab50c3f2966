"""Rows of the scheduling benchmark say what was measured; the bar is asked of the largest cluster alone."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from study.bench import scheduling as benchmark
from study.bench.scheduling import BAR, LENGTH_S, NODES, TRIALS_PER_NODE, scheduling


def test_rows_hold_what_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int, float]] = []

    def measure(nodes: int, each: int, length: float) -> SimpleNamespace:
        asked.append((nodes, each, length))
        steady = None if nodes == 1 else 0.99
        return SimpleNamespace(efficiency=0.8 + nodes / 100, steady=steady, start_s=1.0, wall_s=9.0)

    monkeypatch.setattr(benchmark, "measure", measure)
    rows = list(scheduling())
    assert asked == [(n, TRIALS_PER_NODE, LENGTH_S) for n in NODES]
    assert [r.case for r in rows if "after" in r.case] == [f"{n} nodes, after the start" for n in NODES[1:]]
    judged = [r for r in rows if r.bar]
    assert [(r.case, r.value) for r in judged] == [(f"{max(NODES)} nodes, whole search", 0.8 + 0.16)]
    assert judged[0].holds is (BAR <= 0.96)
    assert len(list(scheduling(quick=True))) == 1
