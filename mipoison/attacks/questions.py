"""Images that an attacker makes of its own to ask about: warps of one, patches, mixtures or rotations of two.

All are more images of the same kind, so that whoever asks about them has more pairs of vector and image
(Simard, Steinkraus and Platt, "Best practices for convolutional neural networks applied to visual document
analysis", 2003, train classifiers on warps; Zhang et al., "mixup", 2018, on mixtures, and Yun et al.,
"CutMix", 2019, on patches, of any two labels).

Shape suffixes: N images, M mixtures, E mixtures of one image, D pixels, CHW image, G grid points a side.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from mipoison.models.augmentation import smooth_field, transformed

TURN = 0.2
"""Largest rotation of a warp, in radians."""
SIZE = 0.12
"""Largest relative change of the width, and of the height."""
SHEAR = 0.15
"""Largest shift of a warp's rows against each other, as a share of their distance."""
SHIFT = 0.05
"""Largest shift in each direction, as a share of the image's side."""
BEND = 0.025
"""Standard deviation of the shifts, as shares of the side, that bend a warp: on a grid of BENDS by BENDS."""
BENDS = 4
LEAST = 0.3
"""Each warp has a strength drawn evenly between this and 1, by which all its amounts are multiplied."""
PATCHES = 3
"""The border between two images' parts is a smooth field through so many by so many random values."""

LEAST_ANGLE = 0.1
"""Least angle between a rotation of two images and either of them, in radians."""
WARPS, PATCHES_OF_TWO, OF = 4, 2, 14
"""Of so many questions about an image so many are warps and patches; the others are rotations."""


@dataclass
class Questions:
    """Images to ask about.

    Attributes:
        parent_M2: of which images they are made; a warp has its image twice.
        x_MD: they themselves, in [0, 1].
        share_M: how often the mean image of the first parent's label is in them, float64; 0 in most kinds.
    """

    parent_M2: Tensor
    x_MD: Tensor
    share_M: Tensor


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


def mixture(x_ND: Tensor, mean_ND: Tensor, parent_M2: Tensor, angle: float | Tensor) -> Tensor:
    """Mixtures (M, D) in [0, 1], of images around the mean images of their labels (N, D).

    Args:
        angle: the second image's weight is its sine, the first one's its cosine; one for all, or (M, 1).
    """
    angle = torch.as_tensor(angle, dtype=torch.float64)
    mean_MD = mean_ND[parent_M2[:, 0]]
    first_MD, second_MD = (x_ND[parent_M2[:, side]] - mean_MD for side in (0, 1))
    return (mean_MD + angle.cos() * first_MD + angle.sin() * second_MD).clamp(0, 1)


def warped(x_NCHW: Tensor, rng: torch.Generator) -> Tensor:
    """Each image rotated, sheared, scaled in each direction, shifted and bent, by amounts drawn evenly.

    Args:
        x_NCHW: images in [0, 1], float32. rng: draws the amounts of each image.
    """
    n = len(x_NCHW)
    strength_N = LEAST + (1 - LEAST) * torch.rand(n, generator=rng)
    most_61 = torch.tensor([TURN, SIZE, SIZE, SHEAR, 2 * SHIFT, 2 * SHIFT])[:, None]
    amount_6N = most_61 * strength_N * (2 * torch.rand(6, n, generator=rng) - 1)
    turn_N, wide_N, high_N, shear_N, across_N, down_N = amount_6N
    cos_N, sin_N = turn_N.cos(), turn_N.sin()
    map_N23 = torch.stack(
        [
            torch.stack([cos_N * (1 + wide_N), shear_N - sin_N * (1 + high_N), across_N], 1),
            torch.stack([sin_N * (1 + wide_N), cos_N * (1 + high_N), down_N], 1),
        ],
        1,
    )
    drawn_N2GG = torch.randn(n, 2, BENDS, BENDS, generator=rng)
    bend_N2GG = 2 * BEND * strength_N[:, None, None, None] * drawn_N2GG  # a side is 2 long in a map
    return transformed(x_NCHW, map_N23, bend_N2GG).clamp(0, 1)


def patched(x_NCHW: Tensor, other_NCHW: Tensor, rng: torch.Generator) -> Tensor:
    """Parts of each image in the other one, with smooth borders that are drawn for each pair.

    Args:
        x_NCHW, other_NCHW: images in [0, 1]. rng: draws the borders.
    """
    field_N1GG = torch.randn(len(x_NCHW), 1, PATCHES, PATCHES, generator=rng)
    part_N1HW = torch.sigmoid(3 * smooth_field(field_N1GG, x_NCHW))
    return part_N1HW * x_NCHW + (1 - part_N1HW) * other_NCHW


def _warps(count: int, x_NCHW: Tensor, each: int, rng: torch.Generator) -> Questions:
    """``each`` warps of each of the first ``count`` images."""
    own_M = torch.arange(count).repeat(each)
    x_MD = warped(x_NCHW[own_M], rng).flatten(1)
    return Questions(own_M[:, None].expand(-1, 2), x_MD, torch.zeros(len(own_M)).double())


def _patches(parent_M2: Tensor, x_NCHW: Tensor, rng: torch.Generator) -> Questions:
    """Patches of these pairs of images."""
    x_MD = patched(x_NCHW[parent_M2[:, 0]], x_NCHW[parent_M2[:, 1]], rng).flatten(1)
    return Questions(parent_M2, x_MD, torch.zeros(len(parent_M2)).double())


def _mixtures(parent_M2: Tensor, x_ND: Tensor, mean_ND: Tensor, angle_M: Tensor) -> Questions:
    """Mixtures of these pairs of images, each by its angle."""
    x_MD = mixture(x_ND, mean_ND, parent_M2, angle_M[:, None]).float()
    return Questions(parent_M2, x_MD, 1 - angle_M.cos() - angle_M.sin())


def only_mixtures(
    label_n: Tensor, x_NCHW: Tensor, mean_ND: Tensor, each: int, angle: float, rng: torch.Generator
) -> Questions:
    """``each`` mixtures of each of the first n images, by one angle, as in the oldest records."""
    parent_M2 = pairs(label_n, each, rng)
    angle_M = torch.full((len(parent_M2),), angle, dtype=torch.float64)
    return _mixtures(parent_M2, x_NCHW.double().flatten(1), mean_ND, angle_M)


def warps_and_patches(
    label_n: Tensor, x_NCHW: Tensor, mean_ND: Tensor, each: int, angle: float, rng: torch.Generator
) -> Questions:
    """Half of the questions (rounded down) are warps, the others patches."""
    parent_M2, pixels_NCHW = pairs(label_n, each - each // 2, rng), x_NCHW.float()
    warps = _warps(len(label_n), pixels_NCHW, each // 2, rng)
    return _together([warps, _patches(parent_M2, pixels_NCHW, rng)])


def rotations_too(
    label_n: Tensor, x_NCHW: Tensor, mean_ND: Tensor, each: int, angle: float, rng: torch.Generator
) -> Questions:
    """Of 14 questions four are warps, two patches, and eight rotations of two images into each other.

    A rotation is a mixture by an angle that is drawn evenly between LEAST_ANGLE and a right angle less
    that: about as far from both images as they are from each other, and with the covariance of the images.
    """
    warps, patches, pixels_NCHW = WARPS * each // OF, PATCHES_OF_TWO * each // OF, x_NCHW.float()
    made = [
        _warps(len(label_n), pixels_NCHW, warps, rng),
        _patches(pairs(label_n, patches, rng), pixels_NCHW, rng),
    ]
    parent_M2 = pairs(label_n, each - warps - patches, rng)
    drawn_M = torch.rand(len(parent_M2), generator=rng, dtype=torch.float64)
    angle_M = LEAST_ANGLE + (math.pi / 2 - 2 * LEAST_ANGLE) * drawn_M
    return _together([*made, _mixtures(parent_M2, x_NCHW.double().flatten(1), mean_ND, angle_M)])


def _together(parts: list[Questions]) -> Questions:
    return Questions(
        torch.cat([p.parent_M2 for p in parts]),
        torch.cat([p.x_MD for p in parts]),
        torch.cat([p.share_M for p in parts]),
    )


Make = Callable[[Tensor, Tensor, Tensor, int, float, torch.Generator], Questions]
KINDS: Mapping[str, Make] = {
    "rotations": rotations_too,
    "warps": warps_and_patches,
    "mixtures": only_mixtures,
}
"""How questions are made. Each takes the labels (n,) of the first n images, images (N, C, H, W) in float64,
the mean images (N, D) of their labels, how many an image, the angle of those that have one for all, and a
generator."""
