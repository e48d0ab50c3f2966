"""Device, versions and memory that a record names are those of this machine."""

from __future__ import annotations

import platform

import numpy as np
import pytest
import torch

import mipoison
from mipoison.metrics.machine import device_name, peak_memory_mb, versions


def test_versions_are_those_that_run() -> None:
    assert versions() == (
        f"mipoison {mipoison.__version__}, torch {torch.__version__}, python {platform.python_version()}"
    )


def test_a_cpu_is_named_by_its_architecture_and_counts_resident_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device_name() == f"cpu ({platform.machine()})"
    before = peak_memory_mb()
    assert before > 10
    held = np.ones(int((before + 50) * 2**20 / 8))
    assert peak_memory_mb() >= held.nbytes / 2**20


def test_a_gpu_counts_what_was_allocated_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 3 * 2**20)
    assert (device_name(), peak_memory_mb()) == ("a GPU", 3.0)
