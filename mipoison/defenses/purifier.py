"""Purifier-style autoencoder (Yang, Shao, Xuan, Chang, Zhang 2020, "Defending model inversion and membership
inference attacks via prediction purification", arXiv 2005.03915)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mipoison.config import Config, Knob
from mipoison.defenses.base import BaseDefense
from mipoison.defenses.state import State, module_state, part
from mipoison.models.inversion import SubstituteConfig, features
from mipoison.protocols import DefenderView
from mipoison.randomness import QueryRandomness
from mipoison.simplex import keep_label, label_of, project_labelled_simplex
from mipoison.training import seeded, train


@dataclass(frozen=True, kw_only=True)
class PurifierConfig(Config):
    """Purifier-style: an autoencoder with a bottleneck, trained on public vectors; label kept by projection.

    Attributes:
        bottleneck: units in the middle, at least 1; no more than K - 1 are used.
        label_weight: weight of the cross-entropy towards the clean label, 0 to 100.
        hidden: units of the outer layers. steps: Adam steps. batch: vectors per step.
        public_data: the share of D_inv whose clean vectors it is trained on.
    """

    SOURCE: ClassVar[str] = "Yang et al. 2020, adapted"

    KNOBS: ClassVar[Mapping[str, Knob]] = {
        "bottleneck": Knob(low=1, high=16, log=True, integer=True, help="units in the middle"),
        "label_weight": Knob(low=0.01, high=10.0, log=True, help="weight of the label's cross-entropy"),
    }

    bottleneck: int = 2
    label_weight: float = 0.1
    hidden: int = 32
    steps: int = 300
    batch: int = 64
    public_data: Literal["D1", "D2", "all"] = "all"

    def validate(self) -> None:
        self.require("bottleneck", self.bottleneck >= 1, "at least 1")
        self.require("label_weight", 0 <= self.label_weight <= 100, "between 0 and 100")
        self.require("hidden", self.hidden >= 1, "at least 1")
        self.require("steps", self.steps >= 1, "at least 1")
        self.require("batch", self.batch >= 2, "at least 2")

    def make(self) -> Purifier:
        return Purifier(self)


class LogScores(nn.Module):
    """Log scores, standardised for each class by mean and standard deviation over ``c_NK``."""

    mean: Tensor
    scale: Tensor

    def __init__(self, c_NK: Tensor) -> None:
        super().__init__()
        z_NK = features(c_NK, "log")
        self.register_buffer("mean", z_NK.mean(0))
        self.register_buffer("scale", z_NK.std(0, correction=0).clamp_min(1e-3))

    def forward(self, c_NK: Tensor) -> Tensor:
        return (features(c_NK, "log") - self.mean) / self.scale


class Purifier(BaseDefense):
    """``c' = softmax(G(log c))``, G an autoencoder with a bottleneck, trained to give c back.

    It is trained on ``|c' - c|^2 + label_weight * CE(c', label)`` over public vectors, to make a private
    vector look like a public one. The output is projected onto the vectors on which the label is a maximum.
    The conditional sampling and label swapping of the original's later version (AAAI 2023) are left out.
    """

    def __init__(self, config: PurifierConfig) -> None:
        self.config = config

    def fit(self, view: DefenderView, *, rng: torch.Generator) -> None:
        """Train the autoencoder on the defender's public share."""
        cfg = self.config
        c_NK = view.substitute_data(SubstituteConfig(data=cfg.public_data))[0].to(view.device)
        with seeded(rng, view.device):
            net = self._network(c_NK).to(view.device)

        def loss(logit_NK: Tensor, target_NK: Tensor) -> Tensor:
            distance = (torch.softmax(logit_NK, 1) - target_NK).square().sum(1).mean()
            return distance + cfg.label_weight * F.cross_entropy(logit_NK, label_of(target_NK))

        train(net, c_NK, c_NK, loss, steps=cfg.steps, batch=cfg.batch, lr=1e-2, rng=rng)
        self.autoencoder: nn.Module = net.requires_grad_(False)

    def _network(self, c_NK: Tensor) -> nn.Sequential:
        """An untrained autoencoder that standardises its inputs by the statistics of ``c_NK``."""
        k, hidden = c_NK.shape[1], self.config.hidden
        middle = min(self.config.bottleneck, max(k - 1, 1))
        return nn.Sequential(
            LogScores(c_NK),
            nn.Linear(k, hidden), nn.Tanh(), nn.Linear(hidden, middle),
            nn.Linear(middle, hidden), nn.Tanh(), nn.Linear(hidden, k),
        )  # fmt: skip

    def state(self) -> dict[str, Tensor]:
        return module_state("autoencoder", self.autoencoder)

    def load_state(self, state: State) -> None:
        tensors = part(state, "autoencoder")
        net = self._network(tensors["0.mean"].new_zeros(2, len(tensors["0.mean"])))
        net.load_state_dict(tensors)
        self.autoencoder = net.requires_grad_(False).eval().to(tensors["0.mean"].device)

    def protect(self, c_NK: Tensor, x_NCHW: Tensor, picked_N: Tensor, *, rng: QueryRandomness) -> Tensor:
        if len(c_NK) == 0:
            return c_NK.clone()
        y_NK = torch.softmax(self.autoencoder(c_NK).double(), 1)
        return keep_label(project_labelled_simplex(y_NK, label_of(c_NK)).to(c_NK), c_NK)
