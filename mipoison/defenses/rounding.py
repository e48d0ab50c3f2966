"""Rounding to d decimals: the plainest post-processing, and often the one to beat."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from mipoison.certificates.observation import Observation
from mipoison.config import Config, Knob
from mipoison.defenses.base import BaseDefense
from mipoison.randomness import QueryRandomness
from mipoison.simplex import keep_label


@dataclass(frozen=True, kw_only=True)
class RoundingConfig(Config):
    """Rounds to d decimals, on the simplex (largest remainders).

    Attributes:
        decimals: digits after the point, 0 to 6. 0 releases the label alone.
    """

    SOURCE: ClassVar[str] = "Fredrikson et al. 2015"

    KNOBS: ClassVar[Mapping[str, Knob]] = {
        "decimals": Knob(low=1, high=6, integer=True, help="digits after the point")
    }

    decimals: int = 2

    def validate(self) -> None:
        self.require("decimals", 0 <= self.decimals <= 6, "between 0 and 6")

    def make(self) -> Rounding:
        return Rounding(self)


def apportion(c_NK: Tensor, units: int) -> Tensor:
    """Multiples of 1/units that sum to one, by the method of largest remainders (ties: lower index first).

    Plain rounding leaves the simplex, and renormalising afterwards brings back the digits that were to be
    removed.
    """
    quota_NK = c_NK.double() / c_NK.double().sum(1, keepdim=True) * units
    whole_NK = quota_NK.floor()
    missing_N = (units - whole_NK.sum(1)).round().long()
    order_NK = (quota_NK - whole_NK).sort(dim=1, descending=True, stable=True).indices
    rank_NK = torch.empty_like(order_NK).scatter_(
        1, order_NK, torch.arange(c_NK.shape[1], device=c_NK.device).expand_as(order_NK).contiguous()
    )
    return (whole_NK + (rank_NK < missing_N[:, None])) / units


class Rounding(BaseDefense):
    """Scores with ``decimals`` digits that still sum to one; the label keeps the (strict) maximum."""

    def __init__(self, config: RoundingConfig) -> None:
        self.config = config

    def protect(self, c_NK: Tensor, x_NCHW: Tensor, picked_N: Tensor, *, rng: QueryRandomness) -> Tensor:
        return keep_label(apportion(c_NK, 10**self.config.decimals).to(c_NK), c_NK)

    def observation(self, c_NK: Tensor, released_NK: Tensor) -> Observation:
        """The released rows: points of a finite grid, a function of the clean vector without a key."""
        return Observation(released_NK)
