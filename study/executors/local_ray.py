"""A local Ray: started on loopback in a private folder, checked, and ended without a trace.

The study's and the server's alike. Import it after :func:`study.executors.environment.plan_ray`: Ray reads
its environment when it is imported.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ray
from ray._private import utils

from study.executors.environment import RayPlan, check_length, check_privacy
from study.runtime.signals import keep_handlers


@contextlib.contextmanager
def keep_signal_handlers() -> Iterator[None]:
    """Around ``ray.init``: it would put a handler of SIGTERM in place that exits, and Ray then aborts."""
    theirs = utils.set_sigterm_handler
    utils.set_sigterm_handler = lambda handler: None
    try:
        with keep_handlers():
            yield
    finally:
        utils.set_sigterm_handler = theirs


def start_local(plan: RayPlan, **options: Any) -> Any:
    """Start Ray in the plan's folder; returns what ``ray.init`` does.

    Raises:
        ConfigError: its folder has too long a path, or others could reach it or the token; Ray is ended then.
    """
    check_length(plan.scratch)
    try:
        with keep_signal_handlers():
            context = ray.init(
                address="local", _node_ip_address="127.0.0.1", _temp_dir=plan.scratch, **options
            )
        check_privacy(plan.scratch)
    except BaseException:
        stop_ray(plan)
        raise
    return context


def stop_ray(plan: RayPlan) -> None:
    """Disconnect; a local Ray ends, and its folder and token go."""
    ray.shutdown()
    if plan.local:
        shutil.rmtree(plan.scratch, ignore_errors=True)
        if plan.token:
            Path(plan.token).unlink(missing_ok=True)
