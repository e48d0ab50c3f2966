"""The inversion model of Yang et al. 2019 (arXiv 1902.08552): from a vector to an image.

Shape suffixes: N samples, K classes, C channels, H height, W width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from mipoison.config import Config
from mipoison.models.classifier import blocks_for

STANDARD_BLOCKS = {16: 3, 32: 4, 64: 5}
"""Number of blocks by height and width in pixels."""
LOG_SHIFT = 50.0
"""Yang et al. use ``log c + 50`` clamped at 0 as input, so that a score below e^-50 counts as e^-50."""


@dataclass(frozen=True, kw_only=True)
class InversionConfig(Config):
    """Architecture of an inversion model.

    Attributes:
        features: the input, ``log`` (log c + 50, clamped at 0; Yang et al.) or ``raw`` (c itself).
        extra_blocks: blocks of stride 1 in addition to the standard 3 (16x16), 4 (32x32) or 5 (64x64); the
            paper's TCNN-6 has 5 and 1 extra. 0 to 3.
        width: channels before the last block (ngf); each earlier block has twice as many.
    """

    features: Literal["log", "raw"] = "log"
    extra_blocks: int = 0
    width: int = 32

    def validate(self) -> None:
        self.require("extra_blocks", 0 <= self.extra_blocks <= 3, "between 0 and 3")
        self.require("width", self.width >= 1, "at least 1")

    def make(self, image_shape: tuple[int, int, int], n_classes: int) -> InversionNet:
        """An untrained inversion model from vectors (N, K) to images (N, C, H, W) in (0, 1)."""
        return InversionNet(self, image_shape, n_classes)


@dataclass(frozen=True, kw_only=True)
class SubstituteConfig(Config):
    """A substitute: the inversion model that a defender trains in order to predict an attacker's.

    It is as wide as the scene's decoders and trained as long.

    Attributes:
        features, extra_blocks: see InversionConfig.
        loss: training loss, ``mse`` or ``psnr`` (negative PSNR).
        data: training data, ``D1`` or ``D2`` (stratified halves of D_inv) or ``all`` of D_inv. With D1, an
            attacker that trains on D2 alone has data that the defender did not use.
    """

    features: Literal["log", "raw"] = "log"
    extra_blocks: int = 0
    loss: Literal["mse", "psnr"] = "mse"
    data: Literal["D1", "D2", "all"] = "D1"

    def architecture(self, width: int) -> InversionConfig:
        """The network's configuration."""
        return InversionConfig(features=self.features, extra_blocks=self.extra_blocks, width=width)


def features(c_NK: Tensor, kind: str) -> Tensor:
    """The inversion model's input (N, K): ``raw`` scores, or ``log`` scores plus 50, clamped at 0."""
    if kind == "raw":
        return c_NK
    floor = torch.finfo(c_NK.dtype).tiny
    return (torch.log(c_NK.clamp_min(floor)) + LOG_SHIFT).clamp_min(0.0)


class InversionNet(nn.Module):
    """Transposed convolutions with BatchNorm and Tanh between them and a sigmoid at the end.

    ``layers`` is a flat sequence of ConvTranspose2d, BatchNorm2d and Tanh modules, because the alignment
    engines process it layer by layer (see ``mipoison.alignment``).

    Args:
        config: sizes. image_shape: (C, H, W). n_classes: K.
    """

    def __init__(self, config: InversionConfig, image_shape: tuple[int, int, int], n_classes: int) -> None:
        super().__init__()
        channels, size, _ = image_shape
        self.kind = config.features
        n = blocks_for(size, STANDARD_BLOCKS)
        widths = [config.width * 2**i for i in reversed(range(n - 1))]
        layers: list[nn.Module] = []
        previous = n_classes
        for i, width in enumerate(widths):
            stride, padding = (1, 0) if i == 0 else (2, 1)
            layers += self._block(nn.ConvTranspose2d(previous, width, 4, stride, padding, bias=False))
            previous = width
        for _ in range(config.extra_blocks):
            layers += self._block(nn.ConvTranspose2d(previous, previous, 3, 1, 1, bias=False))
        layers.append(nn.ConvTranspose2d(previous, channels, 4, 2, 1))
        self.layers = nn.Sequential(*layers)

    @staticmethod
    def _block(convolution: nn.ConvTranspose2d) -> list[nn.Module]:
        return [convolution, nn.BatchNorm2d(convolution.out_channels), nn.Tanh()]

    def forward(self, c_NK: Tensor) -> Tensor:
        return torch.sigmoid(self.layers(features(c_NK, self.kind)[:, :, None, None]))
