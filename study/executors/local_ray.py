"""Start a local Ray on loopback in a private folder, check its privacy, and remove everything at the end.

The study and the HTTP server both use it. Import this module after calling
:func:`study.executors.environment.plan_ray`, because Ray reads its environment when it is imported.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ray
from ray._private import utils, worker

from study.executors.environment import RayPlan, check_length, check_privacy
from study.runtime.signals import keep_handlers
from study.runtime.watchdog import add_last_resort, drop_last_resort


@contextlib.contextmanager
def keep_signal_handlers() -> Iterator[None]:
    """Keep ``ray.init`` from replacing our signal handlers; Ray's SIGTERM handler exits and aborts Ray."""
    theirs = utils.set_sigterm_handler
    utils.set_sigterm_handler = lambda handler: None
    try:
        with keep_handlers():
            yield
    finally:
        utils.set_sigterm_handler = theirs


def start_local(plan: RayPlan, **options: Any) -> Any:
    """Start Ray in the plan's folder; returns the context of ``ray.init``.

    Raises:
        ConfigError: the path of the folder is too long, or other accounts can reach the folder or the token.
            Ray is stopped first.
    """
    check_length(plan.scratch)
    try:
        with keep_signal_handlers():
            context = ray.init(
                address="local", _node_ip_address="127.0.0.1", _temp_dir=plan.scratch, **options
            )
            add_last_resort(kill_ray)
        check_privacy(plan.scratch)
    except BaseException:
        stop_ray(plan)
        raise
    return context


def stop_ray(plan: RayPlan) -> None:
    """Disconnect from Ray; stop a local Ray and delete its folder and token."""
    ray.shutdown()
    drop_last_resort(kill_ray)
    if plan.local:
        shutil.rmtree(plan.scratch, ignore_errors=True)
        if plan.token:
            Path(plan.token).unlink(missing_ok=True)


def kill_ray() -> None:
    """Kill the processes of the local Ray of this process, without a word to them."""
    node = worker._global_node
    if node is not None:
        node.kill_all_processes(check_alive=False, allow_graceful=False)
