"""Clients with the worst bodies that we can think of, for a bounded time, on loopback: a process of its own.

``python worst_bodies.py PORT SECONDS CLIENTS`` prints how often each status was answered, as JSON. Images are
(1, 16, 16).
"""

from __future__ import annotations

import asyncio
import io
import json
import struct
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable

import numpy as np
from PIL import Image

SHAPE = (1, 16, 16)
MOST = 256
ADDRESS = "127.0.0.2"
"""Theirs: the server counts what waits by address, and refuses a client that has too much of its own."""
PIXELS = np.random.default_rng(0).integers(0, 256, SHAPE[1:], np.uint8)


def encoded(kind: str) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(PIXELS).save(sink, kind)
    return sink.getvalue()


def npy(array: np.ndarray) -> bytes:
    sink = io.BytesIO()
    np.save(sink, array)
    return sink.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_with(extra: bytes) -> bytes:
    """A right PNG with chunks put in after its header."""
    png = encoded("PNG")
    return png[:33] + extra + png[33:]


def bombs() -> bytes:
    """Chunks that unpack to a megabyte each: text, and colour profiles."""
    packed = zlib.compress(b"\0" * 1_000_000, 9)
    return b"".join(
        [chunk(b"zTXt", b"k\0\0" + packed) + chunk(b"iCCP", b"k\0\0" + packed) for _ in range(25)]
    )


def images_json(n: int) -> bytes:
    return json.dumps({"images": np.random.default_rng(1).random((n, *SHAPE)).tolist()}).encode()


def head(kind: str, length: int | None) -> bytes:
    size = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    return f"POST /release HTTP/1.1\r\nHost: a\r\nContent-Type: {kind}\r\n{size}\r\n\r\n".encode()


def request(kind: str, body: bytes) -> bytes:
    return head(kind, len(body)) + body


def whole() -> dict[str, bytes]:
    """Requests that are sent as they are."""
    jpeg = encoded("JPEG")
    huge = b"1" * 4000
    return {
        "json: lists": request("application/json", b'{"images":[' + b"[]," * 500_000 + b"[]]}"),
        "json: lists within the bound": request("application/json", b'{"images":[' + b"[]," * 4000 + b"[]]}"),
        "json: 256 images": request("application/json", images_json(MOST)),
        "json: deep": request("application/json", b'{"images":' + b"[" * 4000),
        "json: huge numbers": request("application/json", b'{"images":[' + (huge + b",") * 400 + b"1]}"),
        "json: spaces": request("application/json", b'{"images":' + b" " * 1_500_000 + b"[]}"),
        "npy: 256 images": request("application/x-npy", npy(np.full((MOST, *SHAPE), 0.5, np.float64))),
        "npy: subnormal": request("application/x-npy", npy(np.full((MOST, *SHAPE), 1e-40, np.float32))),
        "npy: brackets": request(
            "application/x-npy", b"\x93NUMPY\1\0" + struct.pack("<H", 9000) + b"(" * 9000
        ),
        "png: bombs": request("image/png", png_with(bombs())),
        "png: empty chunks": request("image/png", png_with(chunk(b"tEXt", b"") * 5000)),
        "png: 50000 x 50000": request(
            "image/png", png_with(b"").replace(PNG_SIZE, struct.pack(">II", 50_000, 50_000))
        ),
        "jpeg: segments": request("image/jpeg", jpeg[:2] + b"\xff\xe1\0\2" * 15_000 + jpeg[2:]),
        "jpeg: fill bytes": request("image/jpeg", jpeg[:2] + b"\xff" * 60_000 + jpeg[2:]),
        "ppm": request("image/png", b"P5\n#" + b"x" * 60_000 + b"\n16 16\n255\n" + b"\0" * 256),
        "one byte chunks": head("application/json", None) + b"1\r\n[\r\n" * 200_000 + b"0\r\n\r\n",
        "a gigabyte promised": head("application/json", 10**9) + b"[" * 1_000_000,
        "headers without end": b"GET /health HTTP/1.1\r\nX: " + b"x" * 1_000_000,
        "a thousand at once": b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n" * 1000,
        "no HTTP": b"\x16\x03\x01" + b"\0" * 1000,
        "another path": request("image/png", b"").replace(b"/release", b"/\xff\xfe%00"),
        "valid": request("image/png", encoded("PNG")),
    }


PNG_SIZE = struct.pack(">II", 16, 16)
SLOW = {"one byte": head("image/png", 1000) + b"a", "half a header": b"POST /release HTTP/1.1\r\nHo"}
"""Sent, and then nothing more for a while."""


async def one(port: int, name: str, data: bytes, until: float, seen: Counter[str]) -> None:
    """One request, its answer's status; a new connection each."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(ADDRESS, 0))
    except OSError:
        seen["refused"] += 1
        await asyncio.sleep(0.05)
        return
    try:
        async with asyncio.timeout(max(0.1, min(until - time.monotonic(), 30))):
            writer.write(data)
            if name in SLOW:
                await asyncio.sleep(3)
                seen["left"] += 1
                return
            line = await reader.readline()
            while line.startswith(b"HTTP/1.1 100"):
                line = await reader.readline()
            seen[f"{name}: {line[9:12].decode() or 'closed'}"] += 1
    except TimeoutError:
        seen["unanswered at the end"] += 1
    except OSError:
        seen[f"{name}: closed"] += 1
    finally:
        writer.transport.abort()


async def client(number: int, port: int, until: float, bodies: dict[str, bytes], seen: Counter[str]) -> None:
    names = [*bodies]
    while time.monotonic() < until:
        name = names[number % len(names)]
        number += 7
        await one(port, name, bodies[name], until, seen)


async def attack(port: int, seconds: float, clients: int, choose: Callable[[str], bool]) -> Counter[str]:
    bodies = {name: data for name, data in (whole() | SLOW).items() if choose(name)}
    seen: Counter[str] = Counter()
    until = time.monotonic() + seconds
    await asyncio.gather(*(client(i, port, until, bodies, seen) for i in range(clients)))
    return seen


if __name__ == "__main__":
    port, seconds, clients = int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
    only = sys.argv[4:]
    found = asyncio.run(attack(port, seconds, clients, lambda name: not only or name in only))
    print(json.dumps(dict(sorted(found.items()))))
