"""Reverse sigmoid (Lee, Edwards, Molloy, Su 2018, "Defending against neural network model stealing attacks
using deceptive perturbations", arXiv 1806.00054)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
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


def reverse_sigmoid(c_NK: Tensor, beta: float, gamma: float) -> Tensor:
    """``c - beta (sigmoid(gamma logit(c)) - 1/2)``, divided by its sum; float64.

    A score below 1/2 rises and one above falls, by beta/2 at most, and stays in [0, 1]. The order is not
    always kept: two scores near the steep ends of the sigmoid may change places.
    """
    p_NK = c_NK.double().clamp(0, 1)
    logit_NK = p_NK.log() - torch.log1p(-p_NK)  # infinite at 0 and 1, where the sigmoid is 0 and 1
    moved_NK = (p_NK - beta * (torch.sigmoid(gamma * logit_NK) - 0.5)).clamp_min(0)
    return moved_NK / moved_NK.sum(1, keepdim=True)


def undone(released_NK: Tensor, beta: float, gamma: float) -> Tensor:
    """Vectors (N, K), float64, of which these may be the releases: what anybody who knows the settings reads.

    Two scores have the same image, one on either side of the least image; of them the smaller is returned.
    The scores before the division by their sum are found by a fixed point, which the label's score closes:
    it is what the others leave. Where the projection moved the label's score, this is an approximation.

    Args:
        released_NK: released vectors; their label's score is a maximum.
    """
    import scipy.special

    label_N1 = label_of(released_NK)[:, None]
    other_NK = released_NK.double().scatter(1, label_N1, 0.0).numpy(force=True)
    logit_G = np.linspace(LEAST_LOGIT, 0.0, GRID)

    def moved(score: NDArray[np.float64]) -> NDArray[np.float64]:
        logit = np.log(score) - np.log1p(-score)
        return score - beta * (scipy.special.expit(gamma * logit) - 0.5)

    image_G = moved(scipy.special.expit(logit_G))
    turn = int(image_G.argmin())  # images fall up to here, and rise from here
    sum_N1, score_NK = np.ones((len(other_NK), 1)), np.zeros_like(other_NK)
    is_other_NK = np.ones(other_NK.shape, dtype=bool)
    np.put_along_axis(is_other_NK, label_N1.numpy(force=True), False, axis=1)
    for _ in range(ROUNDS):
        before_NK = other_NK * sum_N1
        small_NK = np.interp(before_NK, image_G[turn::-1], logit_G[turn::-1])
        large_NK = np.interp(before_NK, image_G[turn:], logit_G[turn:])
        logit_NK = np.where(before_NK < image_G[0], small_NK, large_NK)
        score_NK = np.where(is_other_NK, scipy.special.expit(logit_NK), 0.0)
        top_N1 = (1 - score_NK.sum(1, keepdims=True)).clip(1 / other_NK.shape[1], 1 - 1e-12)
        images_NK = np.where(is_other_NK, moved(score_NK.clip(1e-300)), 0.0)
        sum_N1 = (sum_N1 + images_NK.sum(1, keepdims=True) + moved(top_N1)) / 2
    top_N1 = np.maximum(1 - score_NK.sum(1, keepdims=True), score_NK.max(1, keepdims=True))
    whole_NK = torch.from_numpy(score_NK).scatter(1, label_N1.cpu(), torch.from_numpy(top_N1))
    return whole_NK / whole_NK.sum(1, keepdim=True)


class ReverseSigmoid(BaseDefense):
    """The paper's formula, then the projection to the nearest vector on which the label is a maximum."""

    uncertifiable = CONTINUUM

    def __init__(self, config: ReverseSigmoidConfig) -> None:
        self.config = config

    def protect(self, c_NK: Tensor, x_NCHW: Tensor, picked_N: Tensor, *, rng: QueryRandomness) -> Tensor:
        y_NK = reverse_sigmoid(c_NK, self.config.beta, self.config.gamma)
        return keep_label(project_labelled_simplex(y_NK, label_of(c_NK)).to(c_NK), c_NK)
