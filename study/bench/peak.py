"""Measures the share of the device's peak speed that the poison loop reaches, with counted operations."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.utils.flop_counter import FlopCounterMode

from mipoison.scene import default_device
from study.bench.measurement import Measurement, interleaved
from study.bench.subject import Size, fitted, pairs, protect


def peak_share(*, quick: bool = False) -> Iterator[Measurement]:
    """Compare operations per second of LPA's poison loop with those of a large matrix product."""
    size, n, rounds = (Size(width=8), 32, 1) if quick else (Size(), 1024, 10)
    lpa = fitted("lpa", size, rounds=rounds, search="descent")
    c_NK, x_NCHW = pairs(size, n)
    with FlopCounterMode(display=False) as counter:
        protect(lpa, c_NK, x_NCHW)
    operations = counter.get_total_flops()
    side = 512 if quick else 8192 if torch.cuda.is_available() else 2048
    a = torch.randn(side, side, device=default_device())
    cases = {"poison loop": lambda: protect(lpa, c_NK, x_NCHW), "matrix product": lambda: a @ a}
    taken = interleaved(cases, repeats=5, limit_s=40)
    done = {"poison loop": operations, "matrix product": 2 * side**3}
    speeds = {name: done[name] / taken[name][0] for name in cases}
    share = speeds["poison loop"] / speeds["matrix product"]
    for name, speed in speeds.items():
        yield Measurement(
            benchmark="share of the device's peak",
            case=name,
            value=speed / 1e9,
            unit="GFLOP/s",
            repeats=taken[name][1],
            conditions=(
                f"LPA, R = {rounds}, N = {n}, {size}: {operations / n / rounds / 1e6:.1f} MFLOP a sample and "
                f"round (convolutions and products, as torch counts them); peak: {side}x{side}, float32"
            ),
            note=f"The poison loop reaches {share:.1%} of the matrix product's speed.",
        )
