"""Starts the executor that the settings ask for."""

from __future__ import annotations

from rich.console import Console

from study.executors.base import Executor
from study.executors.environment import plan_ray
from study.executors.local import LocalExecutor
from study.runtime.progress import Progress
from study.settings.display import Display
from study.settings.resources import Resources


def make_executor(
    resources: Resources, display: Display, console: Console, progress: Progress | None = None
) -> Executor:
    """Create the executor that the settings ask for; starts a local Ray if there is no cluster."""
    show = (lambda *_: None) if progress is None else progress.brief
    if resources.executor == "local":
        return LocalExecutor()
    show("loading Ray", 0, 2)
    plan = plan_ray(resources.address)
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
