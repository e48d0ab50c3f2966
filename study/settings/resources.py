"""The settings of an executor: what a study runs on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from mipoison.config import ConfigError


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What trials run on. Their records do not depend on it, so a resumed study may run elsewhere."""

    executor: Literal["ray", "local"] = "ray"
    """ray: Tune trials on a local Ray or a cluster; local: one by one in this process, same records"""
    address: str | None = None
    """a Ray cluster to use (auto, or host:port); default: this machine's if there is one, else a local Ray"""
    workers: int | None = None
    """Ray Train workers a trial; 0 runs the same in the Tune trial; default: 0 without a GPU, else 1"""
    gpus_per_worker: float = 0.0
    """GPUs of a worker (fractions share one); default 0"""
    cpus_per_worker: float = 1.0
    """CPUs of a worker (or of a trial, with 0 workers)"""
    concurrent: int | None = None
    """trials at once; default: as many as the resources allow"""

    def check_resources(self) -> None:
        """Raise ConfigError, naming the value, for one that is out of bounds, or that ``local`` ignores."""
        at_least("workers", self.workers, 0)
        at_least("concurrent", self.concurrent, 1)
        at_least("gpus_per_worker", self.gpus_per_worker, 0)
        if not (self.cpus_per_worker > 0 and math.isfinite(self.cpus_per_worker)):
            raise ConfigError(f"cpus_per_worker = {self.cpus_per_worker}: must be above 0")
        if self.executor == "local":
            self._check_local()

    def _check_local(self) -> None:
        default = Resources()
        ignored = [
            f"--{name.replace('_', '-')} {getattr(self, name)}"
            for name, own in OF_RAY.items()
            if getattr(self, name) not in (getattr(default, name), own)
        ]
        if ignored:
            raise ConfigError(
                f"{', '.join(ignored)} without effect: --executor local runs one trial after another in this "
                "process; leave it out, or take --executor ray"
            )


OF_RAY = {"address": None, "workers": 0, "gpus_per_worker": 0.0, "cpus_per_worker": 1.0, "concurrent": 1}
"""Settings that apply only to Ray -> the value that says what ``local`` does, besides the default."""


def at_least(name: str, value: Any, bound: float) -> None:
    """Raise ConfigError if a number is given (not None) and is below the bound or not finite."""
    if value is not None and not (value >= bound and math.isfinite(value)):
        raise ConfigError(f"{name} = {value}: must be at least {bound:g}")
