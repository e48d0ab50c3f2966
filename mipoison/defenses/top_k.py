"""Top-k: releases the k largest scores; of the others only their sum."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from mipoison.config import Config, Knob
from mipoison.defenses.base import BaseDefense
from mipoison.randomness import QueryRandomness
from mipoison.simplex import keep_label


@dataclass(frozen=True, kw_only=True)
class TopKConfig(Config):
    """Keeps the k largest scores, the others share the rest equally.

    Attributes:
        k: number of scores released, at least 1. From K - 1 on (K classes) nothing changes, since the scores
            sum to one.
    """

    KNOBS: ClassVar[Mapping[str, Knob]] = {
        "k": Knob(low=1, high=20, log=True, integer=True, help="scores released; the others share the rest")
    }

    k: int = 1

    def validate(self) -> None:
        self.require("k", self.k >= 1, "at least 1")

    def make(self) -> TopK:
        return TopK(self)


class TopK(BaseDefense):
    """Keeps the k largest scores (ties: lower index first); the others share the rest equally."""

    def __init__(self, config: TopKConfig) -> None:
        self.config = config

    def protect(self, c_NK: Tensor, x_NCHW: Tensor, picked_N: Tensor, *, rng: QueryRandomness) -> Tensor:
        k, n_classes = self.config.k, c_NK.shape[1]
        if k >= n_classes - 1:
            return c_NK.clone()
        order_NK = c_NK.sort(dim=1, descending=True, stable=True).indices
        rest_NK = order_NK[:, k:]
        share_N1 = c_NK.double().gather(1, rest_NK).mean(1, keepdim=True).to(c_NK)
        z_NK = c_NK.scatter(1, rest_NK, share_N1.expand(-1, n_classes - k))
        # The mean of the rest is at most the least score kept. So the label can only change by a tie.
        return keep_label(z_NK, c_NK)
