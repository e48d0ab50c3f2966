"""Algorithm 1 of Zhou et al., lines 3 to 9: projected descent from a random start, steps of one length."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mipoison.defenses.base import DescentConfig
from mipoison.defenses.noise import random_direction
from mipoison.randomness import QueryRandomness
from mipoison.simplex import project_release, project_tangent


def unit_rows(g_NK: Tensor) -> Tensor:
    """Rows scaled to length one, in float64. Rows of zeros stay zero.

    Rows are divided by their largest entry first, because the square of a gradient overflows where log
    features have a score of 1e-20.
    """
    g_NK = torch.nan_to_num(g_NK.double(), nan=0.0, posinf=1e300, neginf=-1e300)
    g_NK = g_NK / g_NK.abs().amax(1, keepdim=True).clamp_min(1e-300)
    return g_NK / g_NK.norm(dim=1, keepdim=True).clamp_min(1e-300)


def descend(
    config: DescentConfig,
    c_NK: Tensor,
    rng: QueryRandomness,
    gradient: Callable[[Tensor], Tensor],
    *,
    keep_label: bool = True,
    refresh: int = 1,
) -> Tensor:
    """Projected descent from a random start of the budget's size (Algorithm 1, lines 3 to 9).

    Args:
        config: budget, rounds, step.
        c_NK: clean vectors.
        rng: draws the start, which is the same for all defenses that descend.
        gradient: of the objective in the released vectors (N, K). Only its direction on the simplex counts.
        keep_label: project onto the vectors whose maximum is the clean label.
        refresh: number of rounds that use one gradient, at least 1.
    """
    if config.budget == 0 or len(c_NK) == 0:
        return c_NK.clone()
    start_NK = c_NK.double() + config.budget * random_direction(c_NK, rng, "lpa start")
    z_NK = project_release(start_NK, c_NK, config.budget, keep_label=keep_label)
    direction_NK = torch.zeros_like(start_NK)
    for i in range(config.rounds):
        if i % refresh == 0:
            direction_NK = unit_rows(project_tangent(gradient(z_NK).double()))
        moved_NK = z_NK.double() - config.step * config.budget * direction_NK
        z_NK = project_release(moved_NK, c_NK, config.budget, keep_label=keep_label)
    return z_NK
