"""Rounding to a grid: the plainest post-processing, and often the one to beat."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from mipoison.certificates.observation import Observation
from mipoison.config import Config, ConfigError, Knob, Plain
from mipoison.defenses.base import BaseDefense
from mipoison.randomness import QueryRandomness
from mipoison.simplex import keep_label

MAX_DECIMALS = 6
"""A float32 near 1 has seven digits."""


@dataclass(frozen=True, kw_only=True)
class RoundingConfig(Config):
    """Rounds to multiples of 1/steps, on the simplex (largest remainders).

    ``decimals`` is the older name of the same number: ``decimals=2`` is ``steps=100``, one configuration with
    one digest, and it is kept as decimals, as older records have it. All other grids are kept as steps.

    Attributes:
        decimals: digits after the point, 0 to 6; None where ``steps`` is another number than a power of ten.
        steps: steps of the grid between 0 and 1, 1 to 1,000,000; None where ``decimals`` says it. 1 releases
            the label alone. Beside steps, the default of ``decimals`` is ignored.
    """

    SOURCE: ClassVar[str] = "Fredrikson et al. 2015"

    KNOBS: ClassVar[Mapping[str, Knob]] = {
        "steps": Knob(low=2, high=1000, log=True, integer=True, help="steps of the grid between 0 and 1")
    }

    STARTS: ClassVar[tuple[Mapping[str, Plain], ...]] = ({}, {"steps": 5}, {"steps": 10})

    BEFORE: ClassVar[Mapping[str, Plain | None]] = {"steps": None}

    decimals: int | None = 2
    steps: int | None = None

    def validate(self) -> None:
        self.require(
            "decimals", self.decimals is None or 0 <= self.decimals <= MAX_DECIMALS, "between 0 and 6"
        )
        if self.steps is None:
            self.require("decimals", self.decimals is not None, "between 0 and 6 where steps is None")
            return
        self.require("steps", 1 <= self.steps <= 10**MAX_DECIMALS, "between 1 and 1,000,000")
        default = type(self).__dataclass_fields__["decimals"].default
        if self.decimals not in (None, default) and 10**self.decimals != self.steps:
            raise ConfigError(
                f"RoundingConfig.steps = {self.steps} and decimals = {self.decimals} (steps = "
                f"{10**self.decimals}) are two grids: give one of them"
            )
        digits = len(str(self.steps)) - 1
        power = 10**digits == self.steps
        object.__setattr__(self, "decimals", digits if power else None)
        object.__setattr__(self, "steps", None if power else self.steps)

    @property
    def units(self) -> int:
        """Steps of the grid, whichever of both names said it."""
        if self.steps is not None:
            return self.steps
        assert self.decimals is not None
        return 10**self.decimals

    def knobs(self) -> dict[str, Plain | None]:
        return {"steps": self.units}

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
    """Multiples of one over the grid's steps that still sum to one; the label keeps the (strict) maximum."""

    def __init__(self, config: RoundingConfig) -> None:
        self.config = config

    def protect(self, c_NK: Tensor, x_NCHW: Tensor, picked_N: Tensor, *, rng: QueryRandomness) -> Tensor:
        return keep_label(apportion(c_NK, self.config.units).to(c_NK), c_NK)

    def observation(self, c_NK: Tensor, released_NK: Tensor) -> Observation:
        """The released rows: points of a finite grid, a function of the clean vector without a key."""
        return Observation(released_NK)
