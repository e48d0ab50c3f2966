"""Parses request bodies in worker processes, so that large bodies do not delay the server's event loop.

Each process takes the smallest waiting body first: small requests do not wait for large ones.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import logging
import multiprocessing
import os
import resource
import signal
import threading
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection
from pathlib import Path

from study.serving.bounds import RequestError, Shape
from study.serving.containers import JPEG, PNG
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
"""Bodies up to this size are parsed in the server's process: passing them on would cost more."""
LARGE = 256 * 2**10
"""Bodies above this size are large, and have a process of their own."""


class Readers:
    """Turns bodies into images: the smallest in this process, medium and large ones in one process each.

    Args:
        image_shape, resize: see ``study.serving.request_parsing.read_request``.
    """

    def __init__(self, image_shape: Shape, resize: str | None = None) -> None:
        self._shape, self._resize = image_shape, resize
        self._medium, self._large = _Reader(image_shape, resize), _Reader(image_shape, resize)

    async def read(self, content_type: str, body: bytes) -> Images:
        """The images of a body.

        Raises:
            RequestError: as ``study.serving.request_parsing.read_request`` raises it; 503 if too many wait.
        """
        # A small file that is resized may hold a large picture.
        packed = self._resize is not None and (PNG in body or JPEG in body)
        if len(body) <= INLINE and not packed:
            return read_request(content_type, body, self._shape, self._resize)
        return await (self._medium if len(body) <= LARGE else self._large).read(content_type, body)

    async def warm(self) -> None:
        """Wait until all processes have started."""
        await asyncio.gather(self._medium.warm(), self._large.warm())

    def close(self) -> None:
        """End the processes."""
        self._medium.close()
        self._large.close()


class _Reader:
    """A process that parses one body after the other. All calls must come from one event loop."""

    def __init__(self, image_shape: Shape, resize: str | None) -> None:
        self._shape, self._resize, self._busy = image_shape, resize, False
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._bytes = self._count = 0
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
        self._count += 1
        ready = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (size, self._count, ready))
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
            size, _, ready = heapq.heappop(self._waiting)
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
