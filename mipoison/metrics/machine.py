"""The machine that measures: its device, the software's versions, and the memory that was used."""

from __future__ import annotations

import platform
from importlib import metadata

import torch

from mipoison.metrics.memory import peak_resident_mb


def peak_memory_mb() -> float:
    """Peak memory in MiB: allocated on the GPU if there is one, else the resident set of this process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return peak_resident_mb()


def device_name() -> str:
    """Name of the GPU if there is one, else the processor's architecture."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else f"cpu ({platform.machine()})"


def versions() -> str:
    """The versions of mipoison, torch and Python, since results may depend on them."""
    python = platform.python_version()
    return f"mipoison {metadata.version('mipoison')}, torch {torch.__version__}, python {python}"
