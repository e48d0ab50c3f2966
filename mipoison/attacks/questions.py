"""Images that an attacker makes of its own to ask about: mixtures of two, and small affine warps of one.

Both are more images of the same kind, so that whoever asks about them has more pairs of vector and image
(Simard, Steinkraus and Platt, "Best practices for convolutional neural networks applied to visual document
analysis", 2003, train classifiers on warps; Zhang et al., "mixup", 2018, on mixtures, of any two labels).

Shape suffixes: N images, M mixtures, E mixtures of one image, D pixels, CHW image.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

TURN = 0.15
"""Largest rotation of a warp, in radians."""
SIZE = 0.08
"""Largest relative change of the size."""
SHIFT = 0.06
"""Largest shift in each direction, as a share of the image's side."""


def pairs(label_N: Tensor, each: int, rng: torch.Generator) -> Tensor:
    """Parents (M, 2) of mixtures: each image ``each`` times, with another of the same label, drawn evenly.

    An image that is alone with its label has none.
    """
    found = []
    for label in label_N.unique():
        member_n = (label_N == label).nonzero()[:, 0]
        n = len(member_n)
        if n > 1:
            other_nE = torch.randint(n - 1, (n, each), generator=rng)
            other_nE += other_nE >= torch.arange(n)[:, None]  # anyone but itself
            found.append(
                torch.stack([member_n[:, None].expand(n, each), member_n[other_nE]], 2).flatten(0, 1)
            )
    return torch.cat(found) if found else torch.zeros(0, 2, dtype=torch.int64)


def mixture(x_ND: Tensor, mean_ND: Tensor, parent_M2: Tensor, angle: float) -> Tensor:
    """Mixtures (M, D) in [0, 1], of images around the mean images of their labels (N, D)."""
    mean_MD = mean_ND[parent_M2[:, 0]]
    first_MD, second_MD = (x_ND[parent_M2[:, side]] - mean_MD for side in (0, 1))
    return (mean_MD + math.cos(angle) * first_MD + math.sin(angle) * second_MD).clamp(0, 1)


def warped(x_NCHW: Tensor, rng: torch.Generator) -> Tensor:
    """Each image rotated, enlarged or made smaller about its centre, and shifted, by amounts drawn evenly.

    Rotating an image that is not square shears it a little.

    Args:
        x_NCHW: images in [0, 1], float32. rng: draws the amounts of each image.
    """
    amount_4N = 2 * torch.rand(4, len(x_NCHW), generator=rng) - 1
    turn_N, size_N = TURN * amount_4N[0], 1 + SIZE * amount_4N[1]
    across_N, down_N = 2 * SHIFT * amount_4N[2:]  # a side is 2 long in the coordinates of a map
    cos_N, sin_N = size_N * turn_N.cos(), size_N * turn_N.sin()
    rows = [torch.stack([cos_N, -sin_N, across_N], 1), torch.stack([sin_N, cos_N, down_N], 1)]
    return transformed(x_NCHW, torch.stack(rows, 1))


def transformed(x_NCHW: Tensor, map_N23: Tensor) -> Tensor:
    """Images whose pixel at a place p is the old image's at ``A p + b``, interpolated bilinearly.

    Places outside have the value of the border's nearest pixel.

    Args:
        map_N23: A and b of each image. Places are (x, y): the image's centre is 0, its borders are -1 and 1.
    """
    grid_NHW2 = F.affine_grid(map_N23, list(x_NCHW.shape), align_corners=False)
    return F.grid_sample(x_NCHW, grid_NHW2, padding_mode="border", align_corners=False).clamp(0, 1)
