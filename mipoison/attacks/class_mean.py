"""Class-mean attacker: answers every vector with the mean image of its label. The floor of every suite.

It uses nothing but the label, so a defense that keeps labels cannot make it worse, and no suite that has it
does worse than the label alone. Shape suffixes: N samples, K classes, D pixels, CHW image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from mipoison.config import Config
from mipoison.models.label_means import label_means
from mipoison.protocols import Oracle, ThreatModel
from mipoison.simplex import label_of


@dataclass(frozen=True, kw_only=True)
class ClassMeanConfig(Config):
    """Answers with the mean of its own images of the same label: what the label alone is worth.

    Attributes:
        data: the images handed over: ``all`` of D_inv train, or a stratified half ``D1`` or ``D2``.
    """

    COST: ClassVar[int] = 0
    SCREENS: ClassVar[bool] = True

    data: Literal["all", "D1", "D2"] = "all"

    def make(self) -> ClassMean:
        return ClassMean()


class ClassMean:
    """Queries its images once; labels that it never saw get the mean of all its images."""

    def fit(self, oracle: Oracle, x_NCHW: Tensor, *, known: ThreatModel, rng: torch.Generator) -> None:
        """Query, and average the images by label. Draws nothing from ``rng``.

        Raises:
            ValueError: no images.
        """
        if len(x_NCHW) == 0:
            raise ValueError("the class-mean attacker needs at least 1 image of its own, got 0")
        self.shape = known.image_shape
        label_N, x_ND = label_of(oracle.query(x_NCHW)), x_NCHW.cpu().double().flatten(1)
        self.mean_KD = label_means(label_N, x_ND, oracle.n_classes)

    def reconstruct(self, c_NK: Tensor) -> Tensor:
        """Images (N, C, H, W) of released vectors."""
        return self.mean_KD[label_of(c_NK.cpu())].float().reshape(-1, *self.shape)
