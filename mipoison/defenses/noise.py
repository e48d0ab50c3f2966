"""Random noise on the simplex tangent: the control that LPA has to beat at equal distortion."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from mipoison.config import Config, Knob, Plain
from mipoison.defenses.base import BaseDefense, Randomness
from mipoison.randomness import QueryRandomness
from mipoison.simplex import project_release, project_tangent


@dataclass(frozen=True, kw_only=True)
class NoiseConfig(Config):
    """Random noise on the simplex tangent, label kept; the control LPA has to beat.

    Attributes:
        budget: l2 length of the noise before the simplex and the label cut it, [0, 1.5].
        randomness: ``keyed`` (same query, same noise) or ``fresh``.
    """

    KNOBS: ClassVar[Mapping[str, Knob]] = {
        "budget": Knob(low=1e-4, high=0.7, log=True, help="l2 length of the noise")
    }

    # The simplex cuts a third off the noise: one and a half times LPA's starts give about its distortion.
    STARTS: ClassVar[tuple[Mapping[str, Plain], ...]] = ({"budget": 0.015}, {"budget": 0.0045})

    budget: float = 0.01
    randomness: Randomness = "keyed"

    def validate(self) -> None:
        self.require("budget", 0 <= self.budget <= 1.5, "between 0 and 1.5 (l2 norm)")

    def make(self) -> TangentNoise:
        return TangentNoise(self)


@dataclass(frozen=True, kw_only=True)
class NoiseFreshConfig(NoiseConfig):
    """Control: ``noise`` drawn again at every query; averaging sees through it.

    Tangent noise that is drawn again each time: the control for what keying is worth.

    Attributes:
        randomness: ``fresh``, nothing else. budget: see NoiseConfig.
    """

    randomness: Literal["fresh"] = "fresh"


def random_direction(c_NK: Tensor, rng: QueryRandomness, stream: str) -> Tensor:
    """Uniform unit directions in the tangent space (rows sum to 0), float64 (N, K); zero where K is 1."""
    d_NK = project_tangent(rng.normal(c_NK.shape[1], stream).to(c_NK.device))
    return d_NK / d_NK.norm(dim=1, keepdim=True).clamp_min(1e-300)


class TangentNoise(BaseDefense):
    """``c' = project(c + budget * u)``, u uniform on the tangent's unit sphere; the label is kept."""

    def __init__(self, config: NoiseConfig) -> None:
        self.config = config
        self.draws = True
        self.fresh = config.randomness == "fresh"

    def protect(self, c_NK: Tensor, x_NCHW: Tensor, picked_N: Tensor, *, rng: QueryRandomness) -> Tensor:
        moved_NK = c_NK.double() + self.config.budget * random_direction(c_NK, rng, "tangent noise")
        return project_release(moved_NK, c_NK, self.config.budget)
