"""How much memory this program has had at most."""

from __future__ import annotations

import resource
import sys
from pathlib import Path


def peak_resident_mb() -> float:
    """Peak of this program's resident set in MiB.

    Linux's ``getrusage`` counts what the process was before it became this program, too: a child of a large
    process looks as large as its parent. ``/proc`` does not; elsewhere it has to do.
    """
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 2**10
    except OSError:
        pass
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
