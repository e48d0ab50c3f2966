"""The benchmark: its arithmetic, its files, and a quick run of what needs no Ray."""

from __future__ import annotations

import time
from pathlib import Path

import pandas as pd
import pytest

from study import benchmark
from study.bench import BENCHMARKS
from study.bench.measurement import Measurement, against, at_most, interleaved, markdown


def row(value: float = 2.0) -> Measurement:
    return Measurement(benchmark="b", case="fast", value=value, unit="ms", conditions="sizes")


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


def test_a_quick_run_writes_a_table_and_parquet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ["latency", "peak", "cache"]
    assert benchmark.main(["--quick", "--only", *names, "--threads", "1", "--out", str(tmp_path)]) == 0
    frame = pd.read_parquet(tmp_path / "benchmark.parquet")
    assert frame["benchmark"].nunique() == 3
    assert frame["quick"].all()
    assert (frame["value"] > 0).all()
    compared = frame.dropna(subset=["ratio"])
    assert compared["ratio"].tolist() == pytest.approx((compared["baseline"] / compared["value"]).tolist())
    text = (tmp_path / "benchmark.md").read_text()
    assert "sizes too small to say anything" in text
    assert "trained by the second trial: 0." in text
    assert "second trial" in capsys.readouterr().out


def test_a_failing_benchmark_is_named_and_the_others_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*, quick: bool) -> list[Measurement]:
        raise RuntimeError("no such device")

    monkeypatch.setitem(BENCHMARKS, "cache", lambda: broken)
    monkeypatch.setitem(BENCHMARKS, "peak", lambda: lambda *, quick: [row()])
    assert benchmark.main(["--only", "cache", "peak", "--out", str(tmp_path)]) == 1
    assert "cache: RuntimeError: no such device" in capsys.readouterr().err
    assert len(pd.read_parquet(tmp_path / "benchmark.parquet")) == 1
    assert "no such device" in (tmp_path / "benchmark.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "latencies"], "did you mean 'latency'"),
        (["--threads", "0"], "threads = 0: must be at least 1"),
        (["--out", "/proc/nothing"], "cannot be written"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert benchmark.main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1
