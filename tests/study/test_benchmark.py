"""The benchmark: its arithmetic, its files, and a quick run of what needs no Ray."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from study import benchmark
from study.bench import BENCHMARKS
from study.bench.measurement import Measurement


def row(value: float = 2.0) -> Measurement:
    return Measurement(benchmark="b", case="fast", value=value, unit="ms", conditions="sizes")


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
