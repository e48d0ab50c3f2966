"""Who reads what was sent: processes that may die, without torch."""

from __future__ import annotations

import asyncio
import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from worst_bodies import images_json, npy

from study.serving import readers
from study.serving.readers import Readers
from study.serving.request_parsing import Images, RequestError, read_request
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


def form(*parts: bytes) -> tuple[str, bytes]:
    lines = b"".join(b'--b\r\nContent-Disposition: form-data; name="f"\r\n\r\n%s\r\n' % p for p in parts)
    return "multipart/form-data; boundary=b", lines + b"--b--\r\n"


def one_bit(side: int) -> bytes:
    sink = io.BytesIO()
    Image.new("1", (side, side)).save(sink, "PNG")
    return sink.getvalue()


def test_only_arrays_and_json_are_read_in_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """A form of 60 one-bit pictures of 224x224 has 16 KiB: decoding it here would let nobody else in."""
    shape = (3, 224, 224)
    bodies = [form(*[one_bit(224)] * 60), ("image/png", one_bit(224)), ("", one_bit(224))]
    assert all(len(body) <= readers.INLINE for _, body in bodies)
    here: list[int] = []

    def watched(content_type: str, body: bytes, *terms: Any) -> Images:
        here.append(len(body))
        return read_request(content_type, body, *terms)

    async def passed_on(content_type: str, body: bytes) -> Images:
        return Images(np.zeros((1, *shape)), [None])

    async def scene() -> None:
        pool = Readers(shape)
        monkeypatch.setattr(readers, "read_request", watched)
        for reader in (pool._medium, pool._large):
            monkeypatch.setattr(reader, "read", passed_on)
        for content_type, body in bodies:
            await pool.read(content_type, body)
        assert here == []
        array = npy(np.zeros(SHAPE, np.uint8))
        with pytest.raises(RequestError, match="of shape"):
            await pool.read("application/x-npy", array)
        assert here == [len(array)]
        pool.close()

    asyncio.run(scene())


def test_nobody_waits_for_those_who_came_later() -> None:
    """A large body is read before smaller ones that arrive while it waits."""

    async def scene() -> list[str]:
        reader = readers._Reader(SHAPE, None)
        order: list[str] = []

        async def turn(name: str, size: int) -> None:
            await reader._turn(size)
            order.append(name)
            await asyncio.sleep(0)
            reader._next()

        try:
            await reader._turn(1)
            waiting = [asyncio.create_task(turn("large", 9000))]
            waiting += [asyncio.create_task(turn(f"small {i}", 10)) for i in range(3)]
            await asyncio.sleep(0)
            reader._next()
            await asyncio.gather(*waiting)
        finally:
            reader.close()
        return order

    assert asyncio.run(scene()) == ["large", "small 0", "small 1", "small 2"]


def test_costly_bodies_have_a_process_of_their_own() -> None:
    async def scene() -> list[str]:
        pool = Readers((1, 16, 16), "bilinear")
        taken: list[str] = []

        async def medium(content_type: str, body: bytes) -> None:
            taken.append("medium")

        async def large(content_type: str, body: bytes) -> None:
            taken.append("large")

        pool._medium.read, pool._large.read = medium, large  # type: ignore[method-assign, assignment]
        await pool.read("", one_bit(16))
        await pool.read("", one_bit(1000))  # few bytes, a million pixels
        await pool.read(*form(one_bit(16)))
        await pool.read("application/json", images_json(20))
        await pool.read("application/json", images_json(256))
        pool.close()
        return taken

    assert asyncio.run(scene()) == ["medium", "large", "large", "medium", "large"]


def test_the_processes_do_not_know_the_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIPOISON_SECRET", "sixteen bytes or more")
    monkeypatch.setenv("MIPOISON_API_KEYS", "a:b")

    async def scene() -> bytes:
        pool = Readers(SHAPE)
        try:
            await pool.warm()
            (process,) = (pool._medium._pool._processes or {}).values()
            return Path(f"/proc/{process.pid}/environ").read_bytes()
        finally:
            pool.close()

    found = asyncio.run(scene())
    assert b"PATH=" in found
    assert b"MIPOISON_SECRET" not in found
    assert b"MIPOISON_API_KEYS" not in found


def test_readers_do_without_torch() -> None:
    """What a reader's process imports: the server's own file, and what reads bodies."""
    code = "import sys, study.serve, study.serving.readers; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
