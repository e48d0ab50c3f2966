"""Small helpers of ASGI: parts of a body, headers, answers, and clients that disconnect."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from starlette.types import Receive, Scope, Send

from study.serving.bounds import RequestError

JSON = b"application/json"
T = TypeVar("T")


SHORTER = (9, 6)
"""Decimals to which numbers are written where they are read as the same float32; the last that will do."""


class Gone(Exception):
    """The client disconnected."""


@dataclass(frozen=True)
class Reply:
    """An answer: body, its content type, and further headers."""

    body: bytes
    content_type: bytes = JSON
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)


def json_reply(answer: Any, headers: list[tuple[bytes, bytes]] | None = None) -> Reply:
    """An answer in JSON."""
    return Reply(json.dumps(answer).encode(), JSON, headers or [])


async def while_there(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """The result of the work; cancelled if the client disconnects before it is there.

    Raises:
        Gone: it disconnected.
    """
    working, gone = asyncio.ensure_future(work), asyncio.ensure_future(receive())
    try:
        await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise Gone
    finally:
        working.cancel()
        gone.cancel()


async def part_of_body(receive: Receive) -> tuple[bytes, bool]:
    """The next bytes of a body, and whether more follow.

    Raises:
        Gone: the client disconnected.
    """
    message = await receive()
    if message["type"] != "http.request":
        raise Gone
    return message.get("body", b""), message.get("more_body", False)


async def send_reply(send: Send, status: int, reply: Reply, more: bool = False) -> None:
    """Send an answer. ``more``: the caller ends it later, with an empty part."""
    start = [
        (b"content-type", reply.content_type),
        (b"content-length", str(len(reply.body)).encode()),
        *reply.headers,
    ]
    await send({"type": "http.response.start", "status": status, "headers": start})
    await send({"type": "http.response.body", "body": reply.body, "more_body": more})


def header(scope: Scope, name: bytes) -> str:
    """A header's value; '' if it is missing.

    Raises:
        RequestError: 400 if it was sent more than once.
    """
    found = [value for key, value in scope["headers"] if key == name]
    if len(found) > 1:
        raise RequestError(400, f"{name.decode()} was sent {len(found)} times")
    return found[0].decode("latin-1").strip() if found else ""


def plain_rows(c_NK: np.ndarray) -> list[list[float]]:
    """Vectors (N, K), float32, for JSON. Each number is the same float32 when it is read.

    0.03 is written so, not as 0.029999999329447746.
    """
    out_NK = c_NK.astype(np.float64)
    for decimals in SHORTER:
        short_NK = out_NK.round(decimals)
        out_NK = np.where(short_NK.astype(np.float32) == c_NK, short_NK, out_NK)
    rows: list[list[float]] = out_NK.tolist()
    return rows
