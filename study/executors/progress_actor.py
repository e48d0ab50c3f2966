"""A Ray actor that counts the finished parts of a Ray Train run, for the driver's progress bar.

The workers add to the count and the driver polls it. Train's own reports do not serve: ``fit`` returns only
at the end, and ``train.report`` waits for all workers.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import ray

log = logging.getLogger(__name__)

EVERY_S = 0.5
"""Seconds between two polls."""
WAIT_S = 5.0
"""Longest wait for one answer, in seconds."""


@ray.remote(num_cpus=0)
class ProgressActor:
    """The actor that holds the count."""

    def __init__(self) -> None:
        self._done = 0

    def add(self) -> None:
        """Count one more finished part."""
        self._done += 1

    def done(self) -> int:
        """The number of finished parts."""
        return self._done


@contextlib.contextmanager
def count_progress(on_progress: Callable[[int], None], resource: str | None = None) -> Iterator[Any]:
    """Start a :class:`ProgressActor` and poll it from a thread; yields the actor's handle for the workers.

    The run does not depend on the actor: if its node is lost, only the progress bar stops.

    Args:
        on_progress: called with the number of finished parts whenever it changes, first with 0.
        resource: a resource of the node that shall hold the actor; None for any node.
    """
    actor = ProgressActor.options(resources={resource: 0.001} if resource else {}).remote()  # type: ignore[attr-defined]
    ended = threading.Event()
    thread = threading.Thread(target=_listen, args=(actor, on_progress, ended), daemon=True)
    thread.start()
    try:
        yield actor
    finally:
        ended.set()
        thread.join(2 * WAIT_S)
        ray.kill(actor)


def _listen(actor: Any, on_progress: Callable[[int], None], ended: threading.Event) -> None:
    last = -1
    while not ended.is_set():
        try:
            done = ray.get(actor.done.remote(), timeout=WAIT_S)
        except ray.exceptions.GetTimeoutError:  # the actor is busy, or has not started yet
            continue
        except ray.exceptions.RayError as error:  # the actor's node was lost; the run may go on
            log.info("the progress actor no longer answers: %s", error)
            return
        if done != last:
            on_progress(done)
            last = done
        ended.wait(EVERY_S)
