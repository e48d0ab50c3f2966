"""How many parts of a Ray Train run are done: its workers count, whoever started the run hears.

``fit`` returns nothing before the end, and a run's reports meet at a barrier of all workers: too late and too
early for a bar.
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
"""How often the count is asked for."""
WAIT_S = 5.0
"""Longest wait for an answer; a bar is not worth more."""


@ray.remote(num_cpus=0)
class ProgressActor:
    """The count, in a process of its own."""

    def __init__(self) -> None:
        self._done = 0

    def add(self) -> None:
        """One more part is done."""
        self._done += 1

    def done(self) -> int:
        """Parts done so far."""
        return self._done


@contextlib.contextmanager
def progress_actor(on_progress: Callable[[int], None], resource: str | None = None) -> Iterator[Any]:
    """A :class:`ProgressActor` for workers to add to; ``on_progress`` is told its count, from a thread.

    Args:
        on_progress: called with the number of parts done, 0 at first.
        resource: of the node where the count lives; None for any. It only shows: the run goes on without it.
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
        except ray.exceptions.GetTimeoutError:  # busy, or not there yet
            continue
        except ray.exceptions.RayError as error:  # its node went; the run need not
            log.info("no more counts: %s", error)
            return
        if done != last:
            on_progress(done)
            last = done
        ended.wait(EVERY_S)
