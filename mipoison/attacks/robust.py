"""Robust attacker: trains with noise of the defense's size in every batch and with the Huber loss.

A poisoned answer affects training through the gradient at that very vector. Noise of the same size averages
the gradient over a neighbourhood, and the Huber loss bounds the gradient of every pixel.

Shape suffixes: N samples, K classes, CHW image.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from mipoison.attacks.decoder import Decoder, DecoderConfig
from mipoison.attacks.sizes import sized
from mipoison.attacks.views import noise
from mipoison.protocols import Oracle, ThreatModel


@dataclass(frozen=True, kw_only=True)
class RobustConfig(DecoderConfig):
    """A decoder trained with fresh noise of the defense's size in every batch, and with the Huber loss.

    ``loss`` applies where ``huber`` is 0.

    Attributes:
        noise: l2 length of the noise, tangent to the simplex, that is added to every vector of every training
            batch, at least 0. None means the defense's public budget, and no noise if it has none: on clean
            vectors noise only hides small scores (error on digits without a defense: 0.066 with noise of
            0.01, 0.038 without).
        huber: the Huber loss is quadratic up to this difference in pixel values, at least 0; 0 means that
            ``loss`` is used instead.
    """

    noise: float | None = None
    huber: float = 0.25

    def validate(self) -> None:
        super().validate()
        self.require("noise", self.noise is None or self.noise >= 0, "at least 0")
        self.require("huber", self.huber >= 0, "at least 0")

    def make(self) -> Robust:
        return Robust(sized(self))


class Robust(Decoder):
    """Adds noise in training only; released vectors are inverted without changing them."""

    config: RobustConfig

    def pairs(self, oracle: Oracle, x_NCHW: Tensor, known: ThreatModel) -> tuple[Tensor, Tensor]:
        public = float(known.settings.get("budget") or 0.0)
        self.length = public if self.config.noise is None else self.config.noise
        return super().pairs(oracle, x_NCHW, known)

    def augment(self, c_NK: Tensor, rng: torch.Generator) -> Tensor:
        return noise(c_NK, self.length, rng) if self.length > 0 else c_NK

    def loss(self, output_NCHW: Tensor, x_NCHW: Tensor) -> Tensor:
        huber = self.config.huber
        return F.huber_loss(output_NCHW, x_NCHW, delta=huber) if huber else super().loss(output_NCHW, x_NCHW)
