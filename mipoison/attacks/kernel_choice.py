"""Regressions of residuals on feature sets, compared by their leave-one-out errors.

Shape suffixes: N images, M landmarks, F features, K classes, D pixels, P principal components.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from mipoison.attacks.feature_sets import FeatureSet
from mipoison.attacks.kernel_ridge import PENALTIES, Kernel, Path
from mipoison.attacks.residuals import Residuals
from mipoison.attacks.selection import Standardised, Together
from mipoison.simplex import label_of

FIRST = Kernel("matern", 2.0)
"""Kernel by which the feature sets are compared."""
TOGETHER = 2
"""Number of feature sets that a network reads."""
COMPONENTS = 16
"""Principal components on which feature sets are compared for it."""
EXACT = 400
"""Up to so many images every image is a landmark while the settings are chosen."""


@dataclass
class Candidate:
    """One regression on the images on which settings are chosen.

    Attributes:
        standardise: vectors -> features. penalty: the best one.
        error_NP: leave-one-out errors.
    """

    standardise: Standardised
    kernel: Kernel
    penalty: float
    error_NP: Tensor

    @property
    def loss(self) -> float:
        return float(self.error_NP.square().sum())


def landmark_count(images: int, landmarks: int) -> int:
    """How many of the first images are landmarks: all where these are few, else ``landmarks``."""
    return images if images <= max(EXACT, landmarks) else landmarks


def path_of(kernel: Kernel, z_NF: Tensor, label_N: Tensor, landmarks: int) -> Path:
    """The regressions of all penalties, with the first images as landmarks."""
    if len(z_NF) <= landmarks:
        return Path(kernel(z_NF, label_N, z_NF, label_N))
    z_MF, label_M = z_NF[:landmarks], label_N[:landmarks]
    return Path(kernel(z_NF, label_N, z_MF, label_M), kernel(z_MF, label_M, z_MF, label_M))


def candidate(standardise: Standardised, kernel: Kernel, c_NK: Tensor, parts: Residuals) -> Candidate:
    """The regression with the penalty of least leave-one-out error.

    Args:
        c_NK: the vectors of the images behind ``parts``, in random order if they are more than EXACT.
    """
    label_N = label_of(c_NK)
    errors = path_of(kernel, standardise(c_NK), label_N, EXACT).left_out(parts, label_N)
    best = min(range(len(PENALTIES)), key=lambda p: float(errors[p].square().sum()))
    return Candidate(standardise, kernel, PENALTIES[best], errors[best])


def compared(features: Iterable[Standardised], c_NK: Tensor, parts: Residuals) -> list[Candidate]:
    """Regressions with the kernel FIRST on each of these features, the best first."""
    return sorted((candidate(f, FIRST, c_NK, parts) for f in features), key=lambda found: found.loss)


def best_together(sets: Iterable[FeatureSet], c_NK: Tensor, x_ND: Tensor, rng: torch.Generator) -> Together:
    """The feature sets that are best for a kernel regression, and the label: what a network is to read.

    Args:
        c_NK, x_ND: the attacker's answers, and its images in float64. rng: draws the images that judge.
    """
    some = torch.randperm(len(x_ND), generator=rng)[:EXACT]
    judged = Residuals(label_of(c_NK[some]), x_ND[some], c_NK.shape[1], COMPONENTS, rng)
    found = compared((Standardised(c_NK, s) for s in sets), c_NK[some], judged)
    return Together([best.standardise for best in found[:TOGETHER]])
