"""Nearest neighbours: the mean image of the k released vectors nearest to the one to be inverted.

No training at all, so nothing to poison but the distances themselves. Shape suffixes: N vectors to invert,
M own answers, K classes, F features, D pixels, CHW image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from mipoison.attacks.selection import KINDS, Kind, Standardised, folds
from mipoison.config import Config
from mipoison.protocols import Oracle, ThreatModel

NEIGHBOURS = (1, 3, 5, 10, 20, 40)
"""Values of k tried."""
CHUNK = 512
"""Vectors inverted at once: distances to all own answers are held for so many."""
JUDGED = 256
"""At most so many held-out images a fold judge the settings."""


@dataclass(frozen=True, kw_only=True)
class KNNConfig(Config):
    """Answers with the mean image of the nearest released vectors: trains nothing.

    Attributes:
        inputs: ``log`` or ``raw`` scores, ``all`` (both and the label's one-hot), standardised; or ``tuned``:
            the best of the three on its own validation data.
        folds: cross-validation folds, 2 to 20. Kind of features and k are those of the least held-out error;
            the neighbours are searched in each fold's training part, and the means averaged.
        data: the images handed over: ``all`` of D_inv train, or a stratified half ``D1`` or ``D2``.
    """

    COST: ClassVar[int] = 0

    inputs: Literal["log", "raw", "all", "tuned"] = "tuned"
    folds: int = 5
    data: Literal["all", "D1", "D2"] = "all"

    def validate(self) -> None:
        self.require("folds", 2 <= self.folds <= 20, "between 2 and 20")

    def make(self) -> KNN:
        return KNN(self)


def distances(z_NF: Tensor, own_MF: Tensor) -> Tensor:
    """Euclidean distances (N, M), exact: equal vectors have equal distances (matrix products would not)."""
    return torch.cdist(z_NF, own_MF, compute_mode="donot_use_mm_for_euclid_dist")


def neighbour_weights(d_NM: Tensor, k: int) -> Tensor:
    """Rows (N, M) that sum to 1: equal shares for the k nearest, and for all as near as the k-th.

    Counting ties in full keeps the answer from depending on an order: under rounding or label-only whole
    classes are equally near.
    """
    kth_N1 = d_NM.kthvalue(min(k, d_NM.shape[1]), dim=1, keepdim=True).values
    near_NM = (d_NM <= kth_N1).to(d_NM)
    return near_NM / near_NM.sum(1, keepdim=True)


class KNN:
    """Queries its images once and remembers answers and images."""

    def __init__(self, config: KNNConfig) -> None:
        self.config = config

    def fit(self, oracle: Oracle, x_NCHW: Tensor, *, known: ThreatModel, rng: torch.Generator) -> None:
        """Query, and choose features and k; ``rng`` draws the folds.

        Raises:
            ValueError: for fewer than four images.
        """
        if len(x_NCHW) < 4:
            raise ValueError(
                f"the nearest-neighbour attacker needs at least 4 images of its own, got {len(x_NCHW)}"
            )
        self.shape = known.image_shape
        c_MK, self.x_MD = oracle.query(x_NCHW), x_NCHW.cpu().float().flatten(1)
        self.fold_M = folds(len(self.x_MD), self.config.folds, rng)
        kinds: tuple[Kind, ...] = KINDS if self.config.inputs == "tuned" else (self.config.inputs,)
        best = torch.inf
        for kind in kinds:
            standardise = Standardised(c_MK, kind)
            z_MF = standardise(c_MK)
            error_k = torch.zeros(len(NEIGHBOURS), dtype=torch.float64)
            for fold in range(int(self.fold_M.max()) + 1):
                held = (self.fold_M == fold).nonzero()[:JUDGED, 0]
                rest = self.fold_M != fold
                d_NM = distances(z_MF[held], z_MF[rest])
                for i, k in enumerate(NEIGHBOURS):
                    x_ND = neighbour_weights(d_NM, k).float() @ self.x_MD[rest]
                    error_k[i] += (x_ND - self.x_MD[held]).double().square().sum()
            i = int(error_k.argmin())
            if float(error_k[i]) < best:
                best, self.k = float(error_k[i]), NEIGHBOURS[i]
                self.standardise, self.z_MF = standardise, z_MF

    def reconstruct(self, c_NK: Tensor) -> Tensor:
        """Images (N, C, H, W) of released vectors."""
        z_NF = self.standardise(c_NK)
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
