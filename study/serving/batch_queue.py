"""Queues images for the classifier: gathers those of several requests into batches. Clients take turns by
images (start-time fair queueing, Goyal et al. 1996); of a client's own requests small ones go first. Whoever
asks under ever new names would always be the next: the piece that is overdue for longest opens a batch.

Shape suffixes: N images, K classes, CHW image.
"""

from __future__ import annotations

import asyncio
import heapq
import math
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
"""Most images in the queue. No client may fill more than half of what the others leave, nor add a request of
more than one piece to its own images that wait where the queue would be more than half full."""
MAX_BYTES_WAITING = 64 * 2**20
"""Most bytes in the queue, likewise."""
LATE = 1.0
"""Seconds after its due time from which a piece is overdue."""
MAX_IDLE = 1024
"""Most clients without images in the queue of which it is kept how far ahead of the others they are."""

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

    def turn(self, first: bool) -> tuple[float, float, int, _Client]:
        """The client with the smallest is the next one; of those at the same time the one whose piece is."""
        piece = self.waiting[0]
        return -math.inf if first else self.start, piece.due, piece.number, self


class BatchQueue:
    """Gathers the images of several requests into batches. All calls must come from one event loop.

    While several clients wait, each gets the same number of images answered, to within a piece, however many
    requests and images each of them has in the queue. Where more is asked than can be answered, one piece of
    each batch is that which is overdue for longest, whoever's it is; where whole requests are pieces, of
    every other batch, so that large ones leave the others their turns.

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
        self._now = 0.0  # in images: the least start of those that waited when a batch was gathered last
        self._number = 0
        self._images = self._bytes = 0  # that wait, of all clients
        self._was_overdue = False  # whether the last batch was opened by what was overdue
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
            heapq.heappush(mine.waiting, pieces[-1])
            self._count(mine, pieces[-1], 1)
        self._start()
        try:
            return np.concatenate(await asyncio.gather(*(piece.answered for piece in pieces)))
        finally:
            if any(not piece.answered.done() or piece.answered.cancelled() for piece in pieces):
                self._drop(mine, pieces)  # the client disconnected, or another piece failed

    def _refuse_overflow(self, x_NCHW: np.ndarray, client: str) -> None:
        """Raise RequestError (503) if too much would wait, in all or of one client."""
        mine = self._clients.get(client, _Client(0))
        share = 2 if mine.images and len(x_NCHW) > PIECE else 1
        for most, new, own, total in (
            (MAX_IMAGES_WAITING, len(x_NCHW), mine.images, self._images),
            (MAX_BYTES_WAITING, x_NCHW.nbytes, mine.bytes, self._bytes),
        ):
            if total and (total + new) * share > most:
                raise RequestError(503, "too many images are waiting; try again in a second")
            if own and (own + new) * 2 > most - (total - own):
                raise RequestError(503, "too many of your images are waiting; try again in a second")

    def _count(self, client: _Client, piece: _Piece, sign: int) -> None:
        """Count a piece that came into the queue (sign 1), or left it (-1)."""
        images, size = sign * len(piece.x_NCHW), sign * piece.x_NCHW.nbytes
        client.images += images
        client.bytes += size
        self._images += images
        self._bytes += size

    def _drop(self, client: _Client, pieces: list[_Piece]) -> None:
        """Take a request's pieces out of the queue, as far as they wait in it."""
        numbers = {piece.number for piece in pieces}
        for piece in pieces:
            piece.answered.cancel()
        for piece in client.waiting:
            if piece.number in numbers:
                self._count(client, piece, -1)
        client.waiting = [piece for piece in client.waiting if piece.number not in numbers]
        heapq.heapify(client.waiting)

    def _start(self) -> None:
        while len(self._under_way) < self._max_batches and (batch := self._gather()):
            task = asyncio.get_running_loop().create_task(self._run(batch))
            self._under_way.add(task)
            task.add_done_callback(self._ended)

    def _gather(self) -> list[_Piece]:
        """The pieces of the next batch; none if nothing waits that anybody still wants."""
        batch: list[_Piece] = []
        n = 0
        late = self._clock() - LATE
        waiting = [client for client in self._clients.values() if client.waiting]
        overdue = [client for client in waiting if client.waiting[0].due <= late]
        if self._couples and self._was_overdue:
            overdue = []
        self._was_overdue = bool(overdue)
        first = min(overdue, key=lambda one: one.waiting[0]) if overdue else None
        turns = [client.turn(client is first) for client in waiting]
        heapq.heapify(turns)
        if waiting:
            self._now = max(self._now, min(client.start for client in waiting))
        while turns:
            client = turns[0][-1]
            piece = client.waiting[0]
            if batch and n + len(piece.x_NCHW) > BATCH:
                break
            heapq.heappop(client.waiting)
            self._count(client, piece, -1)
            if not piece.answered.done():  # if nobody waits for it, it costs its client nothing
                self._now = max(self._now, turns[0][0])
                client.start += len(piece.x_NCHW)
                batch.append(piece)
                n += len(piece.x_NCHW)
            if client.waiting:
                heapq.heapreplace(turns, client.turn(False))
            else:
                heapq.heappop(turns)
        self._forget(keep=bool(turns))
        return batch

    def _forget(self, *, keep: bool) -> None:
        """Keep the clients that wait and, of the others, those that are furthest ahead, if anybody waits."""
        idle = [
            (name, client)
            for name, client in self._clients.items()
            if keep and not client.waiting and client.start > self._now
        ]
        idle = heapq.nlargest(MAX_IDLE, idle, key=lambda one: one[1].start) if len(idle) > MAX_IDLE else idle
        self._clients = {name: client for name, client in self._clients.items() if client.waiting} | dict(
            idle
        )

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
