"""Principal-component MLP: the mean image of the label plus a small network from the scores to the leading
principal components of the attacker's own images.

The components are the prior: the network has few outputs, and no image that it can draw is unlike the
attacker's. That is worth most where images are large and few, as faces are.

Shape suffixes: N samples, K classes, F features, P principal components.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from mipoison.attacks.feature_sets import known_sets
from mipoison.attacks.kernel_choice import best_together
from mipoison.attacks.residuals import Residuals
from mipoison.attacks.selection import folds
from mipoison.config import Config
from mipoison.protocols import Oracle, ThreatModel
from mipoison.simplex import label_of
from mipoison.training import Validation, apply, mse, seeded, train


@dataclass(frozen=True, kw_only=True)
class PCAMLPConfig(Config):
    """The label's mean image plus a small network from the scores to the leading principal components of its
    own images; one network a fold, stopped early on that fold.

    Attributes:
        components: principal components that are predicted, at least 1.
        networks: number of networks whose predictions are averaged, 2 to 10.
        hidden: units of each of the two hidden layers. steps, batch, lr: training with Adam.
        noise: standard deviation of noise on the standardised features in training, at least 0.
        patience: number of checks without progress, of twenty in a training, after which training stops.
        data: the attacker's own images: ``all`` of D_inv train, or a stratified half ``D1`` or ``D2``.
    """

    COST: ClassVar[int] = 0

    components: int = 16
    networks: int = 3
    hidden: int = 128
    steps: int = 150
    batch: int = 64
    lr: float = 5e-3
    noise: float = 0.3
    patience: int = 5
    data: Literal["all", "D1", "D2"] = "all"

    def validate(self) -> None:
        self.require("networks", 2 <= self.networks <= 10, "between 2 and 10")
        for name in ("components", "hidden", "steps", "batch", "patience"):
            self.require(name, getattr(self, name) >= 1, "at least 1")
        self.require("lr", self.lr > 0, "above 0")
        self.require("noise", self.noise >= 0, "at least 0")

    def make(self) -> PCAMLP:
        return PCAMLP(self)


class PCAMLP:
    """Queries its images once and trains a few small networks on the answers."""

    def __init__(self, config: PCAMLPConfig, device: torch.device | None = None) -> None:
        self.config = config
        self.device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def fit(self, oracle: Oracle, x_NCHW: Tensor, *, known: ThreatModel, rng: torch.Generator) -> None:
        """Query, choose the feature sets, and train. All randomness comes from ``rng``.

        Raises:
            ValueError: fewer than four images.
        """
        cfg = self.config
        if len(x_NCHW) < 4:
            raise ValueError(f"the PCA-MLP attacker needs at least 4 images of its own, got {len(x_NCHW)}")
        self.shape = known.image_shape
        c_NK, x_ND = oracle.query(x_NCHW).cpu(), x_NCHW.cpu().double().flatten(1)
        label_N = label_of(c_NK)
        self.parts = Residuals(label_N, x_ND, oracle.n_classes, cfg.components, rng)
        self.models: list[nn.Module] = []
        if self.parts.rest_NP.shape[1] == 0:
            return
        self.features = best_together(known_sets(known).values(), c_NK, x_ND, rng)
        self.scale = float(self.parts.rest_NP.square().mean().sqrt())
        z_NF = self._inputs(c_NK)
        y_NP = (self.parts.rest_NP / self.scale).float().to(self.device)
        fold_N = folds(len(x_ND), cfg.networks, rng).to(self.device)
        self.models = [self._trained(z_NF, y_NP, fold_N == k, rng) for k in range(int(fold_N.max()) + 1)]

    def _trained(self, z_NF: Tensor, y_NP: Tensor, held_N: Tensor, rng: torch.Generator) -> nn.Module:
        cfg = self.config
        with seeded(rng, self.device):
            last = nn.Linear(cfg.hidden, y_NP.shape[1])
            nn.init.zeros_(last.weight)  # it begins as the mean image of the label
            nn.init.zeros_(last.bias)
            model = nn.Sequential(
                nn.Linear(z_NF.shape[1], cfg.hidden),
                nn.SiLU(),
                nn.Linear(cfg.hidden, cfg.hidden),
                nn.SiLU(),
                last,
            ).to(self.device)
        return train(
            model,
            z_NF[~held_N],
            y_NP[~held_N],
            mse,
            steps=cfg.steps,
            batch=cfg.batch,
            lr=cfg.lr,
            rng=rng,
            augment=self._noised if cfg.noise > 0 else None,
            validation=Validation(
                z_NF[held_N], y_NP[held_N], every=max(1, cfg.steps // 20), patience=cfg.patience
            ),
        )

    def _noised(self, z_NF: Tensor, rng: torch.Generator) -> Tensor:
        return z_NF + self.config.noise * torch.randn(z_NF.shape, generator=rng).to(z_NF)

    def _inputs(self, c_NK: Tensor) -> Tensor:
        return self.features(c_NK).float().to(self.device)

    def reconstruct(self, c_NK: Tensor) -> Tensor:
        """Reconstruct images (N, C, H, W) from released vectors."""
        rest_NP = torch.zeros(len(c_NK), self.parts.rest_NP.shape[1], dtype=torch.float64)
        for model in self.models:
            rest_NP += apply(model, self._inputs(c_NK)).cpu().double() * self.scale / len(self.models)
        return self.parts.images(label_of(c_NK.cpu()), rest_NP).float().reshape(-1, *self.shape)
