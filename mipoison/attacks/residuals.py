"""What an image adds to the mean image of its label, in few numbers: the target of regressions on scores.

The mean image of the label needs no score. A regression of the rest is compared with it honestly only if
the mean was taken without the image that is predicted: ``without`` says how the rest changes then.

Shape suffixes: N samples, K classes, D pixels, P principal components.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mipoison.linalg.principal import PrincipalComponents
from mipoison.models.label_means import label_means

MOST_BASIS_IMAGES = 1000
"""Largest number of images that the principal components are computed from."""
LEAST_SHARE = 1e-10
"""Components of less than this share of the largest's variance are none."""


class Residuals:
    """Mean images of the labels, and the principal components of what the images add to them.

    Args:
        label_N: labels of the attacker's own images. x_ND: the images, float64.
        n_classes: K. components: most principal components.
        rng: draws the images that these are computed from, where there are many.

    Attributes:
        mean_KD: mean images; the mean of all images for labels that no image has.
        basis_DP: orthonormal directions of the leading principal components.
        rest_NP: ``x - mean`` of each image along them.
        without_NP: ``rest`` of each image if the mean of its label is taken over the other images; if it is
            the only one of its label, the mean is that of all others.
        count_N: number of images with this label.
    """

    def __init__(
        self, label_N: Tensor, x_ND: Tensor, n_classes: int, components: int, rng: torch.Generator
    ) -> None:
        self.mean_KD = label_means(label_N, x_ND, n_classes)
        self.count_N = torch.bincount(label_N, minlength=n_classes)[label_N]
        rest_ND = x_ND - self.mean_KD[label_N]
        others_N1 = (self.count_N - 1).clamp_min(1)[:, None].to(x_ND)  # one over integers is float32
        n = len(x_ND)
        alone_ND = (x_ND - x_ND.mean(0)) * n / max(n - 1, 1)
        without_ND = torch.where(self.count_N[:, None] > 1, rest_ND * (1 + 1 / others_N1), alone_ND)
        self.basis_DP = self._basis(rest_ND, components, rng)
        self.rest_NP, self.without_NP = rest_ND @ self.basis_DP, without_ND @ self.basis_DP

    @staticmethod
    def _basis(rest_ND: Tensor, components: int, rng: torch.Generator) -> Tensor:
        """Directions of the leading components of all images, or of as many as are drawn."""
        few = len(rest_ND) <= MOST_BASIS_IMAGES
        some_ND = rest_ND if few else rest_ND[torch.randperm(len(rest_ND), generator=rng)[:MOST_BASIS_IMAGES]]
        parts = PrincipalComponents(some_ND)
        return parts.directions(parts.leading(components, LEAST_SHARE))

    def images(self, label_N: Tensor, rest_NP: Tensor) -> Tensor:
        """Images (N, D), float64, clamped to [0, 1], of labels and predicted components."""
        return (self.mean_KD[label_N] + rest_NP @ self.basis_DP.mT).clamp(0, 1)
