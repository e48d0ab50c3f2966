"""Estimates how many samples fit into memory, from the shapes of the layers and the memory that is free."""

from __future__ import annotations

import functools
import os

import torch
from torch import nn

from mipoison.models.inversion import InversionNet

SHARE = 0.25
"""Share of the free memory that one chunk may use; other processes and the caller need memory too."""
MOST = {"cpu": 256, "cuda": 2048}
"""Largest chunk, in samples. On a CPU larger ones were not faster; for a GPU the number is a guess."""


def free_bytes(device: torch.device) -> int:
    """Free memory of a device in bytes; 2 GiB if the system does not say."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):  # not on every system
        return 2**31


def floats_per_sample(decoder: InversionNet) -> int:
    """Numbers in all activations of one sample.

    A layer counts with its output, or with half of its unfolded patches if these are more.
    """
    return _floats(tuple(_shape(layer) for layer in decoder.layers if isinstance(layer, nn.ConvTranspose2d)))


def multiply_adds(decoder: InversionNet) -> int:
    """Multiplications of one forward pass of one sample."""
    size, total = 1, 0
    for layer in decoder.layers:
        if isinstance(layer, nn.ConvTranspose2d):
            _, kernel, stride, padding = _shape(layer)
            total += size * size * layer.weight.numel()
            size = (size - 1) * stride - 2 * padding + kernel
    return total


def has_fast_bf16(device: torch.device) -> bool:
    """Whether bfloat16 is faster, which was measured on CPUs with AMX; GPUs were not measured."""
    supported = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return device.type == "cpu" and supported is not None and bool(supported())


def _shape(layer: nn.ConvTranspose2d) -> tuple[int, int, int, int]:
    padding = layer.padding
    assert isinstance(padding, tuple)
    return layer.out_channels, layer.kernel_size[0], layer.stride[0], padding[0]


@functools.lru_cache(maxsize=64)
def _floats(shapes: tuple[tuple[int, int, int, int], ...]) -> int:
    size, total = 1, 0
    for channels, kernel, stride, padding in shapes:
        patches = size * size * kernel * kernel * channels
        size = (size - 1) * stride - 2 * padding + kernel
        total += max(size * size * channels, patches // 2)
    return total


def chunk_of(decoder: InversionNet, live: float, device: torch.device) -> int:
    """Samples that fit into a quarter of the free memory: at least 1, at most MOST.

    Args:
        live: how many copies of all activations an engine holds at its peak, in the decoder's dtype.
    """
    width = next(decoder.parameters()).element_size()
    per_sample = live * width * floats_per_sample(decoder)
    return max(1, min(MOST.get(device.type, 256), int(SHARE * free_bytes(device) / per_sample)))
