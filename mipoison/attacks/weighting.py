"""Weights of several attackers' reconstructions, by non-negative least squares on images of one's own.

What is weighted is each attacker's deviation from the mean image of the label, so that weights of zero are
the class-mean attacker, whose own weight is one minus the sum of the others (Breiman, "Stacked regressions",
1996). All that is needed are inner products, summed over the images of each fold and label: weights without
a fold come from the sums of the other folds, and no scheme has to look at an image twice.

Shape suffixes: J attackers, N images, D pixels, R components, B blocks of components, G labels, F folds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mipoison.linalg.non_negative import non_negative_least_squares
from mipoison.linalg.principal import PrincipalComponents

BLOCKS = (4, 16)
"""Ends of the blocks of leading components; the last block is all that remains of the image."""
POOLED = 64.0
"""Images that the common weights count for when each label has weights of its own."""
CHUNK = 256
"""Images in double precision at once."""


@dataclass(frozen=True)
class Scheme:
    """What the weights may depend on.

    Attributes:
        blocks: on the block of principal components. labels: on the label, shrunk to the common weights.
    """

    blocks: bool
    labels: bool


SCHEMES = tuple(Scheme(blocks, labels) for labels in (False, True) for blocks in (False, True))


def leading_components(x_ND: Tensor, count: int) -> Tensor:
    """Orthonormal directions (D, R) of largest sum of squares, R at most ``count``, the images and the
    pixels."""
    parts = PrincipalComponents(x_ND)
    last = slice(-min(count, len(parts.square_R)), None)
    return parts.directions(last, largest_first=True, divisor="length")


def non_negative(gram_JJ: Tensor, target_J: Tensor) -> Tensor:
    """The weights ``w >= 0`` of least ``w G w - 2 b w``; zeros where G is zero."""
    size = float(gram_JJ.diagonal().amax()) if len(gram_JJ) else 0.0
    if not size > 0:
        return torch.zeros_like(target_J)
    return torch.from_numpy(non_negative_least_squares(gram_JJ / size, target_J / size))


@dataclass(frozen=True)
class Products:
    """Sums of inner products over the images of each fold and label.

    Attributes:
        gram: of deviations (F, G, B, J, J). target: of deviations and residuals (F, G, B, J).
        images: number of images (F, G). total: sum of squared residuals.
    """

    gram: Tensor
    target: Tensor
    images: Tensor
    total: float

    @classmethod
    def of(
        cls, d_JND: Tensor, r_ND: Tensor, label_N: Tensor, fold_N: Tensor, basis_DR: Tensor, labels: int
    ) -> Products:
        """Sum over images.

        Args:
            d_JND: each attacker's deviation from the label's mean image, on images it did not learn from.
            r_ND: the true deviation. label_N, fold_N: of each image. basis_DR: leading components.
            labels: number of labels.
        """
        count, n_folds = len(d_JND), int(fold_N.max()) + 1
        ends = [*(end for end in BLOCKS if end < basis_DR.shape[1]), basis_DR.shape[1]]
        gram = torch.zeros(n_folds, labels, len(ends) + 1, count + 1, count + 1, dtype=torch.float64)
        images = torch.zeros(n_folds, labels)
        for fold in range(n_folds):
            for label in range(labels):
                row_n = ((fold_N == fold) & (label_N == label)).nonzero()[:, 0]
                images[fold, label] = len(row_n)
                for part in row_n.split(CHUNK):
                    gram[fold, label] += _block_products(d_JND[:, part], r_ND[part], basis_DR, ends)
        total = float(gram[..., -1, -1].sum())
        return cls(gram[..., :-1, :-1], gram[..., :-1, -1], images, total)

    def weights(self, scheme: Scheme, without: int | None = None) -> Tensor:
        """Weights (G, B, J) from all folds, or from all but one."""
        keep = [f for f in range(len(self.images)) if f != without]
        gram, target, images = (t[keep].sum(0) for t in (self.gram, self.target, self.images))
        if not scheme.blocks:
            shape = gram.shape[1]
            gram, target = (t.sum(1, keepdim=True) for t in (gram, target))
            gram, target = gram.expand(-1, shape, -1, -1), target.expand(-1, shape, -1)
        pool_gram, pool_target = gram.sum(0, keepdim=True), target.sum(0, keepdim=True)
        if not scheme.labels:
            w_BJ = _solve(pool_gram[0], pool_target[0], scheme.blocks)
            return w_BJ.expand(len(gram), -1, -1)
        share = POOLED / float(images.sum().clamp_min(1))
        pairs = zip(gram + share * pool_gram, target + share * pool_target, strict=True)
        return torch.stack([_solve(g, b, scheme.blocks) for g, b in pairs])

    def error(self, w_GBJ: Tensor, fold: int) -> float:
        """Squared error of a fold's images under these weights, less that of the mean images."""
        quadratic = torch.einsum("gbj,gbjk,gbk->", w_GBJ, self.gram[fold], w_GBJ)
        return float(quadratic - 2 * (w_GBJ * self.target[fold]).sum())

    def best(self, schemes: Sequence[Scheme] = SCHEMES) -> tuple[Tensor, Scheme | None, dict[Scheme, float]]:
        """Weights of the scheme with the least cross-validated error; zeros if none beats the mean images.

        Returns:
            Weights (G, B, J), the scheme (None: zeros), and each scheme's error less that of the mean images,
            as a share of it.
        """
        found = {
            scheme: sum(self.error(self.weights(scheme, f), f) for f in range(len(self.images)))
            / max(self.total, 1e-300)
            for scheme in schemes
        }
        least = min(found, key=lambda scheme: found[scheme])
        w_GBJ = self.weights(least)
        return (w_GBJ, least, found) if found[least] < 0 else (torch.zeros_like(w_GBJ), None, found)


def _solve(gram_BJJ: Tensor, target_BJ: Tensor, blocks: bool) -> Tensor:
    """Weights (B, J); one solution for all blocks if these are copies of one another."""
    if not blocks:
        return non_negative(gram_BJJ[0], target_BJ[0]).expand(len(gram_BJJ), -1)
    return torch.stack([non_negative(g, b) for g, b in zip(gram_BJJ, target_BJ, strict=True)])


def _block_products(d_JnD: Tensor, r_nD: Tensor, basis_DR: Tensor, ends: Sequence[int]) -> Tensor:
    """Inner products (B, J + 1, J + 1) of deviations and, last, residuals, in each block of components."""
    v_JnD = torch.cat([d_JnD.double(), r_nD[None].double()])
    z_JnR = v_JnD @ basis_DR
    starts = [0, *ends[:-1]]
    parts = [z_JnR[..., a:b].flatten(1) for a, b in zip(starts, ends, strict=True)]
    flat, lead = v_JnD.flatten(1), z_JnR.flatten(1)
    return torch.stack([*(p @ p.mT for p in parts), flat @ flat.mT - lead @ lead.mT])


def combine(d_JND: Tensor, label_N: Tensor, w_GBJ: Tensor, basis_DR: Tensor) -> Tensor:
    """The weighted sum of deviations (N, D), float64.

    Args:
        d_JND: deviations of each attacker. label_N: labels. w_GBJ: weights. basis_DR: leading components.
    """
    ends = [*(end for end in BLOCKS if end < basis_DR.shape[1]), basis_DR.shape[1]]
    block_R = torch.from_numpy(np.searchsorted(ends, np.arange(basis_DR.shape[1]), side="right"))
    w_NBJ = w_GBJ[label_N]
    out_ND = torch.zeros(d_JND.shape[1:], dtype=torch.float64)
    lead_NR = torch.zeros(d_JND.shape[1], basis_DR.shape[1], dtype=torch.float64)
    for j, d_ND in enumerate(d_JND.double()):
        rest_N1 = w_NBJ[:, -1:, j]
        out_ND += rest_N1 * d_ND
        lead_NR += (w_NBJ[:, block_R, j] - rest_N1) * (d_ND @ basis_DR)
    return out_ND + lead_NR @ basis_DR.mT
