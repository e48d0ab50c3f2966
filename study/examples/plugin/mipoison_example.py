"""A plug-in: a defense that blends scores with the label, and an attacker in closed form.

Shape suffixes: N samples, K classes, D pixels, CHW image.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from mipoison.certificates.observation import CONTINUUM
from mipoison.config import Config, Knob
from mipoison.defenses.base import BaseDefense
from mipoison.protocols import Oracle, ThreatModel
from mipoison.randomness import QueryRandomness
from mipoison.simplex import label_of


@dataclass(frozen=True, kw_only=True)
class BlendConfig(Config):
    """Moves every vector towards the corner of its label. Keeps the label and the order of the scores.

    Attributes:
        weight: share of the way, 0 (the clean vector) to 1 (the label alone).
    """

    KNOBS: ClassVar[Mapping[str, Knob]] = {
        "weight": Knob(low=0.05, high=0.95, help="share of the way to the label's corner")
    }
    SOURCE: ClassVar[str] = "an example"

    weight: float = 0.5

    def validate(self) -> None:
        self.require("weight", 0 <= self.weight <= 1, "between 0 and 1")

    def make(self) -> Blend:
        return Blend(self)


class Blend(BaseDefense):
    """``(1 - w) c + w e_label``: on the segment from the clean vector to a corner of the simplex."""

    uncertifiable = CONTINUUM

    def __init__(self, config: BlendConfig) -> None:
        self.config = config

    def protect(self, c_NK: Tensor, x_NCHW: Tensor, picked_N: Tensor, *, rng: QueryRandomness) -> Tensor:
        label_NK = F.one_hot(label_of(c_NK), c_NK.shape[1]).double()
        z_NK = (1 - self.config.weight) * c_NK.double() + self.config.weight * label_NK
        return (z_NK / z_NK.sum(1, keepdim=True)).to(c_NK)


@dataclass(frozen=True, kw_only=True)
class RawRidgeConfig(Config):
    """Linear regression of the pixels on the scores, in closed form, from noisy copies of its own images.

    Attributes:
        penalty: weight of the squared coefficients, above 0.
        noise: standard deviation of the pixels' noise, 0 to 1.
    """

    COST: ClassVar[int] = 0

    penalty: float = 0.1
    noise: float = 0.02

    def validate(self) -> None:
        self.require("penalty", self.penalty > 0, "above 0")
        self.require("noise", 0 <= self.noise <= 1, "between 0 and 1")

    def make(self) -> RawRidge:
        return RawRidge(self)


class RawRidge:
    """Asks about a noisy copy of each image, and solves one linear system."""

    def __init__(self, config: RawRidgeConfig) -> None:
        self.config = config

    def fit(self, oracle: Oracle, x_NCHW: Tensor, *, known: ThreatModel, rng: torch.Generator) -> None:
        """Query and solve, in float64; ``rng`` draws the noise.

        Raises:
            ValueError: for fewer than four images.
        """
        if len(x_NCHW) < 4:
            raise ValueError(f"this attacker needs at least 4 images of its own, got {len(x_NCHW)}")
        self.shape = known.image_shape
        noise = torch.randn(x_NCHW.shape, generator=rng)
        x_ND = x_NCHW.cpu().double().flatten(1)
        c_NK = oracle.query((x_NCHW.cpu() + self.config.noise * noise).clamp(0, 1)).cpu().double()
        self.mean_D, self.mean_K = x_ND.mean(0), c_NK.mean(0)
        centred = c_NK - self.mean_K
        square_KK = centred.mT @ centred + self.config.penalty * torch.eye(c_NK.shape[1]).double()
        self.weight_KD = torch.linalg.solve(square_KK, centred.mT @ (x_ND - self.mean_D))

    def reconstruct(self, c_NK: Tensor) -> Tensor:
        """Images (N, C, H, W) in [0, 1]."""
        x_ND = self.mean_D + (c_NK.cpu().double() - self.mean_K) @ self.weight_KD
        return x_ND.clamp(0, 1).float().reshape(-1, *self.shape)


DEFENSES = {"blend": BlendConfig}
ATTACKS = {"raw-ridge": RawRidgeConfig()}
