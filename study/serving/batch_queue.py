"""Queues images for the classifier: gathers those of several requests into batches, small requests first.

Shape suffixes: N images, K classes, CHW image.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import numpy as np

from study.serving.bounds import RequestError

BATCH = 32
"""Images of a batch; more only if a single piece has more."""
PIECE = 16
"""Largest part of a request that is queued as one, if the defense treats each image by itself."""
IMAGE_S = 1 / 16
"""Seconds by which each image of a request delays the due time of its pieces, so that a request of one image
hardly waits, and a request of many waits for smaller ones."""
MAX_IMAGES_WAITING = 4096
"""Most images in the queue. Requests of more than one piece are refused beyond half of it."""
MAX_BYTES_WAITING = 64 * 2**20
"""Most bytes in the queue, likewise."""

Answer = Callable[[list[np.ndarray]], Awaitable[list[np.ndarray]]]


@dataclass(order=True)
class _Piece:
    due: float
    number: int
    x_NCHW: np.ndarray = field(compare=False)
    answered: asyncio.Future[np.ndarray] = field(compare=False)


class BatchQueue:
    """Gathers the images of several requests into batches. All calls must come from one event loop.

    Args:
        answer: returns the released vectors of each array of images.
        max_batches: batches that may be under way at once, one per replica.
        couples: whether the defense depends on the whole request, which then is not cut into pieces.
    """

    def __init__(self, answer: Answer, *, max_batches: int, couples: bool) -> None:
        self._answer, self._max_batches, self._couples = answer, max_batches, couples
        self._waiting: list[_Piece] = []
        self._images = self._bytes = self._number = 0
        self._under_way: set[asyncio.Task[None]] = set()

    async def release(self, x_NCHW: np.ndarray) -> np.ndarray:
        """The released vectors (N, K) of one request.

        Raises:
            RequestError: 503 if the queue is full.
        """
        images, size = self._images + len(x_NCHW), self._bytes + x_NCHW.nbytes
        share = 1 if len(x_NCHW) <= PIECE else 2
        if self._images and (images * share > MAX_IMAGES_WAITING or size * share > MAX_BYTES_WAITING):
            raise RequestError(503, "too many images are waiting; try again in a second")
        loop = asyncio.get_running_loop()
        now, size = loop.time(), len(x_NCHW) if self._couples else PIECE
        pieces = []
        for start in range(0, len(x_NCHW), size):
            self._number += 1
            part = x_NCHW[start : start + size]
            due = now + (start + len(part) - 1) * IMAGE_S
            pieces.append(_Piece(due, self._number, part, loop.create_future()))
            heapq.heappush(self._waiting, pieces[-1])
            self._images += len(part)
            self._bytes += part.nbytes
        self._start()
        try:
            return np.concatenate(await asyncio.gather(*(piece.answered for piece in pieces)))
        finally:
            for piece in pieces:  # the client disconnected, or another piece failed
                piece.answered.cancel()

    def _start(self) -> None:
        while self._waiting and len(self._under_way) < self._max_batches:
            if batch := self._gather():
                task = asyncio.get_running_loop().create_task(self._run(batch))
                self._under_way.add(task)
                task.add_done_callback(self._ended)

    def _gather(self) -> list[_Piece]:
        batch: list[_Piece] = []
        n = 0
        while self._waiting and (not batch or n + len(self._waiting[0].x_NCHW) <= BATCH):
            piece = heapq.heappop(self._waiting)
            self._images -= len(piece.x_NCHW)
            self._bytes -= piece.x_NCHW.nbytes
            if not piece.answered.done():
                batch.append(piece)
                n += len(piece.x_NCHW)
        return batch

    async def _run(self, batch: list[_Piece]) -> None:
        try:
            answers = await self._answer([piece.x_NCHW for piece in batch])
        except Exception as error:
            for piece in batch:
                if not piece.answered.done():
                    piece.answered.set_exception(error)
            return
        for piece, c_NK in zip(batch, answers, strict=True):
            if not piece.answered.done():
                piece.answered.set_result(c_NK)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        self._start()
