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
