"""The queue of images and the processes that parse bodies: order, bounds, and processes that die."""

from __future__ import annotations

import asyncio
import itertools

import numpy as np
import pytest

from study.serving import batch_queue
from study.serving.batch_queue import BatchQueue
from study.serving.request_parsing import RequestError

SHAPE = (1, 16, 16)


async def mean(requests: list[np.ndarray]) -> list[np.ndarray]:
    """Stands in for the classifier."""
    return [x_NCHW.mean((1, 2, 3))[:, None] for x_NCHW in requests]


async def never(requests: list[np.ndarray]) -> list[np.ndarray]:
    await asyncio.sleep(60)
    return []


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

    def __init__(self, step: float, *, couples: bool = False) -> None:
        self.now, self.step = 0.0, step
        self.order: list[str] = []
        self.batches: list[int] = []
        self.done: dict[str, list[int]] = {}
        self.names: list[str] = []
        self.queue = BatchQueue(self.answer, max_batches=1, couples=couples, clock=lambda: self.now)

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


def test_the_half_that_one_client_fills_leaves_room_for_another_s_large_request() -> None:
    async def scene() -> None:
        queue = BatchQueue(never, max_batches=1, couples=False)
        many = [asyncio.create_task(queue.release(np.zeros((16, *SHAPE)), "many")) for _ in range(300)]
        await asyncio.sleep(0.05)
        assert any(task.done() for task in many)  # its half is full
        other = asyncio.create_task(queue.release(np.zeros((256, *SHAPE)), "other"))
        await asyncio.sleep(0.05)
        assert not other.done()

    asyncio.run(scene())


def test_what_a_client_no_longer_waits_for_takes_no_room() -> None:
    async def scene() -> None:
        queue = BatchQueue(never, max_batches=1, couples=False)
        images = np.zeros((2000, 1, 2, 2), np.float32)
        ahead = [asyncio.create_task(queue.release(images[:16], "a client")) for _ in range(3)]
        await asyncio.sleep(0)
        for _ in range(5):
            gone = asyncio.create_task(queue.release(images, "a client"))
            await asyncio.sleep(0.01)
            assert not gone.done()
            gone.cancel()
            await asyncio.sleep(0.01)
        assert not any(task.done() for task in ahead)
        assert (queue._images, queue._bytes) == (32, 512)  # of three requests the first is under way

    asyncio.run(scene())


def test_a_failed_batch_takes_the_rest_of_its_requests_out_of_the_queue() -> None:
    asked = []

    async def broken(requests: list[np.ndarray]) -> list[np.ndarray]:
        asked.append(len(requests))
        await asyncio.sleep(0.01)
        raise ZeroDivisionError

    async def scene() -> int:
        queue = BatchQueue(broken, max_batches=1, couples=False)
        with pytest.raises(ZeroDivisionError):
            await queue.release(np.zeros((320, *SHAPE), np.float32))
        return queue._images

    assert asyncio.run(scene()) == 0
    assert sum(asked) <= 4  # of 20 pieces


def test_a_client_under_ever_new_names_starves_nobody() -> None:
    """Six requests of ever new names wait at any time; who asks a second time would come after them all."""

    async def scene() -> Bench:
        bench = Bench(0.02)
        live: set[asyncio.Task[None]] = set()
        names = iter(range(10**6))

        def fresh() -> None:
            while len(live) < 6:
                task = asyncio.create_task(bench.ask(f"name {next(names)}", 16))
                live.add(task)
                task.add_done_callback(live.discard)

        async def honest() -> None:
            for _ in range(20):
                await bench.ask("honest", 1)

        fresh()
        asking = asyncio.create_task(honest())
        while not asking.done() and len(bench.batches) < 1500:
            fresh()
            await asyncio.sleep(0)
        asking.cancel()
        assert len(bench.queue._clients) <= batch_queue.MAX_IDLE + 8
        for task in list(live):
            task.cancel()
        return bench

    done = asyncio.run(scene()).done.get("honest", [])
    assert len(done) == 20
    assert max(b - a for a, b in itertools.pairwise(done)) <= batch_queue.LATE / 0.02 + 6


def test_overdue_whole_requests_leave_the_others_their_turns() -> None:
    """One client's requests of 256 images are all overdue; another's single images wait for two batches."""

    async def scene() -> Bench:
        bench = Bench(10.0, couples=True)
        many = [asyncio.create_task(bench.ask("many", 256)) for _ in range(8)]
        while len(bench.batches) < 3:
            await asyncio.sleep(0)
        for _ in range(2):
            await bench.ask("few", 1)
        await asyncio.gather(*many)
        return bench

    bench = asyncio.run(scene())
    assert bench.done["few"][0] <= 3 + 3  # one was under way
    assert bench.done["few"][1] <= bench.done["few"][0] + 3
