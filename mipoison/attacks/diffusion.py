"""The conditional diffusion attacker (Zhou et al., Table V): samples images given a released vector."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from mipoison.attacks.sizes import sized, sizes_of
from mipoison.config import Config
from mipoison.models.diffusion import DiffusionNet, sample
from mipoison.models.inversion import features
from mipoison.protocols import Oracle, ThreatModel
from mipoison.training import seeded, train

CHUNK = 256
"""Number of images that are sampled at once."""


@dataclass(frozen=True, kw_only=True)
class DiffusionConfig(Config):
    """Trains a conditional diffusion model on its own pairs and draws a sample for each released vector.

    Attributes:
        guidance: w of classifier-free guidance, [0, 20]; 0 is the conditional model alone.
        features: features of the released vectors, ``log`` or ``raw``; they are standardised with the mean
            and deviation over the attacker's own answers.
        data: the attacker's own images: ``all`` of D_inv train, or a stratified half ``D1`` or ``D2``.
        timesteps: T, the number of noise steps, 2 to 10000. sampling_steps: DDIM steps, 1 to T.
        drop: probability that a training row is trained without its condition, [0, 1).
        lr: peak learning rate, above 0.
        width, steps, batch: as in DecoderConfig.
        longer: factor by which ``steps`` is multiplied, because predicting noise takes longer to learn.
    """

    COST: ClassVar[int] = 2

    guidance: float = 0.0
    features: Literal["log", "raw"] = "log"
    data: Literal["all", "D1", "D2"] = "all"
    timesteps: int = 200
    sampling_steps: int = 50
    drop: float = 0.1
    longer: int = 3
    width: int | None = None
    steps: int | None = None
    batch: int | None = None
    lr: float = 2e-3

    def validate(self) -> None:
        self.require("guidance", 0 <= self.guidance <= 20, "between 0 and 20")
        self.require("drop", 0 <= self.drop < 1, "between 0 and 1")
        self.require("timesteps", 2 <= self.timesteps <= 10000, "between 2 and 10000")
        self.require("sampling_steps", 1 <= self.sampling_steps <= self.timesteps, "between 1 and timesteps")
        self.require("lr", self.lr > 0, "above 0")
        for name in ("longer", "width", "steps", "batch"):
            value = getattr(self, name)
            self.require(name, value is None or value >= 1, "at least 1")

    def make(self) -> Diffusion:
        return Diffusion(sized(self))


class Diffusion:
    """Trains a noise predictor on its own pairs; reconstructs by deterministic DDIM sampling."""

    def __init__(self, config: DiffusionConfig, device: torch.device | None = None) -> None:
        self.config = config
        self.device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def fit(self, oracle: Oracle, x_NCHW: Tensor, *, known: ThreatModel, rng: torch.Generator) -> None:
        """Query the API once and train. All randomness comes from ``rng``.

        Raises:
            ValueError: fewer than four images.
        """
        cfg, sizes = self.config, sizes_of(self.config)
        if len(x_NCHW) < 4:
            raise ValueError(f"the diffusion attacker needs at least 4 images of its own, got {len(x_NCHW)}")
        f_NK = features(oracle.query(x_NCHW), cfg.features)
        self.mean_K, self.scale_K = f_NK.mean(0), f_NK.std(0, correction=0).clamp_min(1e-6)
        with seeded(rng, self.device):
            net = DiffusionNet(
                known.image_shape,
                oracle.n_classes,
                width=sizes.width,
                timesteps=cfg.timesteps,
                drop=cfg.drop,
            ).to(self.device)
        rows = torch.cat([self._standard(f_NK), x_NCHW.flatten(1)], 1).to(self.device)
        self.net = train(
            net, rows, rows, lambda error_N, _: error_N.mean(),
            steps=sizes.steps * cfg.longer, batch=sizes.batch, lr=cfg.lr, rng=rng,
        )  # fmt: skip
        self.start_CHW = torch.randn(known.image_shape, generator=rng)

    def _standard(self, f_NK: Tensor) -> Tensor:
        """Standardise features with the training answers' statistics, clamped at 5 standard deviations."""
        return ((f_NK - self.mean_K) / self.scale_K).clamp(-5, 5)

    def reconstruct(self, c_NK: Tensor) -> Tensor:
        """Sample one image (C, H, W) for each released vector; equal vectors give equal images."""
        cfg = self.config
        f_NK = self._standard(features(c_NK, cfg.features)).to(self.device)
        assert isinstance(self.net, DiffusionNet)
        parts = [
            sample(
                self.net, f_NK[i : i + CHUNK], self.start_CHW, guidance=cfg.guidance, steps=cfg.sampling_steps
            ).cpu()
            for i in range(0, max(len(f_NK), 1), CHUNK)
        ]
        return torch.cat(parts)
