"""A variational encoder-decoder that maps a confidence vector to the direction of its perturbation.

Shape suffixes: N samples, K classes, Z latent units.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mipoison.models.bottleneck import kl_to_standard_normal
from mipoison.models.inversion import features


class GeneratorNet(nn.Module):
    """``c -> (mu, sigma) -> z -> d``, where each row of d has length 1 and sums to zero.

    In training mode, :meth:`forward` draws z from torch's global generator and returns (N, K + 1): the
    directions and each row's KL divergence to N(0, I). In eval mode it returns the directions (N, K) for the
    mean of z.

    Args:
        mean_K: means of the log scores, by which they are standardised.
        scale_K: standard deviations of the log scores.
        hidden: units of each hidden layer.
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
        """Inputs (N, 2 K): scores, and standardised log scores."""
        log_NK = (features(c_NK, "log") - self.mean_K) / self.scale_K
        return torch.cat([c_NK, log_NK.clamp(-5, 5)], 1)

    def moments(self, c_NK: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of z, each (N, Z)."""
        mu_NZ, raw_NZ = self.encoder(self.inputs(c_NK)).chunk(2, 1)
        return mu_NZ, nn.functional.softplus(raw_NZ) + 1e-6

    def direction(self, c_NK: Tensor, noise_NZ: Tensor) -> Tensor:
        """Directions (N, K) of length 1 that sum to zero, for standard normal noise; with zeros, z is its
        mean."""
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
