"""Parses request bodies in worker processes, so that large bodies do not delay the server's event loop.

Bodies are of two classes, each with a process that takes them in the order in which they arrived: ordinary
ones do not wait for costly ones, and nobody waits without bound.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import multiprocessing
import os
import resource
import signal
import threading
from collections import deque
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection
from pathlib import Path

from study.serving.bounds import FORM, RequestError, Shape, content_kind
from study.serving.containers import declared_pixels
from study.serving.request_parsing import Images, read_request

log = logging.getLogger(__name__)

MAX_WAITING = 256
"""Most bodies that wait to be read."""
MAX_WAITING_BYTES = 64 * 2**20
"""Most bytes of bodies that wait."""
READ_S = 10.0
"""Longest time for one body; then its process is killed and replaced."""
MEMORY = 2**30
"""Bytes of address space that a process may allocate after its start."""
INLINE = 16 * 2**10
"""Arrays and JSON up to this size are parsed in the server's process: passing them on would cost more.
Pictures and forms never are, as few bytes may hold many pixels."""
LARGE = 256 * 2**10
"""Bodies above this size are costly."""
LARGE_PIXELS = 2**19
"""Pictures with more pixels by their header are costly, too."""
NOT_INHERITED = ("MIPOISON_SECRET", "MIPOISON_API_KEYS")
"""Environment variables that the processes do not get: a decoder's fault must not lay them open."""


class Readers:
    """Turns bodies into images: small arrays and JSON in this process, ordinary and costly bodies in others.

    The variables of ``NOT_INHERITED`` are removed from this process's environment, which the others inherit.

    Args:
        image_shape, resize: see ``study.serving.request_parsing.read_request``.
    """

    def __init__(self, image_shape: Shape, resize: str | None = None) -> None:
        for name in NOT_INHERITED:
            os.environ.pop(name, None)
        self._shape, self._resize = image_shape, resize
        self._medium, self._large = _Reader(image_shape, resize), _Reader(image_shape, resize)

    async def read(self, content_type: str, body: bytes) -> Images:
        """The images of a body.

        Raises:
            RequestError: as ``study.serving.request_parsing.read_request`` raises it; 503 if too many wait.
        """
        kind = content_kind(content_type, body) if body else ""
        picture = kind.startswith("image/")
        if len(body) <= INLINE and kind != FORM and not picture:
            return read_request(content_type, body, self._shape, self._resize)
        costly = kind == FORM or len(body) > LARGE or (picture and declared_pixels(body) > LARGE_PIXELS)
        return await (self._large if costly else self._medium).read(content_type, body)

    async def warm(self) -> None:
        """Wait until all processes have started."""
        await asyncio.gather(self._medium.warm(), self._large.warm())

    def close(self) -> None:
        """End the processes."""
        self._medium.close()
        self._large.close()


class _Reader:
    """A process that parses bodies in the order of their arrival. All calls must come from one event loop."""

    def __init__(self, image_shape: Shape, resize: str | None) -> None:
        self._shape, self._resize, self._busy = image_shape, resize, False
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._bytes = 0
        self._pool = self._start()

    async def read(self, content_type: str, body: bytes) -> Images:
        await self._turn(len(body))
        try:
            return await self._run(content_type, body)
        finally:
            self._next()

    async def _turn(self, size: int) -> None:
        if not self._busy:
            self._busy = True
            return
        if len(self._waiting) >= MAX_WAITING or self._bytes + size > MAX_WAITING_BYTES:
            raise RequestError(503, "too many bodies wait to be read; try again in a second")
        ready = asyncio.get_running_loop().create_future()
        self._waiting.append((size, ready))
        self._bytes += size
        try:
            await ready
        except asyncio.CancelledError:
            if ready.done() and not ready.cancelled():  # it was this request's turn: pass it on
                self._next()
            raise

    def _next(self) -> None:
        self._busy = False
        while self._waiting and not self._busy:
            size, ready = self._waiting.popleft()
            self._bytes -= size
            if not ready.done():  # its client has not disconnected
                self._busy = True
                ready.set_result(None)

    async def _run(self, content_type: str, body: bytes) -> Images:
        pool = self._pool
        try:
            async with asyncio.timeout(READ_S):
                loop = asyncio.get_running_loop()
                return await loop.run_in_executor(
                    pool, read_request, content_type, body, self._shape, self._resize
                )
        except (BrokenProcessPool, TimeoutError) as error:
            self._renew(pool)
            raise RequestError(422, "a body that could not be read") from error
        except RequestError:
            raise
        except Exception as error:  # MemoryError, or a bug
            log.exception("a body could not be read")
            raise RequestError(422, f"a body that could not be read ({type(error).__name__})") from error

    def _renew(self, broken: ProcessPoolExecutor) -> None:
        """Replace a process that died or takes too long."""
        self._pool = self._start()
        _end(broken)

    def _start(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), initializer=_begin)

    async def warm(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._pool, os.getpid)

    def close(self) -> None:
        _end(self._pool)


def _end(pool: ProcessPoolExecutor) -> None:
    processes = list((pool._processes or {}).values())  # the executor has no public way to kill its processes
    pool.shutdown(wait=False, cancel_futures=True)
    for process in processes:
        process.kill()


def _begin() -> None:
    """Set up a worker process: it ignores Ctrl-C, ends with its parent, and has bounded memory."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_follow, args=(parent.sentinel,), daemon=True).start()
    with contextlib.suppress(OSError, ValueError):  # no /proc, or a tighter limit is set
        taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, taken + MEMORY))


def _follow(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)
