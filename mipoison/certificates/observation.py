"""What a defense states of its releases: all that an attacker can learn of an image from one of them.

Shape suffixes: N images, D columns of a discrete part, M of a Gaussian one, K classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Gaussian:
    """``y = mean + sigma * n`` with n standard normal in M dimensions, drawn anew for every image.

    Attributes:
        means_NM: where each image's noise is centred.
        sigma: standard deviation of each of the M coordinates, above 0.
        release: (rows_ND, y_NM) -> released vectors (N, K). It is what makes the statement true: whoever saw
            the discrete part and y could compute the released vector, so an attacker who sees the release
            knows at most this. A pure function: of the image it sees these two arguments, nothing else (no
            projection into a ball around the clean vector). The contract tests hold the defense to it.
    """

    means_NM: Tensor
    sigma: float
    release: Callable[[Tensor, Tensor], Tensor]

    def __post_init__(self) -> None:
        if not 0 < self.sigma < float("inf"):
            raise ValueError(
                f"sigma = {self.sigma}: must be above 0 and finite; without noise there is no law"
            )
        if self.means_NM.ndim != 2 or not bool(torch.isfinite(self.means_NM).all()):
            raise ValueError(f"means must be finite, of shape (N, M), got {tuple(self.means_NM.shape)}")


@dataclass(frozen=True)
class Observation:
    """What dominates a release: the released vector is a function of it, and of nothing else of the image.

    Attributes:
        rows_ND: the discrete part, e.g. the released float32 rows or the labels as a column. Images with
            equal rows (to the bit) form a cell. It must be a function of the image that has no key, so that
            an attacker who knows everything but the image still cannot tell the images of a cell apart.
        gaussian: the noisy part, None where the discrete part is all.
    """

    rows_ND: Tensor
    gaussian: Gaussian | None = None

    def __post_init__(self) -> None:
        if self.rows_ND.ndim != 2:
            raise ValueError(f"the discrete part must have shape (N, D), got {tuple(self.rows_ND.shape)}")
        if self.gaussian is not None and len(self.gaussian.means_NM) != len(self.rows_ND):
            raise ValueError(
                f"{len(self.gaussian.means_NM)} means for {len(self.rows_ND)} discrete rows: one per image"
            )

    def __len__(self) -> int:
        return len(self.rows_ND)

    def part(self, index_S: Tensor) -> Observation:
        """What is observed of some of the images."""
        noisy = self.gaussian
        if noisy is not None:
            noisy = Gaussian(noisy.means_NM[index_S], noisy.sigma, noisy.release)
        return Observation(self.rows_ND[index_S], noisy)


@dataclass(frozen=True)
class Uncertifiable:
    """There is no certificate: nothing is claimed, not even that something leaks.

    Attributes:
        reason: why, in a sentence for tables.
    """

    reason: str


# Reasons that several defenses have in common.
UNSTATED = "the defense states no law of what it releases"
CONTINUUM = "a map without a key that keeps a continuum of values hides nothing from whoever knows the map"
BENT = "the law of its draws after a projection or a descent is not known, so that no bound can be computed"
COUPLED = "an answer depends on the other queries of its request: one image has no law of its own"
RETRAINED = "it answers with a retrained victim, which is no map of the clean vector with a known law"
