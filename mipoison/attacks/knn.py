"""Nearest-neighbour attacker: reconstructs the mean image of the k nearest of its own released vectors.

It trains nothing by gradients, so a defense can only affect it through the distances between vectors.

Shape suffixes: N vectors to invert, M own answers, K classes, F features, D pixels, CHW image.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from mipoison.attacks.feature_sets import FeatureSet
from mipoison.attacks.selection import KINDS, Inputs, Standardised, feature_choices, folds
from mipoison.config import Config, Plain
from mipoison.protocols import Oracle, ThreatModel
from mipoison.simplex import label_of

NEIGHBOURS = (1, 3, 5, 10, 20, 40)
"""Values of k that are tried."""
CHUNK = 512
"""Number of vectors inverted at once, which bounds the memory for their distances to all own answers."""
JUDGED = 256
"""Largest number of held-out images in a fold on which the settings are compared."""

SHORTLIST = 3
"""Number of feature sets that are compared on all folds."""
LABEL_WEIGHT = 0.7
"""Weight of the label's one-hot per feature: two labels are as far apart as two typical vectors."""


@dataclass(frozen=True, kw_only=True)
class KNNConfig(Config):
    """Answers with the mean image of the nearest released vectors: trains nothing.

    Attributes:
        inputs: features, standardised: ``chosen``, the best of FEATURE_SETS (with the label's one-hot) on the
            attacker's own held-out images; or those of earlier records, ``log`` or ``raw`` scores, ``all``
            (both and the one-hot), or ``tuned`` for the best of the three.
        folds: number of cross-validation folds, 2 to 20. The features and k with the least held-out error
            are used. A reconstruction is the mean over the folds, each of which searches its training part.
        data: the attacker's own images: ``all`` of D_inv train, or a stratified half ``D1`` or ``D2``.
    """

    COST: ClassVar[int] = 0
    SCREENS: ClassVar[bool] = True
    BEFORE: ClassVar[Mapping[str, Plain | None]] = {"inputs": "tuned"}

    inputs: Inputs = "chosen"
    folds: int = 5
    data: Literal["all", "D1", "D2"] = "all"

    def validate(self) -> None:
        self.require("folds", 2 <= self.folds <= 20, "between 2 and 20")

    def make(self) -> KNN:
        return KNN(self)


def distances(z_NF: Tensor, own_MF: Tensor) -> Tensor:
    """Euclidean distances (N, M), computed so that equal vectors have equal distances.

    Computing them by a matrix product is faster, but rounds equal distances differently.
    """
    return torch.cdist(z_NF, own_MF, compute_mode="donot_use_mm_for_euclid_dist")


def position(standardise: Standardised, c_NK: Tensor) -> Tensor:
    """Where distances are measured: standardised features, and for a feature set the label's one-hot."""
    z_NF = standardise(c_NK)
    if not isinstance(standardise.kind, FeatureSet):
        return z_NF
    apart = LABEL_WEIGHT * math.sqrt(z_NF.shape[1])
    return torch.cat([z_NF, apart * F.one_hot(label_of(c_NK), c_NK.shape[1])], 1)


def neighbour_weights(d_NM: Tensor, k: int) -> Tensor:
    """Weights of the neighbours: rows (N, M) that sum to 1, equal for the k nearest and 0 for the others.

    All neighbours at the distance of the k-th are included, so that the result does not depend on their
    order. Such ties are common: if vectors are rounded or one-hot, whole classes are at the same distance.
    """
    kth_N1 = d_NM.kthvalue(min(k, d_NM.shape[1]), dim=1, keepdim=True).values
    near_NM = (d_NM <= kth_N1).to(d_NM)
    return near_NM / near_NM.sum(1, keepdim=True)


class KNN:
    """Queries its images once and stores answers and images."""

    def __init__(self, config: KNNConfig) -> None:
        self.config = config

    def fit(self, oracle: Oracle, x_NCHW: Tensor, *, known: ThreatModel, rng: torch.Generator) -> None:
        """Query the API, and choose features and k; ``rng`` draws the folds.

        Raises:
            ValueError: fewer than four images.
        """
        if len(x_NCHW) < 4:
            raise ValueError(
                f"the nearest-neighbour attacker needs at least 4 images of its own, got {len(x_NCHW)}"
            )
        self.shape = known.image_shape
        c_MK, self.x_MD = oracle.query(x_NCHW).cpu(), x_NCHW.cpu().float().flatten(1)
        self.fold_M = folds(len(self.x_MD), self.config.folds, rng)
        choices = feature_choices(self.config.inputs, known)
        if len(choices) > len(KINDS):  # the first fold sorts out most of them
            choices.sort(key=lambda kind: float(self._errors(Standardised(c_MK, kind), c_MK, 1).min()))
            choices = choices[:SHORTLIST]
        best = torch.inf
        for kind in choices:
            standardise = Standardised(c_MK, kind)
            error_k = self._errors(standardise, c_MK, int(self.fold_M.max()) + 1)
            i = int(error_k.argmin())
            if float(error_k[i]) < best:
                best, self.k, self.standardise = float(error_k[i]), NEIGHBOURS[i], standardise
        self.z_MF = position(self.standardise, c_MK)

    def _errors(self, standardise: Standardised, c_MK: Tensor, count: int) -> Tensor:
        """Squared error of each k in NEIGHBOURS on the first ``count`` folds, summed."""
        z_MF = position(standardise, c_MK)
        error_k = torch.zeros(len(NEIGHBOURS), dtype=torch.float64)
        for fold in range(count):
            held = (self.fold_M == fold).nonzero()[:JUDGED, 0]
            rest = self.fold_M != fold
            d_NM = distances(z_MF[held], z_MF[rest])
            for i, k in enumerate(NEIGHBOURS):
                x_ND = neighbour_weights(d_NM, k).float() @ self.x_MD[rest]
                error_k[i] += (x_ND - self.x_MD[held]).double().square().sum()
        return error_k

    def reconstruct(self, c_NK: Tensor) -> Tensor:
        """Reconstruct images (N, C, H, W) from released vectors."""
        z_NF = position(self.standardise, c_NK.cpu())
        parts = [self._mean_images(z_NF[i : i + CHUNK]) for i in range(0, len(z_NF), CHUNK)]
        x_ND = torch.cat(parts) if parts else self.x_MD[:0]
        return x_ND.clamp(0, 1).reshape(-1, *self.shape)

    def _mean_images(self, z_NF: Tensor) -> Tensor:
        d_NM, count = distances(z_NF, self.z_MF), int(self.fold_M.max()) + 1
        weight_NM = torch.zeros_like(d_NM)
        for fold in range(count):
            rest = self.fold_M != fold
            weight_NM[:, rest] += neighbour_weights(d_NM[:, rest], self.k) / count
        return weight_NM.float() @ self.x_MD
