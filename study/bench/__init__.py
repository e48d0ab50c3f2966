"""The benchmarks of ``study/benchmark.py``. Each yields measurements.

``BENCHMARKS`` lists them. An entry imports its module only when it is called, since some start Ray.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Any

Benchmark = Callable[..., Iterable[Any]]


def _late(module: str, function: str) -> Callable[[], Benchmark]:
    return lambda: getattr(import_module(f"study.bench.{module}"), function)


BENCHMARKS: dict[str, Callable[[], Benchmark]] = {
    "engines": _late("engines", "engines"),
    "engine-memory": _late("engines", "memory"),
    "alignment": _late("alignment", "alignment"),
    "latency": _late("poisoning", "latency"),
    "growth": _late("poisoning", "growth"),
    "peak": _late("peak", "peak_share"),
    "cache": _late("stages", "cache"),
    "memory": _late("stages", "memory"),
    "overhead": _late("stages", "overhead"),
    "stacked": _late("stacked", "stacked"),
    "streaming": _late("streaming", "streaming"),
    "three-numbers": _late("three_numbers", "share"),
    "three-numbers-growth": _late("three_numbers", "growth"),
    "scheduling": _late("scheduling", "scheduling"),
}
"""Name -> a call that returns the benchmark's function. That function is called with ``quick=...`` and yields
:class:`study.bench.measurement.Measurement` objects or dictionaries of their fields."""
