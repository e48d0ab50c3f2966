"""Who is answered next: images of several requests go to the classifier together, small requests first.

Shape suffixes: N images, K classes, CHW image.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import numpy as np

from study.serving.request_parsing import RequestError

BATCH = 32
"""Images that the classifier is given in one go; more only where one piece has more."""
PIECE = 16
"""Images of one request that are answered together, where the defense treats each by itself."""
IMAGE_S = 1 / 16
"""How much later a piece counts as having come for each image of its request up to its last one: who sends
one image waits for hardly anybody, who sends many for those who ask for less."""
MAX_IMAGES_WAITING = 4096
"""Most images that wait for the classifier; requests of more than one piece may fill half of it."""
MAX_BYTES_WAITING = 64 * 2**20
"""Most bytes of them, likewise."""

Answer = Callable[[list[np.ndarray]], Awaitable[list[np.ndarray]]]


@dataclass(order=True)
class _Piece:
    due: float
    number: int
    x_NCHW: np.ndarray = field(compare=False)
    answered: asyncio.Future[np.ndarray] = field(compare=False)


class Lanes:
    """Gathers the images of several requests into batches; used from one event loop.

    Args:
        answer: gives each array's released vectors.
        at_once: batches that may be under way, one for each copy of the classifier.
        couples: the defense looks at a whole request: it is never cut into pieces.
    """

    def __init__(self, answer: Answer, *, at_once: int, couples: bool) -> None:
        self._answer, self._at_once, self._couples = answer, at_once, couples
        self._waiting: list[_Piece] = []
        self._images = self._bytes = self._number = 0
        self._under_way: set[asyncio.Task[None]] = set()

    async def release(self, x_NCHW: np.ndarray) -> np.ndarray:
        """One request's released vectors (N, K).

        Raises:
            RequestError: 503 where too many wait already.
        """
        images, size = self._images + len(x_NCHW), self._bytes + x_NCHW.nbytes
        share = 1 if len(x_NCHW) <= PIECE else 2
        if self._images and (images * share > MAX_IMAGES_WAITING or size * share > MAX_BYTES_WAITING):
            raise RequestError(503, "too many images wait to be answered; try again in a second")
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
            for piece in pieces:  # of a client that went away, or where another piece failed
                piece.answered.cancel()

    def _start(self) -> None:
        while self._waiting and len(self._under_way) < self._at_once:
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
