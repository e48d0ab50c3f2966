"""Measures latency and throughput of poisoning, optimised and amortised, and how the cost grows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

from mipoison.serving.export import export_amortised
from study.bench.measurement import Measurement, against, at_most, interleaved
from study.bench.subject import Size, fitted, pairs, protect, randomness

ROUNDS = 10
BATCHES = (1, 128, 1024)
GPU_BARS = {"lpa": (0.02, 5.0), "exported": (0.002, 0.5)}
"""Required ms per sample on a data-centre GPU, at the largest batch and for a single query."""


def latency(*, quick: bool = False) -> Iterator[Measurement]:
    """ms per sample at batch sizes 1, 128 and 1024 of LPA, its amortised form, and that form exported."""
    size = Size(width=8) if quick else Size()
    lpa = fitted("lpa", size, rounds=ROUNDS, search="descent")
    amortised: Any = fitted("lpa-amortised", size, steps=2)
    program = export_amortised(amortised).module()
    for n in BATCHES[: 2 if quick else None]:
        c_NK, x_NCHW = pairs(size, n)
        noise_NZ = randomness(n).normal(amortised.generator.latent, "amortised").to(c_NK)
        cases: dict[str, Callable[[], Any]] = {
            "lpa": lambda c=c_NK, x=x_NCHW: protect(lpa, c, x),  # type: ignore[misc]
            "lpa-amortised": lambda c=c_NK, x=x_NCHW: protect(amortised, c, x),  # type: ignore[misc]
            "exported": lambda c=c_NK, z=noise_NZ: program(c, z),  # type: ignore[misc]
        }
        taken = interleaved(cases, repeats=3 if quick else 15, limit_s=30)
        for name, (seconds, repeats) in taken.items():
            row = Measurement(
                benchmark="poisoning: latency and throughput",
                case=f"{name}, batch {n}",
                value=1e3 * seconds / n,
                unit="ms per sample",
                repeats=repeats,
                conditions=f"R = {ROUNDS}, search descent, {size}; clean vectors given, the victim's own "
                "pass not included",
            )
            if name != "lpa":
                row = against(row, f"lpa, batch {n}", 1e3 * taken["lpa"][0] / n)
            elif torch.cuda.is_available() and n in (1, max(BATCHES)):
                row = at_most(row, GPU_BARS["lpa"][n == 1])
            yield row


def growth(*, quick: bool = False) -> Iterator[Measurement]:
    """ms per sample of LPA as N, R, the classes or the image grow, each against the smallest size."""
    base = Size(width=8) if quick else Size()
    counts, rounds, classes, sides = (
        ((128, 256), (1, 2), (5, 10), (16, 32))
        if quick
        else ((128, 512, 2048), (1, 10, 50), (5, 100, 1000), (16, 32, 64))
    )
    width = base.width
    sweeps: dict[str, list[tuple[str, Size, int, int]]] = {
        "N": [(f"N = {n}", base, n, ROUNDS) for n in counts],
        "R": [(f"R = {r}", base, 128, r) for r in rounds],
        "classes": [(f"m = {m}", Size(classes=m, width=width), 128, ROUNDS) for m in classes],
        "image": [(f"{s}x{s}", Size(side=s, width=width), 128, ROUNDS) for s in sides],
    }
    for kind, cases in sweeps.items():
        calls: dict[str, Callable[[], Any]] = {}
        for name, size, n, r in cases:
            defense, (c_NK, x_NCHW) = fitted("lpa", size, rounds=r, search="descent"), pairs(size, n)
            calls[name] = lambda d=defense, c=c_NK, x=x_NCHW: protect(d, c, x)  # type: ignore[misc]
        taken = interleaved(calls, repeats=3, limit_s=40)
        first_name, _, first_n, _ = cases[0]
        first = 1e3 * taken[first_name][0] / first_n
        for name, _, n, _ in cases:
            seconds, repeats = taken[name]
            row = Measurement(
                benchmark=f"poisoning: growth with {kind}",
                case=name,
                value=1e3 * seconds / n,
                unit="ms per sample",
                repeats=repeats,
                conditions="LPA, sample scope, search descent; where not said otherwise N = 128, "
                f"R = {ROUNDS}, {base}",
            )
            yield row if name == first_name else against(row, first_name, first)
