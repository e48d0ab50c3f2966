"""Tail noise: random noise on every score but the label's. What the label says stays to the last digit.

A control, nothing to deploy: the label's score alone tells an attacker of the image, whatever the length of
the noise (study/examples/read_the_scores.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from mipoison.config import Config, Knob
from mipoison.defenses.base import BaseDefense, Randomness
from mipoison.randomness import QueryRandomness
from mipoison.simplex import keep_label, label_of, project_simplex


@dataclass(frozen=True, kw_only=True)
class TailNoiseConfig(Config):
    """Control: noise on every score but the label's; label score and sum stay.

    Attributes:
        budget: l2 length of the noise before the simplex and the label cut it, [0, 1.5].
        randomness: ``keyed`` (same query, same noise) or ``fresh``.
    """

    KNOBS: ClassVar[Mapping[str, Knob]] = {
        "budget": Knob(low=1e-4, high=0.7, log=True, help="l2 length of the noise")
    }

    budget: float = 0.01
    randomness: Randomness = "keyed"

    def validate(self) -> None:
        self.require("budget", 0 <= self.budget <= 1.5, "between 0 and 1.5 (l2 norm)")

    def make(self) -> TailNoise:
        return TailNoise(self)


def tail_direction(c_NK: Tensor, rng: QueryRandomness) -> Tensor:
    """Uniform unit directions among those that leave label and sum alone: float64 (N, K); zero for K = 2."""
    tail_NK = torch.ones_like(c_NK, dtype=torch.float64).scatter_(1, label_of(c_NK)[:, None], 0.0)
    d_NK = rng.normal(c_NK.shape[1], "tail noise").to(c_NK.device) * tail_NK
    d_NK = d_NK - tail_NK * (d_NK.sum(1, keepdim=True) / tail_NK.sum(1, keepdim=True).clamp_min(1))
    # With one tail score nothing but rounding is left of the noise, and that must not become a direction.
    length_N1 = d_NK.norm(dim=1, keepdim=True) * (tail_NK.sum(1, keepdim=True) > 1)
    return torch.where(length_N1 > 0, d_NK / length_N1.clamp_min(1e-300), 0.0)


class TailNoise(BaseDefense):
    """``tail' = project(tail + budget * u)`` onto tails of the same sum; the label's score stays.

    A tail score that rises above the label's shortens the row's whole step until it does not, so that the
    label is kept. With two classes the tail is one number and nothing can move.
    """

    def __init__(self, config: TailNoiseConfig) -> None:
        self.config = config
        self.draws = config.budget > 0
        self.fresh = config.randomness == "fresh"

    def protect(self, c_NK: Tensor, x_NCHW: Tensor, picked_N: Tensor, *, rng: QueryRandomness) -> Tensor:
        if self.config.budget == 0 or c_NK.shape[1] < 3:
            return c_NK.clone()
        label_N1 = label_of(c_NK)[:, None]
        tail_NK = c_NK.double().clamp_min(0).scatter(1, label_N1, 0.0)
        mass_N1 = tail_NK.sum(1, keepdim=True)
        top_N1 = c_NK.double().gather(1, label_N1)
        moved_NK = tail_NK + self.config.budget * tail_direction(c_NK, rng)
        # Scaled to sum 1 for the projection; far below any score, the label's entry ends at zero.
        scaled_NK = (moved_NK / mass_N1.clamp_min(1e-200)).scatter(1, label_N1, -1e250)
        wish_NK = mass_N1 * project_simplex(scaled_NK)
        rise_NK = wish_NK - tail_NK
        room_NK = torch.where(rise_NK > 0, (top_N1 - tail_NK) / rise_NK.clamp_min(1e-300), 1.0)
        share_N1 = room_NK.amin(1, keepdim=True).clamp(0.0, 1.0)
        z_NK = (tail_NK + share_N1 * rise_NK).clamp_min(0).to(c_NK).scatter(1, label_N1, top_N1.to(c_NK))
        return keep_label(torch.where(mass_N1 > 0, z_NK, c_NK), c_NK)
