"""Variational encoder-decoder from a confidence vector to the direction of its perturbation.

Shape suffixes: N samples, K classes, Z latent units.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mipoison.models.bottleneck import kl_to_standard_normal
from mipoison.models.inversion import features


class GeneratorNet(nn.Module):
    """``c -> (mu, sigma) -> z -> d``; d has the unit length and rows that sum to zero.

    In training mode :meth:`forward` draws z from torch's generator and appends the KL divergence to N(0, I).

    Args:
        mean_K: mean log scores, to standardise them.
        scale_K: their standard deviations.
        hidden: units of the hidden layers.
        latent: Z.
    """

    mean_K: Tensor
    scale_K: Tensor

    def __init__(self, mean_K: Tensor, scale_K: Tensor, *, hidden: int, latent: int) -> None:
        super().__init__()
        k = len(mean_K)
        self.latent = latent
        self.register_buffer("mean_K", mean_K)
        self.register_buffer("scale_K", scale_K)
        self.encoder = nn.Sequential(nn.Linear(2 * k, hidden), nn.SiLU(), nn.Linear(hidden, 2 * latent))
        self.decoder = nn.Sequential(nn.Linear(latent + 2 * k, hidden), nn.SiLU(), nn.Linear(hidden, k))

    def inputs(self, c_NK: Tensor) -> Tensor:
        """Scores and standardised log scores side by side."""
        log_NK = (features(c_NK, "log") - self.mean_K) / self.scale_K
        return torch.cat([c_NK, log_NK.clamp(-5, 5)], 1)

    def moments(self, c_NK: Tensor) -> tuple[Tensor, Tensor]:
        """mu and sigma (N, Z)."""
        mu_NZ, raw_NZ = self.encoder(self.inputs(c_NK)).chunk(2, 1)
        return mu_NZ, nn.functional.softplus(raw_NZ) + 1e-6

    def direction(self, c_NK: Tensor, noise_NZ: Tensor) -> Tensor:
        """Unit directions on the simplex tangent for standard normal noise; zeros give the mean's."""
        mu_NZ, sigma_NZ = self.moments(c_NK)
        d_NK = self.decoder(torch.cat([mu_NZ + sigma_NZ * noise_NZ, self.inputs(c_NK)], 1))
        d_NK = d_NK - d_NK.mean(1, keepdim=True)
        return d_NK / d_NK.norm(dim=1, keepdim=True).clamp_min(1e-12)

    def forward(self, c_NK: Tensor) -> Tensor:
        mu_NZ, sigma_NZ = self.moments(c_NK)
        if not self.training:
            return self.direction(c_NK, torch.zeros_like(mu_NZ))
        d_NK = self.direction(c_NK, torch.randn_like(mu_NZ))
        return torch.cat([d_NK, kl_to_standard_normal(mu_NZ, sigma_NZ)[:, None]], 1)
