"""The victim with a variational information bottleneck before its last layer (MID, Wang et al. 2020,
arXiv 2009.05241).

Shape suffixes: N samples, K classes, H units of the bottleneck, CHW image.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mipoison.models.classifier import ClassifierConfig, VictimNet


class BottleneckNet(nn.Module):
    """A classifier: the victim's convolutions, then ``z ~ N(mu(x), sigma(x)^2)``, then a linear layer.

    In training mode, :meth:`forward` draws z from torch's global generator and returns (N, K + 1): the logits
    and each row's KL divergence to N(0, I). In eval mode, z is its mean and the logits (N, K) are returned.

    Args:
        config: sizes; H is ``hidden``. image_shape: (C, H, W). n_classes: K.
    """

    def __init__(self, config: ClassifierConfig, image_shape: tuple[int, int, int], n_classes: int) -> None:
        super().__init__()
        plain = VictimNet(config, image_shape, n_classes)
        first = plain.head[1]
        assert isinstance(first, nn.Linear)
        self.features = plain.features
        self.moments = nn.Linear(first.in_features, 2 * config.hidden)
        self.head = nn.Linear(config.hidden, n_classes)

    def bottleneck(self, x_NCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of z, each (N, H)."""
        mu_NH, raw_NH = self.moments(self.features(x_NCHW).flatten(1)).chunk(2, 1)
        return mu_NH, F.softplus(raw_NH - 1) + 1e-6

    def logits(self, x_NCHW: Tensor, noise_NH: Tensor) -> Tensor:
        """Logits (N, K) for standard normal noise; with zeros, z is its mean."""
        mu_NH, sigma_NH = self.bottleneck(x_NCHW)
        return self.head(mu_NH + sigma_NH * noise_NH)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        mu_NH, sigma_NH = self.bottleneck(x_NCHW)
        if not self.training:
            return self.head(mu_NH)
        logits_NK = self.head(mu_NH + sigma_NH * torch.randn_like(mu_NH))
        return torch.cat([logits_NK, kl_to_standard_normal(mu_NH, sigma_NH)[:, None]], 1)


def kl_to_standard_normal(mu_NH: Tensor, sigma_NH: Tensor) -> Tensor:
    """``KL(N(mu, sigma^2) || N(0, I))`` of every row, (N,), in nats."""
    return 0.5 * (mu_NH.square() + sigma_NH.square() - 1 - 2 * sigma_NH.log()).sum(1)
