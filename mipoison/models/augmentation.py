"""Random changes of training images that keep their label: the entries of ``AUGMENTATIONS``.

Shape suffixes: N samples, C channels, H height, W width.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from mipoison.training import Augment

TURN = math.radians(10)
"""Largest rotation, in radians, either way."""
ZOOM = 0.1
"""Largest absolute value of the natural logarithm of the magnification."""
SHIFT = 0.06
"""Largest displacement along each axis, as a share of the side."""
CONTRAST = 0.3
"""Largest absolute value of the natural logarithm of the factor of the distances from the mean pixel."""
BRIGHTNESS = 0.2
"""Largest amount that is added to all pixels, in units of the range [0, 1], either way."""


def faces(x_NCHW: Tensor, rng: torch.Generator) -> Tensor:
    """Each image mirrored or not, turned, magnified, moved, and changed in contrast and brightness.

    All amounts are uniform within the bounds of this module, and independent from image to image. Pixels from
    outside an image repeat its border; those between pixels are interpolated bilinearly. Colours of one image
    are changed alike.

    Args:
        x_NCHW: images in [0, 1]. rng: CPU generator, the only source of randomness.

    Returns:
        Images of the same shape in [0, 1], on the same device.
    """
    n = len(x_NCHW)
    turn, zoom, right, down, contrast, brightness = 2 * torch.rand(6, n, generator=rng) - 1
    mirror = 1 - 2 * (torch.rand(n, generator=rng) < 0.5).float()
    cosine, sine = (f(TURN * turn) / torch.exp(ZOOM * zoom) for f in (torch.cos, torch.sin))
    move = 2 * SHIFT  # coordinates of grid_sample go from -1 to 1
    rows = [cosine * mirror, -sine, move * right, sine * mirror, cosine, move * down]
    grid = F.affine_grid(torch.stack(rows, 1).view(n, 2, 3), list(x_NCHW.shape), align_corners=False)
    moved = F.grid_sample(x_NCHW, grid.to(x_NCHW), padding_mode="border", align_corners=False)
    mean = moved.mean((1, 2, 3), keepdim=True)
    factor, shift = ((CONTRAST * contrast).exp(), BRIGHTNESS * brightness)
    return (mean + (moved - mean) * _each(factor, moved) + _each(shift, moved)).clamp(0, 1)


def _each(value_N: Tensor, like_NCHW: Tensor) -> Tensor:
    return value_N.to(like_NCHW)[:, None, None, None]


AUGMENTATIONS: dict[str, Augment | None] = {"none": None, "faces": faces}
"""Name -> what is done to each batch of a classifier's training images. ``faces`` mirrors them: not for
digits."""
