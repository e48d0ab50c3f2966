"""OnePara-style: an exponential mechanism per score that keeps the ranks (after Ye et al. 2022, "One
parameter defense: defending against data inference attacks via differential privacy")."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from mipoison.config import Config, Knob, Plain
from mipoison.defenses.base import BaseDefense, Randomness
from mipoison.randomness import QueryRandomness
from mipoison.simplex import keep_label


@dataclass(frozen=True, kw_only=True)
class OneParaConfig(Config):
    """OnePara-style: exponential mechanism between neighbours in rank, normalised.

    Attributes:
        epsilon: privacy parameter, [1e-3, 1e9]. With a small value scores are drawn almost uniformly between
            their neighbours, with a large one close to the clean score.
        randomness: ``keyed`` or ``fresh`` draws.
    """

    SOURCE: ClassVar[str] = "Ye et al. 2022, as described"

    KNOBS: ClassVar[Mapping[str, Knob]] = {
        "epsilon": Knob(low=0.1, high=1e5, log=True, help="privacy parameter")
    }
    STARTS: ClassVar[tuple[Mapping[str, Plain], ...]] = ({}, {"epsilon": 1e4})

    epsilon: float = 1.0
    randomness: Randomness = "keyed"

    def validate(self) -> None:
        self.require("epsilon", 1e-3 <= self.epsilon <= 1e9, "between 0.001 and 1e9")

    def make(self) -> OnePara:
        return OnePara(self)


def truncated_laplace(u: Tensor, centre: Tensor, low: Tensor, high: Tensor, rate: float) -> Tensor:
    """Inverse CDF at u in (0, 1) of the density proportional to ``exp(-rate |y - centre|)`` on [low, high].

    ``centre`` lies in [low, high]. All tensors are float64 and have one shape. If ``low == high``, that value
    is returned.
    """
    left, right = -torch.expm1(-rate * (centre - low)), -torch.expm1(-rate * (high - centre))  # masses * rate
    mass = u * (left + right)
    below = mass < left
    up = centre + torch.log1p(-(left - mass).clamp(0, 1 - 1e-16)) / rate
    down = centre - torch.log1p(-(mass - left).clamp(0, 1 - 1e-16)) / rate
    return torch.minimum(torch.maximum(torch.where(below, up, down), low), high)


class OnePara(BaseDefense):
    """Draws each score between the mid-points to its neighbours in rank, then normalises the row.

    The mechanism's utility is minus the distance to the score, with sensitivity 1. So the density is
    proportional to ``exp(-epsilon |y - c_k| / 2)``. The interval of the largest score ends at 1, that of the
    least at 0.

    The original's details are not public. The paper reports distortions (0.991, 0.973) above the largest that
    a normalised vector with the same label can have from a one-hot one (0.894 for five classes), so its
    outputs were not normalised, or its metric differs. An API answers with vectors on the simplex, so this
    normalises.
    """

    def __init__(self, config: OneParaConfig) -> None:
        self.config = config
        self.draws = True
        self.fresh = config.randomness == "fresh"

    def protect(self, c_NK: Tensor, x_NCHW: Tensor, picked_N: Tensor, *, rng: QueryRandomness) -> Tensor:
        if len(c_NK) == 0 or c_NK.shape[1] < 2:
            return c_NK.clone()
        s_NK, order_NK = c_NK.double().clamp(0, 1).sort(dim=1, descending=True, stable=True)
        middle_NK = (s_NK[:, 1:] + s_NK[:, :-1]) / 2
        high_NK = torch.cat([torch.ones_like(s_NK[:, :1]), middle_NK], 1)
        low_NK = torch.cat([middle_NK, torch.zeros_like(s_NK[:, :1])], 1)
        u_NK = rng.uniform(c_NK.shape[1], "onepara").to(c_NK.device)
        drawn_NK = truncated_laplace(u_NK, s_NK, low_NK, high_NK, self.config.epsilon / 2)
        out_NK = torch.empty_like(drawn_NK).scatter_(1, order_NK, drawn_NK)
        return keep_label((out_NK / out_NK.sum(1, keepdim=True)).to(c_NK), c_NK)
