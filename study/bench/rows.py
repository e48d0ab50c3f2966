"""What a benchmark reports, how it is timed, and how it is written: ratios of medians from one run."""

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
class Row:
    """One measured thing.

    Attributes:
        benchmark: which benchmark. case: what was measured.
        value, unit: its median. repeats: how many times it was measured.
        against, baseline: the case that it is compared with, and that one's median in the same run and unit.
        ratio: how many times better than the baseline (above 1: better), None without one.
        bar: the ratio or value that is asked for, as text (``>= 20``); holds: whether it is met.
        conditions: sizes and settings, in words. note: what else has to be said.
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


def against(row: Row, name: str, baseline: float, *, bar: float | None = None) -> Row:
    """The row with its ratio ``baseline / value`` (less is better), and whether that meets a bar."""
    ratio = baseline / row.value if row.value else float("inf")
    row = dataclasses.replace(row, against=name, baseline=baseline, ratio=ratio)
    return row if bar is None else dataclasses.replace(row, bar=f">= {bar:g}x", holds=ratio >= bar)


def at_most(row: Row, bar: float) -> Row:
    """The row with an upper bound on its value."""
    return dataclasses.replace(row, bar=f"<= {bar:g} {row.unit}", holds=row.value <= bar)


def wait_for_device() -> None:
    """Until the GPU has done what it was asked; nothing on a CPU."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def seconds_of(case: Callable[[], Any]) -> float:
    """Seconds of one call, the device's work included."""
    wait_for_device()
    start = time.perf_counter()
    case()
    wait_for_device()
    return time.perf_counter() - start


def interleaved(
    cases: Mapping[str, Callable[[], Any]], *, repeats: int = 5, limit_s: float = 60.0
) -> dict[str, tuple[float, int]]:
    """Median seconds of each case and its number of repeats.

    The cases take turns, so that what else the machine does hits all of them alike; each is called once
    before. Ends early after ``limit_s``, but not before each case was timed once.
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


def to_frame(rows: Iterable[Row]) -> pd.DataFrame:
    """Rows as a data frame, a column a field."""
    return pd.DataFrame(
        [dataclasses.asdict(row) for row in rows], columns=[f.name for f in dataclasses.fields(Row)]
    )


def _number(value: float | None) -> str:
    return "" if value is None or pd.isna(value) else f"{value:.4g}"


def markdown(rows: Iterable[Row], header: str) -> str:
    """A heading, then one table a benchmark; conditions and notes below it."""
    sections: dict[str, list[Row]] = {}
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
