"""MID: a victim retrained with a variational information bottleneck (Wang, Zhang, Jia 2020, "Improving
robustness to model inversion attacks via mutual information regularization", arXiv 2009.05241)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from mipoison.config import Config, Knob, Plain
from mipoison.defenses.base import BaseDefense
from mipoison.defenses.retraining import retrained
from mipoison.models.bottleneck import BottleneckNet
from mipoison.protocols import DefenderView
from mipoison.randomness import QueryRandomness
from mipoison.training import train


@dataclass(frozen=True, kw_only=True)
class MIDConfig(Config):
    """The victim is replaced by one that is retrained with a variational information bottleneck.

    Attributes:
        beta: weight of the bottleneck, [0, 10]. The paper uses 0.01, and 0.001 for CIFAR-10.
        sampling: of the bottleneck when queries are answered: ``keyed`` (a draw that image and secret
            determine, the same each time), ``fresh`` (a new draw each time) or ``mean`` (no draw).
    """

    SOURCE: ClassVar[str] = "Wang et al. 2020"

    KNOBS: ClassVar[Mapping[str, Knob]] = {
        "beta": Knob(low=1e-4, high=1.0, log=True, help="weight of the bottleneck")
    }
    STARTS: ClassVar[tuple[Mapping[str, Plain], ...]] = ({}, {"beta": 0.1})

    beta: float = 0.01
    sampling: Literal["keyed", "fresh", "mean"] = "keyed"

    def validate(self) -> None:
        self.require("beta", 0 <= self.beta <= 10, "between 0 and 10")

    def make(self) -> MID:
        return MID(self)


class MID(BaseDefense):
    """Answers with another classifier, trained on ``CE + beta KL(N(mu, sigma^2) || N(0, I))``.

    This is not post-processing. The clean vector is ignored, and the distortion is the distance between two
    classifiers' answers.
    """

    keeps_label = False
    retrains = True
    reads_image = True

    def __init__(self, config: MIDConfig) -> None:
        self.config = config
        self.draws = config.sampling != "mean"
        self.fresh = config.sampling == "fresh"

    def fit(self, view: DefenderView, *, rng: torch.Generator) -> None:
        """Retrain on the private images, or load the retrained network."""
        cfg, victim = self.config, view.victim

        def loss(output_NM: Tensor, y_N: Tensor) -> Tensor:
            return F.cross_entropy(output_NM[:, :-1], y_N) + cfg.beta * output_NM[:, -1].mean()

        def fit(net: BottleneckNet, x_NCHW: Tensor, y_N: Tensor) -> None:
            train(net, x_NCHW, y_N, loss, rng=rng, **victim.training())

        # Training does not depend on `sampling`: one stored network serves all three kinds.
        self.network = retrained(view, "mid", {"beta": cfg.beta}, build=BottleneckNet, fit=fit, rng=rng)

    def protect(self, c_NK: Tensor, x_NCHW: Tensor, picked_N: Tensor, *, rng: QueryRandomness) -> Tensor:
        if len(c_NK) == 0:
            return c_NK.clone()
        width = self.network.head.in_features
        noise_NH = rng.normal(width, "mid").to(x_NCHW) if self.draws else x_NCHW.new_zeros(len(x_NCHW), width)
        with torch.no_grad():
            return torch.softmax(self.network.logits(x_NCHW, noise_NH), 1).to(c_NK)
