"""A benchmark's result: timing of interleaved cases, ratios of medians of one run, and Markdown tables."""

from __future__ import annotations

import dataclasses
import gc
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One case of a benchmark and its result.

    Attributes:
        benchmark, case: names. value, unit: the median. repeats: number of repetitions.
        against, baseline: the case to compare with, and its median in the same run and unit.
        ratio: how many times better than the baseline (above 1: better), None without one.
        bar: the required ratio or value, as text (``>= 20``). holds: whether it is met.
        conditions: sizes and settings, as text. note: a remark.
    """

    benchmark: str
    case: str
    value: float
    unit: str
    repeats: int = 1
    against: str = ""
    baseline: float | None = None
    ratio: float | None = None
    bar: str = ""
    holds: bool | None = None
    conditions: str = ""
    note: str = ""


def against(row: Measurement, name: str, baseline: float, *, bar: float | None = None) -> Measurement:
    """A copy with the ratio ``baseline / value`` (less is better), and whether it meets the bar."""
    ratio = baseline / row.value if row.value else float("inf")
    row = dataclasses.replace(row, against=name, baseline=baseline, ratio=ratio)
    return row if bar is None else dataclasses.replace(row, bar=f">= {bar:g}x", holds=ratio >= bar)


def at_most(row: Measurement, bar: float) -> Measurement:
    """A copy with an upper bound on the value, and whether it is met."""
    return dataclasses.replace(row, bar=f"<= {bar:g} {row.unit}", holds=row.value <= bar)


def wait_for_device() -> None:
    """Wait until the GPU has finished; do nothing on a CPU."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def seconds_of(case: Callable[[], Any]) -> float:
    """Seconds of one call, including the work of the device."""
    wait_for_device()
    start = time.perf_counter()
    case()
    wait_for_device()
    return time.perf_counter() - start


def interleaved(
    cases: Mapping[str, Callable[[], Any]], *, repeats: int = 5, limit_s: float = 60.0
) -> dict[str, tuple[float, int]]:
    """Time several cases; return each one's median seconds and number of repeats.

    The cases take turns, so that other load on the machine affects them equally. Each is called once before
    to warm up. Timing ends early after ``limit_s``, but not before each case was timed once.
    """
    for case in cases.values():
        case()
    taken: dict[str, list[float]] = {name: [] for name in cases}
    began = time.perf_counter()
    for _ in range(repeats):
        for name, case in cases.items():
            if taken[name] and time.perf_counter() - began > limit_s:
                continue
            gc.disable()
            taken[name].append(seconds_of(case))
            gc.enable()
    return {name: (statistics.median(values), len(values)) for name, values in taken.items()}


def to_frame(rows: Iterable[Measurement]) -> pd.DataFrame:
    """Measurements as a data frame with a column per field."""
    return pd.DataFrame(
        [dataclasses.asdict(row) for row in rows], columns=[f.name for f in dataclasses.fields(Measurement)]
    )


def _number(value: float | None) -> str:
    return "" if value is None or pd.isna(value) else f"{value:.4g}"


def markdown(rows: Iterable[Measurement], header: str) -> str:
    """A Markdown page: the header, then a table per benchmark with its conditions and notes."""
    sections: dict[str, list[Measurement]] = {}
    for row in rows:
        sections.setdefault(row.benchmark, []).append(row)
    lines = [header, ""]
    for name, members in sections.items():
        lines += [
            f"## {name}",
            "",
            "| case | median | n | against | its median | ratio | bar | holds |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for r in members:
            holds = "" if r.holds is None else "yes" if r.holds else "**no**"
            ratio = "" if r.ratio is None else f"{r.ratio:.3g}x"
            lines.append(
                f"| {r.case} | {_number(r.value)} {r.unit} | {r.repeats} | {r.against} "
                f"| {_number(r.baseline)} | {ratio} | {r.bar} | {holds} |"
            )
        lines.append("")
        lines += [f"*{text}*  " for text in dict.fromkeys(r.conditions for r in members if r.conditions)]
        lines += [f"{text}  " for text in dict.fromkeys(r.note for r in members if r.note)]
        lines.append("")
    return "\n".join(lines)
