"""Compares alignment engines with double backward: time of LPA's rounds, and memory.

Measurements are dictionaries of the fields of ``study.bench.measurement.Measurement``. Decoders are
untrained, as the cost of a gradient does not depend on training; ``study.bench.objectives`` measures quality.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from mipoison.alignment import make_engine
from mipoison.defenses.descent import descend
from mipoison.defenses.lpa import LPAConfig
from mipoison.models.inversion import InversionConfig, InversionNet
from mipoison.randomness import QueryRandomness, generator
from mipoison.scene import default_device
from mipoison.training import seeded
from study.bench.measurement import seconds_of

BASELINES = {"sample": "double-backward-loop", "batch": "double-backward"}
BARS = {"sample": 20.0, "batch": 2.5}
Case = tuple[str, str, int]
"""Engine, objective, number of rounds for which a gradient is reused."""
CASES: dict[str, list[Case]] = {
    "sample": [
        ("double-backward-loop", "cosine", 1),
        ("double-backward", "cosine", 1),
        ("forward-over-reverse", "cosine", 1),
        ("forward-over-reverse-bf16", "cosine", 1),
        ("forward-over-reverse", "cosine", 2),
        ("forward-over-reverse-bf16", "cosine", 2),
        ("finite-difference", "frozen", 1),
        ("forward-over-reverse", "frozen", 1),
        ("forward-over-reverse-bf16", "frozen", 1),
    ],
    "batch": [
        ("double-backward", "cosine", 1),
        ("finite-difference", "cosine", 1),
        ("forward-over-reverse", "cosine", 1),
        ("forward-over-reverse-bf16", "cosine", 1),
    ],
}

COMPILED: dict[str, list[Case]] = {
    "sample": [
        ("forward-over-reverse-compiled", "cosine", 1),
        ("forward-over-reverse-bf16-compiled", "cosine", 1),
    ],
    "batch": [("forward-over-reverse-compiled", "cosine", 1)],
}
"""Engines through torch.compile, if it works here. Compiling takes tens of seconds."""


def can_compile() -> bool:
    """Whether torch.compile can work here: with a GPU, or a C++ compiler."""
    found = shutil.which(os.environ.get("CXX", "g++")) or shutil.which("clang++")
    return default_device().type == "cuda" or found is not None


def subject(
    size: int, width: int, n: int, classes: int = 5
) -> tuple[InversionNet, list[Tensor], Tensor, Tensor]:
    """A frozen decoder, a target, n vectors and images, on the default device; seeded."""
    device, rng = default_device(), generator(0, "engine benchmark")
    with seeded(rng, torch.device("cpu")):
        net = InversionConfig(width=width).make((1, size, size), classes)
    decoder = net.eval().requires_grad_(False).to(device)
    target = [torch.randn(p.shape, generator=rng).to(device) for p in decoder.parameters()]
    c_NK = torch.softmax(2 * torch.randn(n, classes, generator=rng), 1).to(device)
    return decoder, target, c_NK, torch.rand(n, 1, size, size, generator=rng).to(device)


def rounds_of_lpa(
    scope: str,
    *,
    size: int = 32,
    width: int = 32,
    n: int = 128,
    rounds: int = 10,
    repeats: int = 5,
    compiled: bool = False,
) -> Iterator[dict[str, Any]]:
    """Time LPA's descent (projections included) with each engine against double backward, cases interleaved.

    Args:
        scope: ``sample`` (baseline: one double backward a sample) or ``batch`` (one for the batch).
        size: image side.
        width: of the decoder.
        n: vectors.
        rounds: R.
        repeats: repetitions of a case (of the loop over samples at most 3).
        compiled: also measure the engines through torch.compile, if it works here.
    """
    decoder, target, c_NK, x_NCHW = subject(size, width, n)
    config, rng = LPAConfig(budget=0.01, rounds=rounds), QueryRandomness(torch.arange(n))
    calls: dict[Case, Callable[[], object]] = {}
    for name, objective, refresh in CASES[scope] + COMPILED[scope] * (compiled and can_compile()):
        engine = make_engine(name, decoder, target, scope=scope, objective=objective)
        calls[name, objective, refresh] = lambda e=engine, r=refresh: descend(  # type: ignore[misc]
            config, c_NK, rng, lambda z_NK: e.gradient(z_NK, x_NCHW), refresh=r
        )
        engine.gradient(c_NK, x_NCHW) if name.endswith("compiled") else engine.gradient(c_NK[:2], x_NCHW[:2])
    taken: dict[Case, list[float]] = {key: [] for key in calls}
    for turn in range(repeats):
        for key, call in calls.items():
            if turn < 3 or key[0] != "double-backward-loop":
                taken[key].append(seconds_of(call))
    median = {key: statistics.median(values) for key, values in taken.items()}
    first = (BASELINES[scope], "cosine", 1)
    for key, value in median.items():
        name, objective, refresh = key
        title = f"{name}, {objective}" + (f", a gradient for {refresh} rounds" if refresh > 1 else "")
        ratio, judged = median[first] / value, name.startswith("forward-over-reverse")
        yield dict(
            benchmark=f"engines, {scope} scope", case=title, value=1e3 * value, unit="ms",
            repeats=len(taken[key]), against=first[0], baseline=1e3 * median[first], ratio=ratio,
            bar=f">= {BARS[scope]:g}x" if judged else "", holds=ratio >= BARS[scope] if judged else None,
            conditions=f"R = {rounds}, {n} vectors, 1x{size}x{size}, width {width}, {decoder.kind} features, "
            f"{torch.get_num_threads()} threads, {default_device().type}",
        )  # fmt: skip


_PEAK = """
import torch
from pathlib import Path
from mipoison.alignment import make_engine
from study.bench.engines import subject
torch.set_num_threads(1)
decoder, target, c, x = subject({size}, {width}, {n})
engine = make_engine({name!r}, decoder, target, scope={scope!r})
engine.gradient(c[:2], x[:2])
Path("/proc/self/clear_refs").write_text("5")  # reset the peak
peak = lambda: next(
    int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line
)
before = peak()
engine.gradient(c, x)
print(peak() - before)
"""


def peak_megabytes(name: str, scope: str, *, size: int = 32, width: int = 32, n: int = 128) -> float:
    """MB that one gradient adds to the peak resident memory of a fresh process (Linux only: /proc)."""
    text = _PEAK.format(name=name, scope=scope, size=size, width=width, n=n)
    done = subprocess.run(
        [sys.executable, "-c", text], capture_output=True, text=True, check=True, timeout=300
    )
    return int(done.stdout.split()[-1]) / 1024


def memory(*, quick: bool = False, n: int = 128) -> Iterator[dict[str, Any]]:
    """Peak memory of one gradient against double backward in the same scope."""
    n = 8 if quick else n
    for scope in ("batch", "sample"):
        baseline = peak_megabytes("double-backward", scope, n=n)
        for name in ("double-backward", "forward-over-reverse", "forward-over-reverse-bf16"):
            value = baseline if name == "double-backward" else peak_megabytes(name, scope, n=n)
            yield dict(
                benchmark=f"engines, memory, {scope} scope", case=name, value=value, unit="MB",
                against="double-backward", baseline=baseline, ratio=baseline / max(value, 1e-9),
                conditions=f"{n} vectors, 1x32x32, width 32, one gradient, growth of the peak resident set",
            )  # fmt: skip


def engines(*, quick: bool = False) -> Iterator[dict[str, Any]]:
    """Measure both scopes, 32x32 and 64x64, R = 1, 10 and 50 (at 64x64 the loop is too slow for 50)."""
    if quick:
        for scope in CASES:
            yield from rounds_of_lpa(scope, size=16, width=4, n=16, rounds=1, repeats=1)
        return
    for scope in CASES:
        for size, rounds, repeats in ((32, 1, 5), (32, 10, 3), (32, 50, 1), (64, 1, 3), (64, 10, 1)):
            compiled = (size, rounds) == (32, 10)
            for row in rounds_of_lpa(scope, size=size, rounds=rounds, repeats=repeats, compiled=compiled):
                yield row | {"benchmark": f"{row['benchmark']}, {size}x{size}, R = {rounds}"}


def main() -> None:
    """Print all measurements."""
    for scope in CASES:
        for row in rounds_of_lpa(scope):
            print(
                f"{row['benchmark']}: {row['case']}: {row['value']:.1f} ms, {row['ratio']:.2f}x", flush=True
            )
    for row in memory():
        _show(row)


def _show(row: dict[str, Any]) -> None:
    text = f"{row['benchmark']}: {row['case']}: {row['value']:.1f} {row['unit']}, {row['ratio']:.2f}x"
    print(f"{text} ({row['conditions']})", flush=True)


if __name__ == "__main__":
    main()
