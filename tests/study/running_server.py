"""An HTTP server with a stand-in for the classifier, and clients of it."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from worst_bodies import SHAPE, npy

from study.serving.batch_queue import Answer
from study.serving.http_server import HttpServer

ONE = npy(np.full((1, *SHAPE), 0.25, np.float32))
NPY = "application/x-npy"


async def mean(requests: list[np.ndarray]) -> list[np.ndarray]:
    """Stands in for the classifier: two numbers an image."""
    return [np.stack([x.mean((1, 2, 3)), 1 - x.mean((1, 2, 3))], 1) for x in requests]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(answer: Answer = mean, fault: str = "", **terms: Any) -> Iterator[int]:
    """Run a server and yield its port. ``terms``: resize, label, door."""
    port = free_port()
    server = HttpServer(
        "127.0.0.1", port, image_shape=SHAPE, n_classes=2, couples=False, max_batches=1, **terms
    )
    try:
        server.start(answer, lambda: fault)
        yield port
    finally:
        server.stop(2)


def ask(port: int, body: bytes, kind: str = NPY, path: str = "/release") -> tuple[int, dict[str, object]]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request("POST" if path == "/release" else "GET", path, body, {"Content-Type": kind})
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def fetch(
    port: int, path: str, body: bytes | None = None, **headers: str
) -> tuple[int, dict[str, str], bytes]:
    """Status, headers (lower case) and body of an answer; POST if there is a body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request("GET" if body is None else "POST", path, body, sent)
        response = connection.getresponse()
        return response.status, {k.lower(): v for k, v in response.getheaders()}, response.read()
    finally:
        connection.close()


def send(port: int, data: bytes, timeout: float = 20) -> bytes:
    """Send bytes; return the answer until the server closes the connection or the timeout."""
    with socket.create_connection(("127.0.0.1", port), timeout=timeout) as client:
        out = b""
        try:
            client.sendall(data)
            while part := client.recv(65536):
                out += part
                if b"\r\n\r\n" in out and out.endswith(b"}"):
                    break
        except OSError:
            pass
        return out


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1]) if answer else 0


def healthy(port: int) -> float:
    """Seconds until /health answered."""
    began = time.monotonic()
    assert ask(port, b"", path="/health") == (
        200,
        {"status": "ok", "image_shape": [1, 16, 16], "n_classes": 2},
    )
    return time.monotonic() - began
