"""A stream of queries takes as much memory and time each, however long it is."""

from __future__ import annotations

import pytest

from study.bench import streaming as streaming_module
from study.bench.streaming import QUICK, queries, service, streaming


@pytest.mark.long
def test_a_stream_of_a_benchmark_is_flat() -> None:
    rows = list(streaming(quick=True, timeout_s=250))
    assert len(rows) == 2 * len(QUICK)
    memory = [r for r in rows if r["unit"] == "MiB"]
    assert [r["holds"] for r in memory] == [True, True]
    assert all(r["value"] > 50 for r in memory)  # of a process with torch in it


def test_what_would_grow_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bar on memory can be missed."""
    fake = {2_000: {"seconds": 1.0, "peak_mib": 300.0}, 8_000: {"seconds": 16.0, "peak_mib": 400.0}}
    monkeypatch.setattr(streaming_module, "QUICK", {"rounding": (2_000, 8_000)})
    monkeypatch.setattr(streaming_module, "_in_process", lambda defense, n, limit: fake[n])
    assert [r["holds"] for r in streaming(quick=True)] == [False, False]
    assert sum(len(batch) for batch in queries(2_500)) == 2_500
    with pytest.raises(KeyError):
        service("no such defense")
