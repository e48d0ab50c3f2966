"""Tail noise: random noise on every score but the label's. What the label says stays to the last digit.

A control, nothing to deploy: the label's score alone tells an attacker of the image, whatever the length of
the noise (study/examples/read_the_scores.py). Unless it is put on a grid: with ``label_steps`` and Gaussian
noise the release has a certificate.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from mipoison.certificates.observation import CONTINUUM, Gaussian, Observation, Uncertifiable
from mipoison.config import Config, Knob, Plain
from mipoison.defenses.base import BaseDefense, Law, Randomness
from mipoison.defenses.noise import FIXED_LENGTH
from mipoison.randomness import QueryRandomness
from mipoison.simplex import keep_label, label_of, project_simplex


@dataclass(frozen=True, kw_only=True)
class TailNoiseConfig(Config):
    """Control: noise on every score but the label's; label score and sum stay.

    Attributes:
        budget: l2 length of the noise before the simplex and the label cut it, [0, 1.5].
        randomness: ``keyed`` (same query, same noise) or ``fresh``.
        law: ``sphere`` (each draw as long as the budget) or ``gaussian`` (the budget is the root mean square
            length: K - 2 dimensions of standard deviation budget / sqrt(K - 2), K classes).
        label_steps: 0 releases the label's score as it is; s puts it on the nearest multiple of 1/s (of at
            least 1/K) first, and scales the tail to the rest; up to 1,000,000.
    """

    KNOBS: ClassVar[Mapping[str, Knob]] = {
        "budget": Knob(low=1e-4, high=0.7, log=True, help="l2 length of the noise"),
        "law": Knob(choices=("sphere", "gaussian"), help="fixed length, or normal with a certificate"),
        "label_steps": Knob(choices=(0, 3, 5, 10, 20, 100), help="grid of the label's score; 0: none"),
    }

    BEFORE: ClassVar[Mapping[str, Plain | None]] = {"law": "sphere", "label_steps": 0}

    budget: float = 0.01
    randomness: Randomness = "keyed"
    law: Law = "sphere"
    label_steps: int = 0

    def validate(self) -> None:
        self.require("budget", 0 <= self.budget <= 1.5, "between 0 and 1.5 (l2 norm)")
        self.require("label_steps", 0 <= self.label_steps <= 10**6, "between 0 (no grid) and 1,000,000")

    def make(self) -> TailNoise:
        return TailNoise(self)


def tail_normal(c_NK: Tensor, rng: QueryRandomness) -> Tensor:
    """Standard normal among the directions that leave label and sum alone: float64 (N, K); zero for K = 2."""
    tail_NK = _tail_of(c_NK)
    d_NK = rng.normal(c_NK.shape[1], "tail noise").to(c_NK.device) * tail_NK
    d_NK = d_NK - tail_NK * (d_NK.sum(1, keepdim=True) / tail_NK.sum(1, keepdim=True).clamp_min(1))
    # With one tail score nothing but rounding is left of the noise, and that must not become a direction.
    return d_NK * (tail_NK.sum(1, keepdim=True) > 1)


def tail_direction(c_NK: Tensor, rng: QueryRandomness) -> Tensor:
    """Uniform unit directions among those that leave label and sum alone: float64 (N, K); zero for K = 2."""
    d_NK = tail_normal(c_NK, rng)
    length_N1 = d_NK.norm(dim=1, keepdim=True)
    return torch.where(length_N1 > 0, d_NK / length_N1.clamp_min(1e-300), 0.0)


def _tail_of(c_NK: Tensor) -> Tensor:
    """One for every score but the label's, float64."""
    return torch.ones_like(c_NK, dtype=torch.float64).scatter_(1, label_of(c_NK)[:, None], 0.0)


def label_grid(top_N1: Tensor, steps: int, n_classes: int) -> Tensor:
    """The nearest multiples of 1/steps that a label's score may have: not below 1/K. float64."""
    least = -(-steps // n_classes)
    return (top_N1.double() * steps).round().clamp(least, steps) / steps


def below(tail_NK: Tensor, top_N1: Tensor, on_NK: Tensor) -> Tensor:
    """Tails drawn towards the equal tail of their sum until no score is above the label's.

    Args:
        tail_NK: zero at the label. top_N1: the label's scores, at least the tail's mean.
        on_NK: one for every score of the tail.
    """
    mean_N1 = tail_NK.sum(1, keepdim=True) / on_NK.sum(1, keepdim=True).clamp_min(1)
    rise_N1 = tail_NK.amax(1, keepdim=True) - mean_N1
    share_N1 = torch.where(rise_N1 > 0, (top_N1 - mean_N1) / rise_N1.clamp_min(1e-300), 1.0).clamp(0.0, 1.0)
    return (mean_N1 + share_N1 * (tail_NK - mean_N1)) * on_NK


class TailNoise(BaseDefense):
    """``tail' = project(tail + noise)`` onto tails of the same sum; the label's score stays, or its grid's.

    Law ``sphere``: a tail score that rises above the label's shortens the row's whole step until it does not,
    so that the label is kept. With two classes the tail is one number and nothing can move. Law
    ``gaussian``: such a tail is drawn towards the equal one instead, so that the release depends on the
    label, its score and the noisy tail alone.
    """

    def __init__(self, config: TailNoiseConfig) -> None:
        self.config = config
        self.draws = config.budget > 0
        self.fresh = config.randomness == "fresh"

    def sigma(self, n_classes: int) -> float:
        """Standard deviation of Gaussian noise in each of the tail's K - 2 directions."""
        return self.config.budget / max(n_classes - 2, 1) ** 0.5

    def parts(self, c_NK: Tensor) -> tuple[Tensor, Tensor]:
        """The label's score as it will be released (N, 1) and the tail before the noise (N, K), float64."""
        label_N1 = label_of(c_NK)[:, None]
        tail_NK = c_NK.double().clamp_min(0).scatter(1, label_N1, 0.0)
        top_N1 = c_NK.double().gather(1, label_N1)
        if self.config.label_steps == 0:
            return top_N1, tail_NK
        mass_N1, on_NK = tail_NK.sum(1, keepdim=True), _tail_of(c_NK)
        top_N1 = label_grid(top_N1, self.config.label_steps, c_NK.shape[1])
        equal_NK = on_NK / on_NK.sum(1, keepdim=True).clamp_min(1)
        shape_NK = torch.where(mass_N1 > 0, tail_NK / mass_N1.clamp_min(1e-300), equal_NK)
        return top_N1, below((1 - top_N1) * shape_NK, top_N1, on_NK)

    def protect(self, c_NK: Tensor, x_NCHW: Tensor, picked_N: Tensor, *, rng: QueryRandomness) -> Tensor:
        still = self.config.budget == 0 or c_NK.shape[1] < 3
        if still and self.config.label_steps == 0:
            return c_NK.clone()
        label_N1 = label_of(c_NK)[:, None]
        top_N1, tail_NK = self.parts(c_NK)
        # Of a grid's score, not of the tail, whose last digits are the clean vector's.
        mass_N1 = 1 - top_N1 if self.config.label_steps else tail_NK.sum(1, keepdim=True)
        if self.config.law == "gaussian" or still:
            noisy_NK = tail_NK + self.sigma(c_NK.shape[1]) * (0.0 if still else tail_normal(c_NK, rng))
            return settled_tail(label_N1, top_N1, mass_N1, noisy_NK, c_NK.dtype)
        moved_NK = tail_NK + self.config.budget * tail_direction(c_NK, rng)
        wish_NK = _of_sum(mass_N1, moved_NK, label_N1)
        rise_NK = wish_NK - tail_NK
        room_NK = torch.where(rise_NK > 0, (top_N1 - tail_NK) / rise_NK.clamp_min(1e-300), 1.0)
        share_N1 = room_NK.amin(1, keepdim=True).clamp(0.0, 1.0)
        z_NK = (tail_NK + share_N1 * rise_NK).clamp_min(0).to(c_NK).scatter(1, label_N1, top_N1.to(c_NK))
        return keep_label(z_NK if self.config.label_steps else torch.where(mass_N1 > 0, z_NK, c_NK), c_NK)

    def observation(self, c_NK: Tensor, released_NK: Tensor) -> Observation | Uncertifiable:
        """Label and grid score, and the noisy tail; of two classes the grid score is all."""
        if self.config.label_steps == 0:
            return Uncertifiable("the label's score stays exact, and it alone tells most images apart")
        if c_NK.shape[1] < 3:
            return Observation(released_NK)
        if self.config.budget == 0:
            return Uncertifiable(CONTINUUM)
        if self.config.law == "sphere":
            return Uncertifiable(FIXED_LENGTH)
        top_N1, tail_NK = self.parts(c_NK)

        def release(rows_ND: Tensor, y_NM: Tensor) -> Tensor:
            label_N1, top_N1 = rows_ND[:, :1].long(), rows_ND[:, 1:]
            return settled_tail(label_N1, top_N1, 1 - top_N1, y_NM, c_NK.dtype)

        rows_ND = torch.cat([label_of(c_NK)[:, None].double(), top_N1], 1)
        return Observation(rows_ND, Gaussian(tail_NK, self.sigma(c_NK.shape[1]), release))


def settled_tail(
    label_N1: Tensor, top_N1: Tensor, mass_N1: Tensor, y_NK: Tensor, dtype: torch.dtype
) -> Tensor:
    """What may be released of noisy tails: a function of them, the label, its score and their sum."""
    on_NK = torch.ones_like(y_NK).scatter(1, label_N1, 0.0)
    z_NK = below(_of_sum(mass_N1, y_NK, label_N1), top_N1, on_NK).to(dtype)
    z_NK = z_NK.scatter(1, label_N1, top_N1.to(dtype))
    return keep_label(z_NK, F.one_hot(label_N1[:, 0], y_NK.shape[1]).to(z_NK))


def _of_sum(mass_N1: Tensor, moved_NK: Tensor, label_N1: Tensor) -> Tensor:
    """The nearest non-negative tails with these sums; zero at the label and where the sum is."""
    # Scaled to sum 1 for the projection; far below any score, the label's entry ends at zero.
    scaled_NK = (moved_NK / mass_N1.clamp_min(1e-200)).scatter(1, label_N1, -1e250)
    return mass_N1 * project_simplex(scaled_NK)
