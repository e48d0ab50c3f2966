"""Faults inside the processes of a simulated cluster, switched on by files in the folder ``$FAULTS``.

``memory``: rounding allocates without bound, in a process whose memory the kernel limits (RLIMIT_AS).
Python imports this module at every start, so it must cost nothing: the patch waits for the module it changes.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

TARGET = "mipoison.defenses.rounding"
ROOM_BYTES = 2**30
"""Bytes that a process may still allocate after the fault begins."""


class _Patch:
    """An import hook that finds the target module once and patches it after its import."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name != TARGET:
            return None
        sys.meta_path.remove(self)  # type: ignore[arg-type]
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.loader is not None
        run = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            run(module)
            _starve(module.Rounding)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def _starve(defense: Any) -> None:
    protect = defense.protect

    def hungry(self: Any, *args: Any, **kwargs: Any) -> Any:
        if (Path(os.environ["FAULTS"]) / "memory").exists():
            import resource

            import numpy as np

            in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            before = resource.getrlimit(resource.RLIMIT_AS)
            resource.setrlimit(resource.RLIMIT_AS, (in_use + ROOM_BYTES, before[1]))
            try:
                kept = []
                while True:
                    kept.append(np.ones(2**24))
            finally:
                resource.setrlimit(resource.RLIMIT_AS, before)
        return protect(self, *args, **kwargs)

    defense.protect = hungry


if os.environ.get("FAULTS"):
    sys.meta_path.insert(0, _Patch())  # type: ignore[arg-type]
