"""The engine benchmark: what it measures, in a size that takes a second."""

from pathlib import Path

import pytest

from study.bench.engines import CASES, peak_megabytes, rounds_of_lpa
from study.bench.objectives import VARIANTS, final_alignment


def test_rows_compare_with_the_baseline_of_their_scope() -> None:
    for scope, cases in CASES.items():
        rows = list(rounds_of_lpa(scope, size=16, width=2, n=4, rounds=1, repeats=1))
        assert [r["case"].split(", a ")[0] for r in rows] == [f"{e}, {o}" for e, o, _ in cases]
        assert rows[0]["ratio"] == 1
        for row in rows:
            assert row["value"] > 0
            assert abs(row["ratio"] * row["value"] - row["baseline"]) < 1e-6 * row["baseline"]
            assert row["holds"] == (row["ratio"] >= {"sample": 20, "batch": 2.5}[scope])


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="reads /proc, which Linux has")
def test_peak_memory_grows_with_the_batch() -> None:
    small, large = (peak_megabytes("double-backward", "batch", width=8, n=n) for n in (4, 256))
    assert large > small
    assert large > 10


def test_objectives_are_compared_at_one_distortion(tiny_scene) -> None:
    (row,) = final_alignment(tiny_scene, features="raw", budgets=(0.05,), n=30, rounds=8)
    assert row["exact"] > row["start"]
    for name in VARIANTS:
        assert abs(row[f"{name} distortion"] / row["exact distortion"] - 1) < 0.1
        assert row[name] > row["start"]
