"""Temperature: softens (above 1) or sharpens (below 1) the scores and keeps their order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from mipoison.config import Config, Knob
from mipoison.defenses.base import BaseDefense
from mipoison.randomness import QueryRandomness
from mipoison.simplex import keep_label


@dataclass(frozen=True, kw_only=True)
class TemperatureConfig(Config):
    """``softmax(log c / T)``; zero scores stay zero.

    Attributes:
        temperature: T in ``c' = softmax(log c / T)``, 0.05 to 100. With 1 nothing but last bits changes.
    """

    KNOBS: ClassVar[Mapping[str, Knob]] = {
        "temperature": Knob(low=0.2, high=20.0, log=True, help="softmax temperature")
    }

    temperature: float = 2.0

    def validate(self) -> None:
        self.require("temperature", 0.05 <= self.temperature <= 100, "between 0.05 and 100")

    def make(self) -> Temperature:
        return Temperature(self)


class Temperature(BaseDefense):
    """Powers of the scores, scaled to sum to one. Zero scores stay zero; the label keeps the maximum."""

    def __init__(self, config: TemperatureConfig) -> None:
        self.config = config

    def protect(self, c_NK: Tensor, x_NCHW: Tensor, picked_N: Tensor, *, rng: QueryRandomness) -> Tensor:
        log_NK = c_NK.double().clamp_min(0).log()  # -inf for a zero score, whose power is zero again
        return keep_label(torch.softmax(log_NK / self.config.temperature, 1).to(c_NK), c_NK)
