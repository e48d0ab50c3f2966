"""Headers, parts of a body, and clients that disconnect."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import numpy as np
import pytest

from study.serving.asgi import (
    Gone,
    Reply,
    header,
    json_reply,
    part_of_body,
    plain_rows,
    send_reply,
    while_there,
)  # fmt: skip
from study.serving.bounds import RequestError


def test_headers() -> None:
    scope = {"headers": [(b"a", b" x "), (b"b", b"1"), (b"b", b"2")]}
    assert header(scope, b"a") == "x"
    assert header(scope, b"c") == ""
    with pytest.raises(RequestError, match="b was sent 2 times"):
        header(scope, b"b")


def test_vectors_are_written_short_and_read_as_they_were() -> None:
    rng = np.random.default_rng(0)
    for alpha in (0.01, 1.0):  # with scores down to 1e-40
        c_NK = rng.dirichlet(np.full(10, alpha), 300).astype(np.float32)
        read = json.loads(json.dumps(plain_rows(c_NK)))
        assert np.array_equal(np.array(read).astype(np.float32), c_NK)
        for written, number in zip(np.ravel(plain_rows(c_NK)), c_NK.ravel(), strict=True):
            if number >= 1e-13:
                assert len(repr(float(written))) <= max(len(repr(float(str(number)))), 8)
    assert json.dumps(plain_rows(np.array([[0.0035112344, 0.009541231]], np.float32))) == (
        "[[0.0035112344, 0.009541231]]"
    )
    grid_NK = np.array([[0.03, 0.14, 0.83], [0.0, 1.0, 0.123456]], np.float32)
    assert json.dumps(plain_rows(grid_NK)) == "[[0.03, 0.14, 0.83], [0.0, 1.0, 0.123456]]"
    assert plain_rows(np.zeros((0, 3), np.float32)) == []


def test_an_answer_has_its_length() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(send_reply(send, 200, json_reply({"a": "ä"}, [(b"x-y", b"z")])))
    assert dict(sent[0]["headers"])[b"content-length"] == str(len(sent[1]["body"])).encode()
    assert dict(sent[0]["headers"])[b"x-y"] == b"z"
    assert Reply(b"").content_type == b"application/json"


def test_work_ends_when_its_client_goes() -> None:
    ended: list[str] = []

    async def work(seconds: float) -> str:
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise
        return "done"

    async def stays() -> Any:
        await asyncio.sleep(10)

    async def goes() -> Any:
        return {"type": "http.disconnect"}

    async def scene() -> None:
        assert await while_there(stays, work(0)) == "done"
        with pytest.raises(Gone):
            await while_there(goes, work(10))
        with pytest.raises(Gone):
            await part_of_body(goes)
        await asyncio.sleep(0)

    asyncio.run(scene())
    assert ended == ["cancelled"]
