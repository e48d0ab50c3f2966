"""Measures time per query and peak memory of long and short streams of queries through the defended service.

Each stream runs in a fresh process (``python -m study.bench.streaming DEFENSE QUERIES``), since peak memory
is a property of a process. Networks are untrained: the cost of a query does not depend on the weights.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mipoison.defenses import DEFENSES
from mipoison.metrics.memory import peak_resident_mb
from mipoison.models.classifier import ClassifierConfig
from mipoison.models.inversion import InversionConfig
from mipoison.protocols import DefenderView, Defense
from mipoison.randomness import generator
from mipoison.service import DefendedService
from mipoison.training import seeded

ROOT = Path(__file__).parents[2]
CLASSES, SHAPE, BATCH = 10, (1, 16, 16), 1000
KNOBS: dict[str, dict[str, Any]] = {
    "rounding": {},
    "lpa": {"search": "descent", "rounds": 1, "budget": 0.05},
}
STREAMS = {"rounding": (10_000, 1_000_000), "lpa": (10_000, 100_000)}
QUICK = {"rounding": (2_000, 8_000), "lpa": (1_000, 3_000)}
EXTRA_MIB, SLOWER = 32.0, 1.5
"""Bounds of the longer stream against the short one: MiB of peak memory more, factor of time per query."""


def service(defense: str) -> DefendedService:
    """A small victim behind a defense, on the CPU."""
    cpu = torch.device("cpu")
    rng = generator(0, "streaming benchmark")
    with seeded(rng, cpu):
        victim = ClassifierConfig(width=4, hidden=16).make(SHAPE, CLASSES).eval().requires_grad_(False)
        substitute = InversionConfig(width=4).make(SHAPE, CLASSES).eval().requires_grad_(False)
    x_NCHW = torch.rand(64, *SHAPE, generator=rng)
    c_NK = torch.softmax(torch.randn(64, CLASSES, generator=rng), 1)
    view = DefenderView(
        x_private_NCHW=x_NCHW, c_private_NK=c_NK, y_private_N=c_NK.argmax(1), n_classes=CLASSES,
        substitute=lambda _: substitute, substitute_data=lambda _: (c_NK, x_NCHW),
    )  # fmt: skip
    unit: Defense = DEFENSES[defense](**KNOBS[defense]).make()
    unit.fit(view, rng=rng)
    return DefendedService(victim, unit, secret=b"benchmark", n_classes=CLASSES, device=cpu)


def queries(n: int) -> Iterator[Tensor]:
    """Yield n random images in batches."""
    rng = generator(n, "queries")
    for start in range(0, n, BATCH):
        yield torch.rand(min(BATCH, n - start), *SHAPE, generator=rng)


def stream(defense: str, n: int) -> dict[str, float]:
    """Pass n queries through the service; return CPU seconds and peak memory (MiB) of this process."""
    torch.set_num_threads(1)
    api = service(defense)
    for _ in api.release_stream(queries(2 * BATCH)):
        pass  # warm up allocators and kernels
    start, count = time.process_time(), 0
    for released_NK in api.release_stream(queries(n)):
        count += len(released_NK)
    if count != n:
        raise RuntimeError(f"{n} queries, {count} answers")
    return {"seconds": time.process_time() - start, "peak_mib": peak_resident_mb()}


def streaming(*, quick: bool = False, timeout_s: float = 3600.0) -> Iterator[dict[str, Any]]:
    """Compare microseconds per query and peak memory of a long stream with those of a short one."""
    for defense, (few, many) in (QUICK if quick else STREAMS).items():
        short, long = (_in_process(defense, n, timeout_s) for n in (few, many))
        common: dict[str, Any] = {
            "benchmark": "cost in N",
            "repeats": 1,
            "against": f"{few:,} queries",
            "conditions": f"{defense}, {SHAPE[1]}x{SHAPE[2]}, {CLASSES} classes, small untrained networks, "
            "one CPU thread, CPU time",
            "note": "",
        }
        time_short, time_long = (1e6 * s["seconds"] / n for s, n in ((short, few), (long, many)))
        yield common | {
            "case": f"{defense}: time per query, {many:,} queries",
            "value": time_long,
            "unit": "us",
            "baseline": time_short,
            "ratio": time_short / time_long,
            "bar": f"at most {SLOWER:g} times the short stream's",
            "holds": time_long <= SLOWER * time_short,
        }
        yield common | {
            "case": f"{defense}: peak memory, {many:,} queries",
            "value": long["peak_mib"],
            "unit": "MiB",
            "baseline": short["peak_mib"],
            "ratio": short["peak_mib"] / long["peak_mib"],
            "bar": f"at most {EXTRA_MIB:g} MiB more than the short stream's",
            "holds": long["peak_mib"] - short["peak_mib"] <= EXTRA_MIB,
        }


def _in_process(defense: str, n: int, timeout_s: float) -> dict[str, float]:
    command = [sys.executable, "-m", "study.bench.streaming", defense, str(n)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout_s)
    if run.returncode:
        raise RuntimeError(f"{' '.join(command[1:])}: {run.stderr.strip().splitlines()[-1:]}")
    return {k: float(v) for k, v in json.loads(run.stdout).items()}


if __name__ == "__main__":
    print(json.dumps(stream(sys.argv[1], int(sys.argv[2]))))
