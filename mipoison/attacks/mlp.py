"""MLP attacker: a fully connected decoder on standardised scores, stopped early on its own validation split.

Shape suffixes: N samples, K classes, F features, D pixels, CHW image.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from mipoison.attacks.feature_sets import known_sets
from mipoison.attacks.kernel_choice import best_together
from mipoison.attacks.selection import Standardised, Together
from mipoison.attacks.sizes import sized, sizes_of
from mipoison.config import Config, Plain
from mipoison.protocols import Oracle, ThreatModel
from mipoison.training import Validation, apply, mse, seeded, train

HIDDEN_PER_WIDTH = 16
"""Units in each of the two hidden layers, as a multiple of ``width``."""


@dataclass(frozen=True, kw_only=True)
class MLPConfig(Config):
    """A fully connected decoder on the feature sets that suit its own images best, stopped early on its own
    validation split.

    Attributes:
        inputs: features, standardised: ``chosen``, the two of FEATURE_SETS that are best for a kernel
            regression on its own images, and the label's one-hot; or those of earlier records, ``log`` or
            ``raw`` scores, or ``all`` (both and the one-hot).
        validation: share of its images held out for early stopping, (0, 0.5].
        patience: number of checks without progress, of twenty in a training, after which training stops.
        data: the attacker's own images: ``all`` of D_inv train, or a stratified half ``D1`` or ``D2``.
        width: each hidden layer has 16 times as many units. steps, batch, lr: training with Adam. None as in
            DecoderConfig.
    """

    COST: ClassVar[int] = 0
    BEFORE: ClassVar[Mapping[str, Plain | None]] = {"inputs": "all"}

    inputs: Literal["log", "raw", "all", "chosen"] = "chosen"
    validation: float = 0.15
    patience: int = 4
    data: Literal["all", "D1", "D2"] = "all"
    width: int | None = None
    steps: int | None = None
    batch: int | None = None
    lr: float | None = None

    def validate(self) -> None:
        self.require("validation", 0 < self.validation <= 0.5, "above 0 and at most 0.5")
        for name in ("patience", "width", "steps", "batch"):
            value = getattr(self, name)
            self.require(name, value is None or value >= 1, "at least 1")
        self.require("lr", self.lr is None or self.lr > 0, "above 0")

    def make(self) -> MLP:
        return MLP(sized(self))


class MLP:
    """Queries its images once and trains a network with two hidden layers on the answers."""

    def __init__(self, config: MLPConfig, device: torch.device | None = None) -> None:
        self.config = config
        self.device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def fit(self, oracle: Oracle, x_NCHW: Tensor, *, known: ThreatModel, rng: torch.Generator) -> None:
        """Query the API and train. All randomness comes from ``rng``.

        Raises:
            ValueError: fewer than four images.
        """
        cfg, sizes = self.config, sizes_of(self.config)
        if len(x_NCHW) < 4:
            raise ValueError(f"the MLP attacker needs at least 4 images of its own, got {len(x_NCHW)}")
        self.shape = known.image_shape
        c_NK = oracle.query(x_NCHW).cpu()
        self.standardise: Standardised | Together
        if cfg.inputs == "chosen":
            x_ND = x_NCHW.cpu().double().flatten(1)
            self.standardise = best_together(known_sets(known).values(), c_NK, x_ND, rng)
        else:
            self.standardise = Standardised(c_NK, cfg.inputs)
        z_NF, x_NP = self._inputs(c_NK), x_NCHW.to(self.device).float().flatten(1)
        order = torch.randperm(len(z_NF), generator=rng).to(self.device)
        held = max(1, round(cfg.validation * len(order)))
        hidden = HIDDEN_PER_WIDTH * sizes.width
        with seeded(rng, self.device):
            self.model = nn.Sequential(
                nn.Linear(z_NF.shape[1], hidden),
                nn.SiLU(),
                nn.Linear(hidden, hidden),
                nn.SiLU(),
                nn.Linear(hidden, math.prod(self.shape)),
                nn.Sigmoid(),
            ).to(self.device)
        train(
            self.model,
            z_NF[order[held:]],
            x_NP[order[held:]],
            mse,
            steps=sizes.steps,
            batch=sizes.batch,
            lr=sizes.lr,
            rng=rng,
            validation=Validation(
                z_NF[order[:held]], x_NP[order[:held]], every=max(1, sizes.steps // 20), patience=cfg.patience
            ),
        )

    def _inputs(self, c_NK: Tensor) -> Tensor:
        return self.standardise(c_NK).float().to(self.device)

    def reconstruct(self, c_NK: Tensor) -> Tensor:
        """Reconstruct images (N, C, H, W) from released vectors."""
        return apply(self.model, self._inputs(c_NK)).cpu().reshape(-1, *self.shape)
