"""Starts the executor that the settings ask for."""

from __future__ import annotations

import os

from rich.console import Console

from mipoison.config import ConfigError
from study.executors.base import Executor
from study.executors.environment import plan_ray
from study.executors.local import LocalExecutor
from study.runtime.progress import Progress
from study.settings.display import Display
from study.settings.resources import Resources


def check_gpus_here(resources: Resources) -> None:
    """Raise ConfigError if a local Ray could never give a trial its GPUs, before it is started.

    How many CPUs there are, Ray decides when it starts: a container may have fewer than the machine.
    """
    if not resources.gpus_per_worker:
        return
    import torch

    workers = max(resources.workers or 1, 1)
    need = {"CPU": workers * resources.cpus_per_worker, "GPU": workers * resources.gpus_per_worker}
    here = {"CPU": float(os.cpu_count() or 1), "GPU": float(torch.cuda.device_count())}
    if need["GPU"] > here["GPU"]:
        short = "; ".join(
            f"{n:g} {kind}s needed, {here[kind]:g} there" for kind, n in need.items() if n > here[kind]
        )
        raise ConfigError(
            f"workers = {resources.workers} with {resources.gpus_per_worker:g} GPUs each: more than this "
            f"machine has ({short}); name a cluster with --address, or leave --gpus-per-worker out"
        )


def make_executor(
    resources: Resources, display: Display, console: Console, progress: Progress | None = None
) -> Executor:
    """Create the executor that the settings ask for; starts a local Ray if there is no cluster."""
    show = (lambda *_: None) if progress is None else progress.brief
    if resources.executor == "local":
        return LocalExecutor()
    show("loading Ray", 0, 2)
    plan = plan_ray(resources.address)
    if plan.local:
        check_gpus_here(resources)
    # Here, because Ray reads its environment when it is imported, and takes seconds.
    from study.executors.ray_executor import RayExecutor, start_ray, stop_ray

    show("starting Ray", 1, 2)
    url = start_ray(plan, dashboard=display.dashboard, verbose=display.verbose)
    console.print(f"{plan}; dashboard: {url or 'off'}", soft_wrap=True)
    try:
        return RayExecutor(resources, plan)
    except BaseException:
        stop_ray(plan)
        raise
