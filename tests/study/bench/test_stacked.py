"""The benchmarks of stacked attackers and of streaming, on their quick sizes: the numbers add up."""

from __future__ import annotations

import pytest
import torch

from mipoison.attacks.stacked import grouped
from study.bench import streaming as streaming_module
from study.bench.stacked import MEMBERS, SIZES, jobs, stacked
from study.bench.streaming import QUICK, queries, service, streaming


def test_sixteen_members_are_one_stack_and_the_ratio_is_of_medians() -> None:
    (row,) = stacked(quick=True, repeats=2)
    assert row["ratio"] == pytest.approx(row["baseline"] / row["value"])
    assert row["value"] > 0
    assert (row["holds"] is None) == (not torch.cuda.is_available())
    for size in SIZES:
        assert [len(rows) for rows in grouped(jobs(size, torch.device("cpu"), n=size.batch))] == [MEMBERS]


def test_a_stream_of_a_benchmark_is_flat() -> None:
    rows = list(streaming(quick=True, timeout_s=250))
    assert len(rows) == 2 * len(QUICK)
    memory = [r for r in rows if r["unit"] == "MiB"]
    assert [r["holds"] for r in memory] == [True, True]
    assert all(r["value"] > 50 for r in memory)  # of a process with torch in it


def test_what_would_grow_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream that needs too much memory does not meet the bar."""
    fake = {2_000: {"seconds": 1.0, "peak_mib": 300.0}, 8_000: {"seconds": 16.0, "peak_mib": 400.0}}
    monkeypatch.setattr(streaming_module, "QUICK", {"rounding": (2_000, 8_000)})
    monkeypatch.setattr(streaming_module, "_in_process", lambda defense, n, limit: fake[n])
    assert [r["holds"] for r in streaming(quick=True)] == [False, False]
    assert sum(len(batch) for batch in queries(2_500)) == 2_500
    with pytest.raises(KeyError):
        service("no such defense")
