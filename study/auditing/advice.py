"""The least change of the answers that would be safe: simulated on kept answers, no further question.

Candidates are what an operator can add behind the present endpoint: rounding to a grid (largest remainders,
the label kept), coarser and coarser, and at the end one fixed vector a label, the median of the label's
answers, which tells the label alone. Of the grids the finest is named whose upper end is within the bar.
It is an estimate: closed-form attackers only, on the images that were asked. Shape suffixes: N images, K
classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mipoison.defenses.rounding import RoundingConfig, apportion
from mipoison.simplex import keep_label, label_of
from study.auditing.attacking import CHEAP, Pool, attacked
from study.auditing.intervals import excess_of

STEPS = (1000, 300, 100, 30, 10, 5, 3)
"""Grids that are tried, finest first; leakage is taken to fall from one to the next."""


@dataclass(frozen=True)
class Change:
    """A change of the answers.

    Attributes:
        name: what is done, in words. defense, knobs: the same as this project's defense; None: it has none.
        distortion: mean l2 distance to the present answers on the private images.
        high: largest upper end of the excess over the pools; 0 where the label alone is released.
    """

    name: str
    defense: str | None
    knobs: dict[str, int]
    distortion: float
    high: float


def least_change(
    own: Pool,
    pools: Mapping[str, Pool],
    *,
    bar: float,
    doublings: float,
    seed: int,
    grids: bool = True,
    told: Callable[[str], None] = lambda text: None,
) -> Change:
    """The change of least distortion that is within the bar, found by halving the list of grids.

    Args:
        own: the attacker's images and answers. pools: the private ones. bar: accepted excess.
        doublings: see ``excess_of``. grids: whether grids are tried; of noise that is drawn anew they
            leave the mean, which one answer an image does not show.
    """
    fine, coarse = (
        0 if grids else len(STEPS),
        len(STEPS),
    )  # STEPS[coarse] is safe (the end of the list: the label alone)
    found = _label_medians(own, pools)
    while fine < coarse:
        middle = (fine + coarse) // 2
        told(f"1/{STEPS[middle]}")
        change = _rounded(own, pools, STEPS[middle], doublings=doublings, seed=seed)
        if change.high <= bar:
            coarse, found = middle, change if change.distortion <= found.distortion else found
        else:
            fine = middle + 1
    return found


def _rounded(own: Pool, pools: Mapping[str, Pool], steps: int, *, doublings: float, seed: int) -> Change:
    def rounded(pool: Pool) -> Pool:
        return Pool(
            pool.x_NCHW, keep_label(apportion(pool.c_NK.clamp_min(0), steps).to(pool.c_NK), pool.c_NK)
        )

    changed = {name: rounded(pool) for name, pool in pools.items()}
    errors = attacked(rounded(own), changed, seed=seed, attackers=CHEAP)
    highs = [
        excess_of(
            errors.scores[name],
            errors.labels[name],
            None,
            doublings=doublings,
            rng=np.random.default_rng(seed),
        ).high
        for name in pools
    ]
    return Change(
        f"round the scores to multiples of 1/{steps}",
        "rounding",
        RoundingConfig(steps=steps).knobs(),  # type: ignore[arg-type]
        _distortion(pools, changed),
        max(highs),
    )


def _label_medians(own: Pool, pools: Mapping[str, Pool]) -> Change:
    medians = torch.zeros(own.c_NK.shape[1], own.c_NK.shape[1], dtype=own.c_NK.dtype)
    label_N = label_of(own.c_NK)
    for k in range(len(medians)):
        of_label = own.c_NK[label_N == k]
        medians[k] = of_label.median(0).values if len(of_label) else torch.eye(len(medians))[k]

    def fixed(pool: Pool) -> Pool:
        return Pool(pool.x_NCHW, medians[label_of(pool.c_NK)])

    changed = {name: fixed(pool) for name, pool in pools.items()}
    name = "answer one fixed vector a label (the label's median), or the label alone"
    return Change(name, "label-only", {}, _distortion(pools, changed), 0.0)


def _distortion(pools: Mapping[str, Pool], changed: Mapping[str, Pool]) -> float:
    apart: list[Tensor] = [(changed[name].c_NK - pool.c_NK).norm(dim=1) for name, pool in pools.items()]
    return float(torch.cat(apart).mean())
