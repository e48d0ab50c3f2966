"""Reverse sigmoid (Lee, Edwards, Molloy, Su 2018, "Defending against neural network model stealing attacks
using deceptive perturbations", arXiv 1806.00054)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from mipoison.config import Config, Knob
from mipoison.defenses.base import BaseDefense
from mipoison.randomness import QueryRandomness
from mipoison.simplex import keep_label, label_of, project_labelled_simplex


@dataclass(frozen=True, kw_only=True)
class ReverseSigmoidConfig(Config):
    """``c - beta (sigmoid(gamma logit c) - 1/2)``, normalised, label kept by projection.

    Attributes:
        beta: size of the perturbation, [0, 1]. With 0 scores change in their last bits only. Above 1 they
            could fall below zero.
        gamma: its slope in the logit, above 0 and at most 10.
    """

    SOURCE: ClassVar[str] = "Lee et al. 2018"

    KNOBS: ClassVar[Mapping[str, Knob]] = {
        "beta": Knob(low=0.003, high=1.0, log=True, help="size of the perturbation"),
        "gamma": Knob(low=0.05, high=2.0, log=True, help="slope of the perturbation in the logit"),
    }

    beta: float = 0.1
    gamma: float = 0.2

    def validate(self) -> None:
        self.require("beta", 0 <= self.beta <= 1, "between 0 and 1")
        self.require("gamma", 0 < self.gamma <= 10, "above 0 and at most 10")

    def make(self) -> ReverseSigmoid:
        return ReverseSigmoid(self)


def reverse_sigmoid(c_NK: Tensor, beta: float, gamma: float) -> Tensor:
    """``c - beta (sigmoid(gamma logit(c)) - 1/2)``, divided by its sum; float64.

    A score below 1/2 rises and one above falls, by beta/2 at most, and stays in [0, 1]. The order is not
    always kept: two scores near the steep ends of the sigmoid may change places.
    """
    p_NK = c_NK.double().clamp(0, 1)
    logit_NK = p_NK.log() - torch.log1p(-p_NK)  # infinite at 0 and 1, where the sigmoid is 0 and 1
    moved_NK = (p_NK - beta * (torch.sigmoid(gamma * logit_NK) - 0.5)).clamp_min(0)
    return moved_NK / moved_NK.sum(1, keepdim=True)


class ReverseSigmoid(BaseDefense):
    """The paper's formula, then the projection to the nearest vector on which the label is a maximum."""

    def __init__(self, config: ReverseSigmoidConfig) -> None:
        self.config = config

    def protect(self, c_NK: Tensor, x_NCHW: Tensor, picked_N: Tensor, *, rng: QueryRandomness) -> Tensor:
        y_NK = reverse_sigmoid(c_NK, self.config.beta, self.config.gamma)
        return keep_label(project_labelled_simplex(y_NK, label_of(c_NK)).to(c_NK), c_NK)
