"""Random changes of training images that keep their label: the entries of ``AUGMENTATIONS``.

Shape suffixes: N samples, C channels, H height, W width, G grid points a side.
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
    moved = transformed(x_NCHW, torch.stack(rows, 1).view(n, 2, 3))
    mean = moved.mean((1, 2, 3), keepdim=True)
    factor, shift = ((CONTRAST * contrast).exp(), BRIGHTNESS * brightness)
    return (mean + (moved - mean) * _each(factor, moved) + _each(shift, moved)).clamp(0, 1)


def transformed(x_NCHW: Tensor, map_N23: Tensor, bend_N2GG: Tensor | None = None) -> Tensor:
    """Images whose pixel at a place p is the old image's at ``A p + b`` and the bend at p, interpolated
    bilinearly.

    Places outside have the value of the border's nearest pixel.

    Args:
        map_N23: A and b of each image. Places are (x, y): the image's centre is 0, its borders are -1 and 1.
        bend_N2GG: further shifts (x, y) in the corners and evenly between them, interpolated smoothly.
    """
    if not len(x_NCHW):  # affine_grid takes no empty batch
        return x_NCHW
    grid_NHW2 = F.affine_grid(map_N23, list(x_NCHW.shape), align_corners=False)
    if bend_N2GG is not None:
        grid_NHW2 = grid_NHW2 + smooth_field(bend_N2GG, x_NCHW).permute(0, 2, 3, 1)
    return F.grid_sample(x_NCHW, grid_NHW2.to(x_NCHW), padding_mode="border", align_corners=False)


def smooth_field(field_NCGG: Tensor, x_NCHW: Tensor) -> Tensor:
    """A smooth field through these values in an image's corners and between them, for each of its pixels."""
    return F.interpolate(field_NCGG, size=x_NCHW.shape[-2:], mode="bicubic", align_corners=True)


def _each(value_N: Tensor, like_NCHW: Tensor) -> Tensor:
    return value_N.to(like_NCHW)[:, None, None, None]


AUGMENTATIONS: dict[str, Augment | None] = {"none": None, "faces": faces}
"""Name -> what is done to each batch of a classifier's training images. ``faces`` mirrors them: not for
digits."""
