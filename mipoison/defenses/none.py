"""No defense: releases the clean vector. Every study evaluates it, as the point at zero distortion."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from mipoison.config import Config
from mipoison.defenses.base import BaseDefense
from mipoison.randomness import QueryRandomness


@dataclass(frozen=True, kw_only=True)
class NoneConfig(Config):
    """Releases the clean vector: the point at zero distortion."""

    def make(self) -> NoDefense:
        return NoDefense()


class NoDefense(BaseDefense):
    """Releases a copy of the clean vector."""

    def protect(self, c_NK: Tensor, x_NCHW: Tensor, picked_N: Tensor, *, rng: QueryRandomness) -> Tensor:
        return c_NK.clone()
