"""Compares how far LPA's searches align, and what they cost, with the best of many random vectors.

The vectors are those of the private training set, and all that is tried lies within the same budget. The
reference engine computes all cosines.
"""

from __future__ import annotations

import functools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from mipoison.alignment import Engine, make_engine
from mipoison.defenses.lpa import LPA, LPAConfig
from mipoison.randomness import QueryRandomness, content_keys, generator
from mipoison.scene import Scene, prepare, scaled
from mipoison.simplex import project_release, project_tangent
from study.bench.measurement import Measurement, wait_for_device

BUDGETS = (0.003, 0.01)
SEEDS = (0, 1)
DRAWN = 1000
"""Random vectors of which the best is the bar."""
SLOWER = 3.0
"""How many times the CPU time of the descent the restarts may take."""
LENGTHS = (1.0, 0.3)
"""Lengths of random moves along the simplex, relative to the budget."""
SCALES = (3.0, 10.0)
"""Standard deviations of random moves of the scores' natural logarithms."""


def drawn(c_NK: Tensor, budget: float, i: int, rng: torch.Generator) -> Tensor:
    """The i-th random vectors (N, K) within the budget: in turn of each of LENGTHS and of SCALES."""
    normal_NK = torch.randn(c_NK.shape, generator=rng, dtype=torch.float64).to(c_NK.device)
    turn = i % (len(LENGTHS) + len(SCALES))
    if turn < len(LENGTHS):
        way_NK = project_tangent(normal_NK)
        moved_NK = c_NK.double() + budget * LENGTHS[turn] * way_NK / way_NK.norm(dim=1, keepdim=True)
    else:
        logits_NK = c_NK.double().clamp_min(1e-300).log() + SCALES[turn - len(LENGTHS)] * normal_NK
        moved_NK = torch.softmax(logits_NK, 1)
    return project_release(moved_NK, c_NK, budget)


def best_drawn(
    engine: Engine, c_NK: Tensor, x_NCHW: Tensor, budget: float, n: int, rng: torch.Generator
) -> Tensor:
    """For each vector, the random one of n with the largest cosine (the least objective of the engine)."""
    best_NK, best_N = c_NK, torch.full_like(c_NK[:, 0], torch.inf)
    for i in range(n):
        z_NK = drawn(c_NK, budget, i, rng)
        value_N = engine.values(z_NK, x_NCHW)
        best_NK = torch.where((value_N < best_N)[:, None], z_NK, best_NK)
        best_N = torch.minimum(value_N, best_N)
    return best_NK


def _scene(seed: int, folder: str, quick: bool) -> Scene:
    less: dict[str, Any] = dict(victim_steps=30, decoder_steps=8) if quick else {}
    return prepare(scaled("digits", "quick", seed=seed, **less), folder)


def _seconds(calls: dict[str, Callable[[], Tensor]], repeats: int) -> dict[str, float]:
    """Median seconds of each, taking turns: wall time on a GPU, CPU time otherwise."""
    clock = time.perf_counter if torch.cuda.is_available() else time.process_time
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(repeats + 1):
        for name, call in calls.items():
            wait_for_device()
            start = clock()
            call()
            wait_for_device()
            if turn:  # the first warms up
                taken[name].append(clock() - start)
    return {name: statistics.median(values) for name, values in taken.items()}


def alignment(*, quick: bool = False, repeats: int = 3) -> Iterator[Measurement]:
    """Mean cosine of the descent, of the restarts and of the best of DRAWN; seconds of both searches."""
    count, n, repeats = (8, 16, 1) if quick else (DRAWN, None, repeats)
    with tempfile.TemporaryDirectory() as folder:
        for seed in SEEDS[: 1 if quick else None]:
            scene = _scene(seed, folder, quick)
            c_NK = scene.clean["private_train"][:n].to(scene.device)
            x_NCHW = scene.split.private_train.x_NCHW[:n].to(scene.device)
            for budget in BUDGETS[: 1 if quick else None]:
                yield from _compared(scene, c_NK, x_NCHW, budget, count, repeats)


def _compared(
    scene: Scene, c_NK: Tensor, x_NCHW: Tensor, budget: float, count: int, repeats: int
) -> Iterator[Measurement]:
    keys = QueryRandomness(content_keys(x_NCHW, b"benchmark"))
    units: dict[str, LPA] = {}
    fit_seconds: dict[str, float] = {}
    for search in ("descent", "restarts"):
        unit = units[search] = LPAConfig(budget=budget, search=search).make()
        unit.fit(scene.view(), rng=generator(scene.config.seed, "benchmark"))  # trains the substitute
        start = time.process_time()
        unit.fit(scene.view(), rng=generator(scene.config.seed, "benchmark"))
        fit_seconds[search] = time.process_time() - start
    calls: dict[str, Callable[[], Tensor]] = {
        name: functools.partial(unit.protect, c_NK, x_NCHW, unit.pick(c_NK), rng=keys)
        for name, unit in units.items()
    }
    seconds = _seconds(calls, repeats)
    judge = units["descent"]
    engine = make_engine("auto", judge.substitute, judge.target)
    rng = generator(scene.config.seed, "benchmark", "random vectors")
    released = {name: call() for name, call in calls.items()}
    best = f"best of {count}"
    released[best] = best_drawn(engine, c_NK, x_NCHW, budget, count, rng)
    cosine = {name: float(judge.alignment(z_NK, x_NCHW) or 0.0) for name, z_NK in released.items()}
    case = f"seed {scene.config.seed}, budget {budget:g}"
    for name, z_NK in released.items():
        length = float((z_NK - c_NK).double().norm(dim=1).mean())
        row: dict[str, Any] = dict(
            benchmark="alignment: mean cosine to the target", case=f"{case}: {name}, distortion {length:.4f}",
            value=cosine[name], unit="",
            conditions=f"digits, {len(c_NK)} private training images, log features",
        )  # fmt: skip
        if name == "restarts":
            row |= dict(against=best, baseline=cosine[best], ratio=cosine[name] / cosine[best])
            row |= dict(bar=">= the best drawn", holds=cosine[name] >= cosine[best])
        yield Measurement(**row)
    ratio = seconds["descent"] / seconds["restarts"]
    yield Measurement(
        benchmark="alignment: time",
        case=f"{case}: restarts",
        value=seconds["restarts"],
        unit="s",
        repeats=repeats,
        against="descent",
        baseline=seconds["descent"],
        ratio=ratio,
        bar=f">= 1/{SLOWER:g}",
        holds=ratio >= 1 / SLOWER,
        conditions=f"{len(c_NK)} vectors; CPU time of the process (on a GPU, wall time)",
        note=f"{case}: fitting without the substitute takes {fit_seconds['descent']:.2f} s of CPU for the "
        f"descent, {fit_seconds['restarts']:.2f} s with learned starts.",
    )
