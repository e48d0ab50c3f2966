"""Kernel attacker: the mean image of the label plus kernel ridge regressions of the rest on the scores.

It is closed form throughout: nothing is trained by gradients. Feature sets, kernels and penalties compete by
their leave-one-out errors on the attacker's own images; the best of them vote.

Shape suffixes: N images, M landmarks, K classes, D pixels, P principal components, V voters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mipoison.attacks.feature_sets import FeatureSet, known_sets
from mipoison.attacks.kernel_choice import EXACT, candidate, compared, landmark_count
from mipoison.attacks.kernel_regression import Regression
from mipoison.attacks.kernel_ridge import Kernel
from mipoison.attacks.residuals import Residuals
from mipoison.attacks.selection import Standardised
from mipoison.config import Config
from mipoison.linalg.non_negative import non_negative_least_squares
from mipoison.protocols import Oracle, ThreatModel
from mipoison.simplex import label_of

OTHERS = (
    Kernel("gaussian", 1.0),
    Kernel("gaussian", 4.0),
    Kernel("laplacian", 2.0),
    Kernel("matern", 2.0, across=0.7),
)
"""Kernels that are tried on the best feature sets."""
FINALISTS = 3
"""Number of feature sets on which they are tried."""
COMPONENTS = 64
"""Principal components of the images' residuals that are predicted."""
LEAST_VOTE = 0.03
"""Voters of a smaller weight are dropped."""
CHUNK = 2048
"""Number of vectors inverted at once."""


@dataclass(frozen=True, kw_only=True)
class KernelConfig(Config):
    """The label's mean image plus kernel ridge regressions of the rest on the scores, in closed form; feature
    sets, kernels and penalties are chosen by exact leave-one-out errors.

    Attributes:
        judged: number of its images on which the settings are chosen, at least 20.
        landmarks: number of images whose kernels span the regression; with fewer images it is exact. At
            least 20.
        most: most of its images that are regressed, at least 20; bounds memory.
        data: the attacker's own images: ``all`` of D_inv train, or a stratified half ``D1`` or ``D2``.
    """

    COST: ClassVar[int] = 0
    SCREENS: ClassVar[bool] = True

    judged: int = 800
    landmarks: int = 600
    most: int = 10000
    data: Literal["all", "D1", "D2"] = "all"

    def validate(self) -> None:
        for name in ("judged", "landmarks", "most"):
            self.require(name, getattr(self, name) >= 20, "at least 20")

    def make(self) -> KernelAttack:
        return KernelAttack(self)


def votes(error_VNP: list[Tensor]) -> NDArray[np.float64]:
    """Weights (V,) at least 0 that sum to 1, of the mean with the least squared error."""
    flat_VE = torch.stack([error.flatten() for error in error_VNP])
    gram_VV = (flat_VE @ flat_VE.mT).numpy()
    scale = float(np.trace(gram_VV)) / len(gram_VV)
    if scale <= 0:
        return np.full(len(gram_VV), 1 / len(gram_VV))
    found_V = non_negative_least_squares(gram_VV / scale, total=1.0)
    found_V[found_V < LEAST_VOTE] = 0
    return found_V / found_V.sum()


@dataclass
class Chosen:
    """How the kernel attacker chose.

    Attributes:
        order: the images that it regresses; on the first of them, those of ``judged``, settings are chosen.
        sets: features, the best first.
        judged: the residuals of these images.
        error_NP: leave-one-out errors of the vote on them.
    """

    order: Tensor
    sets: list[Standardised]
    judged: Residuals
    error_NP: Tensor


class KernelAttack:
    """Queries its images once and solves linear systems."""

    def __init__(self, config: KernelConfig) -> None:
        self.config = config

    def fit(self, oracle: Oracle, x_NCHW: Tensor, *, known: ThreatModel, rng: torch.Generator) -> None:
        """Query, choose the voters and fit them, in float64.

        Args:
            rng: draws the images on which settings are chosen, and the landmarks, where there are many.

        Raises:
            ValueError: fewer than four images.
        """
        if len(x_NCHW) < 4:
            raise ValueError(f"the kernel attacker needs at least 4 images of its own, got {len(x_NCHW)}")
        self.learn(oracle.query(x_NCHW).cpu(), x_NCHW.cpu().double().flatten(1), known, rng)

    def learn(self, c_NK: Tensor, x_ND: Tensor, known: ThreatModel, rng: torch.Generator) -> Chosen:
        """Choose and fit the voters, given answers and images; returns what was chosen on which images."""
        self.shape = known.image_shape
        label_N, n_classes = label_of(c_NK), c_NK.shape[1]
        n = min(len(x_ND), self.config.most)
        order = torch.randperm(len(x_ND), generator=rng)[:n] if len(x_ND) > EXACT else torch.arange(n)
        some = order[: self.config.judged]
        judged = Residuals(label_N[some], x_ND[some], n_classes, COMPONENTS, rng)
        candidates = compared([Standardised(c_NK, s) for s in self.feature_sets(known)], c_NK[some], judged)
        sets = [c.standardise for c in candidates]
        candidates += [
            candidate(c.standardise, kernel, c_NK[some], judged)
            for c in candidates[:FINALISTS]
            for kernel in OTHERS
        ]
        # The mean image of the label is a voter, too: it is all that there is to say where scores are empty.
        vote_V = votes([judged.without_NP, *(c.error_NP for c in candidates)])
        chosen = [(v, c) for v, c in zip(vote_V[1:], candidates, strict=True) if v > 0]
        # All rows in the same order, since the first of them are the landmarks.
        everything = (label_N[order], x_ND[order], n_classes, COMPONENTS, rng)
        self.parts = judged if len(some) == n else Residuals(*everything)
        learned = (c_NK[order], self.parts.rest_NP, landmark_count(n, self.config.landmarks))
        self.voters = [
            Regression(c.standardise, c.kernel, *learned).voter(c.penalty, float(v)) for v, c in chosen
        ]
        error_NP = vote_V[0] * judged.without_NP
        for vote, c in chosen:
            error_NP = error_NP + vote * c.error_NP
        return Chosen(order, sets, judged, error_NP)

    def feature_sets(self, known: ThreatModel) -> list[FeatureSet]:
        """The feature sets that compete."""
        return list(known_sets(known).values())

    def reconstruct(self, c_NK: Tensor) -> Tensor:
        """Reconstruct images (N, C, H, W) from released vectors."""
        parts = [self._reconstruct(c_NK[i : i + CHUNK]) for i in range(0, max(1, len(c_NK)), CHUNK)]
        return torch.cat(parts).float().reshape(-1, *self.shape)

    def _reconstruct(self, c_NK: Tensor) -> Tensor:
        return self.parts.images(label_of(c_NK.cpu()), self.rest(c_NK))

    def rest(self, c_NK: Tensor) -> Tensor:
        """Predicted principal components (N, P) of what the images add to the means of their labels."""
        rest_NP = torch.zeros(len(c_NK), self.parts.rest_NP.shape[1], dtype=torch.float64)
        for voter in self.voters:
            rest_NP += voter(c_NK)
        return rest_NP
