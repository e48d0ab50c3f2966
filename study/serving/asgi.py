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


DIGITS = (9, 8, 7, 6)
"""Digits with which numbers are written where they are read as the same float32; the last that will do."""
EXACT = 22
"""Powers of ten up to this one are exact in float64."""
_TENS = np.array([float(f"1e{k}") for k in range(64)])


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

    With as few digits as that takes, six at least: 0.03 is written so, not as 0.029999999329447746. Below
    1e-13 some get more.
    """
    wide_NK = c_NK.astype(np.float64)
    place_NK = np.floor(np.log10(np.where(wide_NK == 0, 1.0, np.abs(wide_NK)))).astype(int)
    out_NK = wide_NK
    for digits in DIGITS:
        # Two factors, as far as they go exact ones: a quotient of these is the float64 next to the decimal.
        shift_NK = digits - 1 - place_NK
        first_NK, second_NK = _TENS[shift_NK.clip(0, EXACT)], _TENS[(shift_NK - EXACT).clip(0)]
        short_NK = (wide_NK * first_NK * second_NK).round() / first_NK / second_NK
        out_NK = np.where(short_NK.astype(np.float32) == c_NK, short_NK, out_NK)
    rows: list[list[float]] = out_NK.tolist()
    return rows
