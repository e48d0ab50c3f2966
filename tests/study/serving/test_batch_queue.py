"""The queue of images and the processes that parse bodies: order, bounds, and processes that die."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from study.serving import batch_queue
from study.serving.batch_queue import BatchQueue
from study.serving.request_parsing import RequestError

SHAPE = (1, 16, 16)


async def mean(requests: list[np.ndarray]) -> list[np.ndarray]:
    """Stands in for the classifier."""
    return [x_NCHW.mean((1, 2, 3))[:, None] for x_NCHW in requests]


def test_one_image_waits_for_one_batch_at_most() -> None:
    async def scene() -> list[str]:
        order = []

        async def answer(requests: list[np.ndarray]) -> list[np.ndarray]:
            await asyncio.sleep(0.01)
            return await mean(requests)

        queue = BatchQueue(answer, max_batches=1, couples=False)

        async def one(name: str, n: int) -> None:
            await queue.release(np.zeros((n, *SHAPE), np.float32))
            order.append(name)

        large = [asyncio.create_task(one("large", 256)) for _ in range(5)]
        await asyncio.sleep(0.005)
        await asyncio.gather(one("small", 1), *large)
        return order

    assert asyncio.run(scene()) == ["small", *["large"] * 5]


def test_a_whole_request_goes_together_where_the_defense_couples() -> None:
    async def scene(couples: bool) -> list[int]:
        sizes = []

        async def answer(requests: list[np.ndarray]) -> list[np.ndarray]:
            sizes.extend(map(len, requests))
            return await mean(requests)

        c_NK = await BatchQueue(answer, max_batches=1, couples=couples).release(
            np.zeros((100, *SHAPE), np.float32)
        )
        assert len(c_NK) == 100
        return sizes

    assert asyncio.run(scene(True)) == [100]
    assert max(asyncio.run(scene(False))) == batch_queue.PIECE


class Bench:
    """A queue on a clock that only batches move: each takes ``step`` seconds, whatever is in it.

    Attributes:
        order: the client of each image, in the order of answers. done: client -> number of the batch that
            ended each of its requests.
    """

    def __init__(self, step: float) -> None:
        self.now, self.step = 0.0, step
        self.order: list[str] = []
        self.batches: list[int] = []
        self.done: dict[str, list[int]] = {}
        self.names: list[str] = []
        self.queue = BatchQueue(self.answer, max_batches=1, couples=False, clock=lambda: self.now)

    async def answer(self, requests: list[np.ndarray]) -> list[np.ndarray]:
        await asyncio.sleep(0)
        self.now += self.step
        self.batches.append(sum(map(len, requests)))
        for x_NCHW in requests:
            self.order += [self.names[int(value)] for value in x_NCHW[:, 0, 0, 0]]
        return await mean(requests)

    async def ask(self, client: str, images: int) -> None:
        if client not in self.names:
            self.names.append(client)
        x_NCHW = np.full((images, *SHAPE), self.names.index(client), np.float32)
        c_NK = await self.queue.release(x_NCHW, client)
        assert (c_NK == self.names.index(client)).all()
        self.done.setdefault(client, []).append(len(self.batches))


@pytest.mark.parametrize("size", [1, 7, 16, 200])
def test_a_client_with_many_requests_does_not_delay_another(size: int) -> None:
    """One has 1,600 images in the queue, the other 160 in requests of ten: half of each batch is the other's
    until it has them all. In the order in which they came they would take fifty batches."""

    async def scene() -> Bench:
        bench = Bench(1.0)
        many = [asyncio.create_task(bench.ask("many", size)) for _ in range(1600 // size)]
        await asyncio.sleep(0)
        await asyncio.gather(*(bench.ask("few", 10) for _ in range(16)), *many)
        return bench

    bench = asyncio.run(scene())
    few = [i for i, name in enumerate(bench.order) if name == "few"]
    assert len(few) == 160
    assert few[-1] <= 2 * 160 + 4 * batch_queue.BATCH
    assert bench.done["few"][-1] <= 16  # ten of 32 images at the least, of which half are its own
    for start in range(0, 256, 64):  # nor does the one with few take more than its half
        part = bench.order[batch_queue.BATCH + start :][:64]
        assert 16 <= part.count("few") <= 48
    assert max(bench.batches) <= batch_queue.BATCH


def test_a_client_that_comes_late_is_answered_in_the_next_batch() -> None:
    """And one that was away for long has no credit by which it would keep the others from their turns."""

    async def scene() -> Bench:
        bench = Bench(0.01)
        crowd = [asyncio.create_task(bench.ask(f"client {i}", 16)) for i in range(40)]
        while len(bench.batches) < 5:
            await asyncio.sleep(0)
        late = asyncio.create_task(bench.ask("late", 1))
        await asyncio.sleep(0)
        greedy = asyncio.create_task(bench.ask("late", 256))
        await asyncio.gather(late, greedy, *crowd)
        assert bench.done["late"][0] <= 7  # one batch was under way
        return bench

    bench = asyncio.run(scene())
    last = max(max(bench.done[f"client {i}"]) for i in range(40))
    assert last <= 24  # 640 images in batches of 32, and the late client's in between
    assert bench.done["late"][1] == max(max(times) for times in bench.done.values())


def test_a_client_fills_half_of_the_queue_at_most() -> None:
    async def never(requests: list[np.ndarray]) -> list[np.ndarray]:
        await asyncio.sleep(60)
        return []

    async def scene() -> None:
        queue = BatchQueue(never, max_batches=1, couples=False)
        one = np.zeros((16, *SHAPE), np.float32)
        many = [asyncio.create_task(queue.release(one, "many")) for _ in range(300)]
        await asyncio.sleep(0.05)
        refused = [error for task in many if task.done() and (error := task.exception())]
        assert 300 - 128 - 4 <= len(refused) <= 300 - 128
        assert all(isinstance(e, RequestError) and e.status == 503 and "your" in str(e) for e in refused)
        other = [asyncio.create_task(queue.release(one, "other")) for _ in range(60)]
        await asyncio.sleep(0.05)
        assert not any(task.done() for task in other)

    asyncio.run(scene())


def test_nothing_is_kept_of_clients_that_are_gone() -> None:
    async def scene() -> int:
        bench = Bench(1.0)
        busy = [asyncio.create_task(bench.ask("busy", 256)) for _ in range(4)]
        for i in range(30):
            await bench.ask(f"client {i}", 1)
        assert len(bench.queue._clients) <= 3
        await asyncio.gather(*busy)
        return len(bench.queue._clients)

    assert asyncio.run(scene()) == 0


def test_queues_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(requests: list[np.ndarray]) -> list[np.ndarray]:
        await asyncio.sleep(60)
        return []

    async def scene() -> None:
        queue = BatchQueue(never, max_batches=1, couples=False)
        images = np.zeros((256, *SHAPE), np.float32)
        tasks = [asyncio.create_task(queue.release(images)) for _ in range(12)]
        await asyncio.sleep(0.05)
        refused = [task for task in tasks if task.done()]
        assert 3 <= len(refused) <= 6  # half of 4096 may wait, and some are at work
        for task in refused:
            error = task.exception()
            assert isinstance(error, RequestError)
            assert error.status == 503
        small = asyncio.create_task(queue.release(images[:1]))
        await asyncio.sleep(0.05)
        assert not small.done()  # it waits for its turn

    asyncio.run(scene())
