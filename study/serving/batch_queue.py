"""Queues images for the classifier: gathers those of several requests into batches. Clients take turns by
images (start-time fair queueing, Goyal et al. 1996); of a client's own requests small ones go first.

Shape suffixes: N images, K classes, CHW image.
"""

from __future__ import annotations

import asyncio
import heapq
import time
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
"""Most images in the queue. Requests of more than one piece are refused beyond half of it, and no client may
fill more than half of what the others leave."""
MAX_BYTES_WAITING = 64 * 2**20
"""Most bytes in the queue, likewise."""

Answer = Callable[[list[np.ndarray]], Awaitable[list[np.ndarray]]]


@dataclass(order=True)
class _Piece:
    due: float
    number: int
    x_NCHW: np.ndarray = field(compare=False)
    answered: asyncio.Future[np.ndarray] = field(compare=False)


class _Client:
    """What waits of one client.

    Attributes:
        start: the queue's time, in images, at which its next piece is due: as many images later than its last
            piece's as that had. The client with the least is the next.
    """

    def __init__(self, start: float) -> None:
        self.start = start
        self.waiting: list[_Piece] = []
        self.images = self.bytes = 0

    def push(self, piece: _Piece) -> None:
        heapq.heappush(self.waiting, piece)
        self.images += len(piece.x_NCHW)
        self.bytes += piece.x_NCHW.nbytes

    def pop(self) -> _Piece:
        piece = heapq.heappop(self.waiting)
        self.images -= len(piece.x_NCHW)
        self.bytes -= piece.x_NCHW.nbytes
        return piece

    @property
    def turn(self) -> tuple[float, _Piece]:
        """The client with the smallest is the next one; of those at the same time the one whose piece is."""
        return self.start, self.waiting[0]


class BatchQueue:
    """Gathers the images of several requests into batches. All calls must come from one event loop.

    While several clients wait, each gets the same number of images answered, to within a piece, however many
    requests and images each of them has in the queue.

    Args:
        answer: returns the released vectors of each array of images.
        max_batches: batches that may be under way at once, one per replica.
        couples: whether the defense depends on the whole request, which then is not cut into pieces.
    """

    def __init__(
        self,
        answer: Answer,
        *,
        max_batches: int,
        couples: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._answer, self._max_batches, self._couples = answer, max_batches, couples
        self._clock = clock
        self._clients: dict[str, _Client] = {}
        self._now = 0.0  # in images: the start of the piece that was taken last
        self._number = 0
        self._under_way: set[asyncio.Task[None]] = set()

    async def release(self, x_NCHW: np.ndarray, client: str = "") -> np.ndarray:
        """The released vectors (N, K) of one request.

        Args:
            client: who asks, by any name.

        Raises:
            RequestError: 503 if the queue is full, or the client's part of it.
        """
        self._refuse_overflow(x_NCHW, client)
        loop, now = asyncio.get_running_loop(), self._clock()
        mine = self._clients.setdefault(client, _Client(self._now))
        if not mine.waiting:  # time in which it asked nothing is no credit
            mine.start = max(mine.start, self._now)
        size = len(x_NCHW) if self._couples else PIECE
        pieces = []
        for start in range(0, len(x_NCHW), size):
            self._number += 1
            part = x_NCHW[start : start + size]
            due = now + (start + len(part) - 1) * IMAGE_S
            pieces.append(_Piece(due, self._number, part, loop.create_future()))
            mine.push(pieces[-1])
        self._start()
        try:
            return np.concatenate(await asyncio.gather(*(piece.answered for piece in pieces)))
        finally:
            for piece in pieces:  # the client disconnected, or another piece failed
                piece.answered.cancel()

    def _refuse_overflow(self, x_NCHW: np.ndarray, client: str) -> None:
        """Raise RequestError (503) if too much would wait, in all or of one client."""
        mine = self._clients.get(client, _Client(0))
        images, size, clients = len(x_NCHW), x_NCHW.nbytes, self._clients.values()
        share = 1 if images <= PIECE else 2
        for most, new, own, total in (
            (MAX_IMAGES_WAITING, images, mine.images, sum(one.images for one in clients)),
            (MAX_BYTES_WAITING, size, mine.bytes, sum(one.bytes for one in clients)),
        ):
            if total and (total + new) * share > most:
                raise RequestError(503, "too many images are waiting; try again in a second")
            if own and (own + new) * 2 > most - (total - own):
                raise RequestError(503, "too many of your images are waiting; try again in a second")

    def _start(self) -> None:
        while len(self._under_way) < self._max_batches and (batch := self._gather()):
            task = asyncio.get_running_loop().create_task(self._run(batch))
            self._under_way.add(task)
            task.add_done_callback(self._ended)

    def _gather(self) -> list[_Piece]:
        """The pieces of the next batch; none if nothing waits that anybody still wants."""
        batch: list[_Piece] = []
        n = 0
        while waiting := [client for client in self._clients.values() if client.waiting]:
            client = min(waiting, key=lambda one: one.turn)
            if batch and n + len(client.waiting[0].x_NCHW) > BATCH:
                break
            piece = client.pop()
            if piece.answered.done():  # nobody waits for it: it costs its client nothing
                continue
            self._now = client.start
            client.start += len(piece.x_NCHW)
            batch.append(piece)
            n += len(piece.x_NCHW)
        # Those that neither wait nor are ahead of the others need no place; without others nobody is ahead.
        self._clients = {
            name: client
            for name, client in self._clients.items()
            if client.waiting or (waiting and client.start > self._now)
        }
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
