"""Peak memory of this process."""

from __future__ import annotations

import resource
import sys
from pathlib import Path


def peak_resident_mb() -> float:
    """Largest resident set of this process so far, in MiB.

    On Linux it is read from ``/proc``, because ``getrusage`` includes the time before the process executed
    this program: a child of a large process then looks as large as its parent. Other systems use
    ``getrusage``.
    """
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 2**10
    except OSError:
        pass
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
