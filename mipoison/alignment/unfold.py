"""Unfolds an activation into patches and adds patches up again, so that convolutions are matrix products.

Shape suffixes: N samples, C channels, H height, W width; k is the kernel size.
"""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor


def channels_last(a: Tensor) -> Tensor:
    """An activation or weight with channels last in memory.

    With one channel both memory formats fit the data and torch does not say which one it has; convolutions on
    a CPU then take a path that is ten times slower. The strides set here prevent that.
    """
    if a.dim() != 4:
        return a
    if a.shape[1] > 1:
        return a.contiguous(memory_format=torch.channels_last)
    return a.contiguous().as_strided(a.shape, (a.shape[2] * a.shape[3], 1, a.shape[3], 1))


def unfold_map(b: Tensor, kernel: int, stride: int, padding: int) -> Tensor:
    """Patches (N, positions, k k C) of a transposed convolution's output (N, C, H, W).

    Each position of the convolution's input has one patch, the outputs that it contributes to.
    """
    padded = channels_last(F.pad(b, (padding, padding, padding, padding)))
    patches = padded.unfold(2, kernel, stride).unfold(3, kernel, stride)
    return patches.permute(0, 2, 3, 4, 5, 1).flatten(3).flatten(1, 2)


def fold_columns(columns: Tensor, places: tuple[int, int], kernel: int, stride: int, padding: int) -> Tensor:
    """The adjoint of :func:`unfold_map`: adds the patches up where they overlap.

    Args:
        columns: patches (N, positions, k k C). places: height and width of the convolution's input.

    Returns:
        An activation (N, C, H, W), channels-last.
    """
    n, channels = len(columns), columns.shape[2] // kernel**2
    rows, offsets = _bags(n, places, kernel=kernel, stride=stride, padding=padding, device=columns.device)
    # Each output position is a bag of rows of C numbers. This takes one pass; adding shifted views takes
    # four.
    total = F.embedding_bag(rows, columns.reshape(-1, channels), offsets, mode="sum")
    h, w = ((p - 1) * stride - 2 * padding + kernel for p in places)
    return total.view(n, h, w, channels).permute(0, 3, 1, 2)


@functools.lru_cache(maxsize=32)
def _bags(
    n: int, places: tuple[int, int], *, kernel: int, stride: int, padding: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """(rows, offsets) of an embedding bag: which patch entries add up to each position of the output."""
    height, width = places
    h, w = ((p - 1) * stride - 2 * padding + kernel for p in places)
    k = torch.arange(kernel) - padding
    y = (torch.arange(height)[:, None] * stride + k)[:, None, :, None]
    x = (torch.arange(width)[:, None] * stride + k)[None, :, None, :]
    inside = ((y >= 0) & (y < h) & (x >= 0) & (x < w)).flatten()
    place = (y * w + x).flatten()[inside]
    order = place.argsort(stable=True)
    rows = torch.arange(inside.numel())[inside][order]
    counts = torch.bincount(place, minlength=h * w)
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)[:-1]])
    sample = torch.arange(n)[:, None]
    rows = (sample * inside.numel() + rows).flatten()
    offsets = (sample * int(counts.sum()) + offsets).flatten()
    return rows.int().to(device), offsets.int().to(device)
