"""Reverse sigmoid (Lee, Edwards, Molloy, Su 2018, "Defending against neural network model stealing attacks
using deceptive perturbations", arXiv 1806.00054)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from mipoison.certificates.observation import CONTINUUM
from mipoison.config import Config, Knob
from mipoison.defenses.base import BaseDefense
from mipoison.randomness import QueryRandomness
from mipoison.simplex import keep_label, label_of, project_labelled_simplex

LEAST_LOGIT, GRID = -32.0, 6000
"""Logit of the least score that :func:`undone` tells from zero; points between which it interpolates."""
ROUNDS = 60
"""Of its fixed point."""


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

    def undo(self, released_NK: Tensor) -> Tensor:
        """:func:`undone` with these settings, which are public."""
        return undone(released_NK, self.beta, self.gamma)


def moved(p: Tensor, beta: float, gamma: float) -> Tensor:
    """``p - beta (sigmoid(gamma logit p) - 1/2)`` of scores in [0, 1]."""
    logit = p.log() - torch.log1p(-p)  # infinite at 0 and 1, where the sigmoid is 0 and 1
    return p - beta * (torch.sigmoid(gamma * logit) - 0.5)


def reverse_sigmoid(c_NK: Tensor, beta: float, gamma: float) -> Tensor:
    """``c - beta (sigmoid(gamma logit(c)) - 1/2)``, divided by its sum; float64.

    A score below 1/2 rises and one above falls, by beta/2 at most, and stays in [0, 1]. The order is not
    always kept: two scores near the steep ends of the sigmoid may change places.
    """
    moved_NK = moved(c_NK.double().clamp(0, 1), beta, gamma).clamp_min(0)
    return moved_NK / moved_NK.sum(1, keepdim=True)


def undone(released_NK: Tensor, beta: float, gamma: float) -> Tensor:
    """Vectors (N, K), float64, of which these may be the releases: what anybody who knows the settings reads.

    Two scores have the same image, one on either side of the least image; of them the smaller is returned.
    The scores before the division by their sum are found by a fixed point, which the label's score closes:
    it is what the others leave. Where the projection moved the label's score, this is an approximation.

    Args:
        released_NK: released vectors; their label's score is a maximum.
    """
    label_N1 = label_of(released_NK)[:, None].cpu()
    other_NK = released_NK.cpu().double().scatter(1, label_N1, 0.0)
    is_other_NK = torch.ones_like(other_NK, dtype=torch.bool).scatter(1, label_N1, False)
    logit_G = torch.linspace(LEAST_LOGIT, 0.0, GRID, dtype=torch.float64)
    image_G = moved(torch.sigmoid(logit_G), beta, gamma)
    turn = int(image_G.argmin())  # images fall up to here, and rise from here
    logits, images = logit_G.numpy(), image_G.numpy()
    sum_N1, score_NK = torch.ones_like(other_NK[:, :1]), torch.zeros_like(other_NK)
    for _ in range(ROUNDS):
        before_NK = (other_NK * sum_N1).numpy()
        small_NK = np.interp(before_NK, images[turn::-1], logits[turn::-1])
        large_NK = np.interp(before_NK, images[turn:], logits[turn:])
        logit_NK = torch.from_numpy(np.where(before_NK < images[0], small_NK, large_NK))
        score_NK = torch.where(is_other_NK, torch.sigmoid(logit_NK), 0.0)
        top_N1 = (1 - score_NK.sum(1, keepdim=True)).clamp(1 / other_NK.shape[1], 1 - 1e-12)
        moved_NK = torch.where(is_other_NK, moved(score_NK, beta, gamma), 0.0)
        sum_N1 = (sum_N1 + moved_NK.sum(1, keepdim=True) + moved(top_N1, beta, gamma)) / 2
    top_N1 = torch.maximum(1 - score_NK.sum(1, keepdim=True), score_NK.amax(1, keepdim=True))
    whole_NK = score_NK.scatter(1, label_N1, top_N1)
    return whole_NK / whole_NK.sum(1, keepdim=True)


class ReverseSigmoid(BaseDefense):
    """The paper's formula, then the projection to the nearest vector on which the label is a maximum."""

    uncertifiable = CONTINUUM

    def __init__(self, config: ReverseSigmoidConfig) -> None:
        self.config = config

    def protect(self, c_NK: Tensor, x_NCHW: Tensor, picked_N: Tensor, *, rng: QueryRandomness) -> Tensor:
        y_NK = reverse_sigmoid(c_NK, self.config.beta, self.config.gamma)
        return keep_label(project_labelled_simplex(y_NK, label_of(c_NK)).to(c_NK), c_NK)
