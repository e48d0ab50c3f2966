"""Who reads what was sent: processes that may die, without torch."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest
from worst_bodies import images_json

from study.serving import readers
from study.serving.readers import Readers
from study.serving.request_parsing import RequestError
from tests.study.serving.test_batch_queue import SHAPE


def test_a_reader_that_dies_is_replaced() -> None:
    body = images_json(20)
    assert readers.INLINE < len(body) < readers.LARGE

    async def scene() -> None:
        pool = Readers(SHAPE)
        await pool.warm()
        try:
            for process in (pool._medium._pool._processes or {}).values():
                process.kill()
            with pytest.raises(RequestError, match="could not be read"):
                await pool.read("application/json", body)
            assert (await pool.read("application/json", body)).x_NCHW.shape == (20, *SHAPE)
        finally:
            pool.close()

    asyncio.run(scene())


def test_readers_do_without_torch() -> None:
    """What a reader's process imports: the server's own file, and what reads bodies."""
    code = "import sys, study.serve, study.serving.readers; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
