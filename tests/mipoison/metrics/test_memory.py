"""The peak memory of a process does not include that of the process that started it."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from mipoison.metrics.memory import peak_resident_mb

HELD_MB = 300


def child() -> float:
    command = "from mipoison.metrics.memory import peak_resident_mb; print(peak_resident_mb())"
    done = subprocess.run(
        [sys.executable, "-c", command], capture_output=True, text=True, check=True, timeout=60
    )
    return float(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="getrusage counts the parent, and there is no /proc")
def test_a_large_parent_does_not_count() -> None:
    alone, before = child(), peak_resident_mb()
    held = np.ones(HELD_MB * 2**20, np.uint8)
    assert peak_resident_mb() >= HELD_MB
    assert peak_resident_mb() >= before
    assert 3 < child() < alone + HELD_MB / 3  # what it imports is its own, too
    assert held.size
