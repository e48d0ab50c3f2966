"""Connections of clients that stop halfway, do not read, or offer another protocol."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Iterator

import numpy as np
import pytest
from worst_bodies import SHAPE, head, npy, request

pytest.importorskip("uvicorn", reason="ray[serve] is not installed")

from running_server import NPY, ONE, ask, healthy, mean, running, send, status

from study.serving import guard, http_server

HEALTH = b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n"
OFFER = b"\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n"
PART = head(NPY, 1000) + b"x"
MOST = 12


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with running() as number:
        yield number


@pytest.fixture
def bounded(monkeypatch: pytest.MonkeyPatch) -> guard.Connections:
    """The connections of the next server: a few at once."""
    connections = guard.Connections()
    connections.most = MOST
    monkeypatch.setattr(http_server, "Connections", lambda: connections)
    return connections


@pytest.fixture
def small_buffers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make send buffers small: only a few KB of an answer fit if its client does not read."""
    listening = http_server.listening

    def small(host: str, port: int) -> socket.socket:
        listener = listening(host, port)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        return listener

    monkeypatch.setattr(http_server, "listening", small)


def connected(port: int, data: bytes, *, taking: int | None = None) -> socket.socket:
    """A client that has sent these bytes and has a receive buffer of about this size."""
    client = socket.socket()
    if taking is not None:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, taking)
    client.settimeout(10)
    client.connect(("127.0.0.1", port))
    client.sendall(data)
    return client


def read_all(client: socket.socket) -> bytes:
    out = b""
    with client, contextlib.suppress(ConnectionResetError):
        while part := client.recv(65536):
            out += part
    return out


async def wide(requests: list[np.ndarray]) -> list[np.ndarray]:
    """A hundred classes: some 150 KB for 256 images."""
    return [np.full((len(x_NCHW), 100), 0.25) for x_NCHW in requests]


MANY = request(NPY, npy(np.zeros((256, *SHAPE), np.uint8)))


@pytest.mark.parametrize(
    "data",
    [
        b"", PART, HEALTH, HEALTH + b"POST /rel", HEALTH + PART, HEALTH + HEALTH + PART, HEALTH + PART + PART,
        HEALTH + head(NPY, None) + b"5\r\nabc", request(NPY, b"abc") + PART, request(NPY, ONE) + PART,
        HEALTH + head("text/plain", 1000) + b"x", head(NPY, 1000).replace(b"\r\n\r\n", OFFER) + b"x",
        HEALTH + HEALTH.replace(b"\r\n\r\n", OFFER) + PART, HEALTH + b"\0",
    ],
)  # fmt: skip
def test_who_waits_for_its_client_gives_way(data: bytes, bounded: guard.Connections) -> None:
    """After valid requests and errors the client sends an incomplete request."""
    with running() as port:
        idle = [connected(port, data) for _ in range(MOST)]
        try:
            time.sleep(0.4)  # complete requests are answered, errors after their pause
            idle += [connected(port, b"") for _ in range(MOST)]
            assert healthy(port) < 2
            assert ask(port, ONE)[0] == 200
            assert bounded.open <= MOST
        finally:
            for client in idle:
                client.close()


@pytest.mark.parametrize("data", [MANY.replace(b"Host: a", b"Connection: close"), MANY, MANY + MANY])
@pytest.mark.usefixtures("small_buffers")
def test_who_does_not_read_gives_way(data: bytes, bounded: guard.Connections) -> None:
    with running(wide) as port:
        idle = [connected(port, data, taking=2048) for _ in range(MOST)]
        try:
            time.sleep(1)
            assert healthy(port) < 2
            assert bounded.open <= MOST
        finally:
            for client in idle:
                client.close()


@pytest.mark.usefixtures("small_buffers")
def test_an_answer_is_taken_at_some_pace(bounded: guard.Connections, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that reads nothing is cut off although the server has closed; a slow one gets everything."""
    monkeypatch.setattr(guard, "TAKE_S", 0.6)
    last = MANY.replace(b"Host: a", b"Connection: close")
    with running(wide) as port:
        with connected(port, last, taking=2048), connected(port, MANY, taking=2048):
            until = time.monotonic() + 5
            time.sleep(0.3)
            assert bounded.open == 2
            while bounded.open and time.monotonic() < until:
                time.sleep(0.05)
            assert bounded.open == 0
        with connected(port, last, taking=2048) as slow:
            out = b""
            while part := slow.recv(2048):
                out += part
                time.sleep(0.02)
        assert out.endswith(b"}")
        assert len(out) > 150_000


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (request(NPY, ONE), [200]), (HEALTH, [200]), (HEALTH + request(NPY, ONE), [200, 200]),
        (head(NPY, None) + b"%x\r\n%s\r\n0\r\n\r\n" % (len(ONE), ONE), [200]),
        (request(NPY, ONE).replace(b"HTTP/1.1", b"HTTP/1.0"), [200]), (request(NPY, b"abc"), [422]),
        (request(NPY, ONE).replace(b"/release", b"/other"), [404]), (HEALTH + PART, [200]), (PART, []),
        (b"GET /hea", []), (b"", []), (HEALTH + b"GET /hea", [200]),
    ],
)  # fmt: skip
def test_who_sends_no_more_is_answered_what_it_asked(port: int, data: bytes, expected: list[int]) -> None:
    client = connected(port, data)
    client.shutdown(socket.SHUT_WR)
    began = time.monotonic()
    answers = read_all(client)
    assert [int(line[:3]) for line in answers.split(b"HTTP/1.1 ")[1:]] == expected
    assert time.monotonic() - began < 3  # and then it is closed


def test_who_sends_no_more_is_answered_even_late() -> None:
    """Interim responses distinguish it from clients that disconnected (see ``test_http_server``)."""

    async def slow(requests: list[np.ndarray]) -> list[np.ndarray]:
        await asyncio.sleep(0.6)
        return await mean(requests)

    with running(slow) as port:
        for version in (b"1.1", b"1.0"):
            client = connected(port, request(NPY, ONE).replace(b"HTTP/1.1", b"HTTP/" + version))
            client.shutdown(socket.SHUT_WR)
            *interim, last = read_all(client).split(b"HTTP/1.1 ")[1:]
            assert interim == ([b"100 Continue\r\n\r\n"] * 2 if version == b"1.1" else [])
            assert last.startswith(b"200")


@pytest.mark.parametrize(
    "offer", [OFFER, OFFER.replace(b"h2c", b"websocket"), OFFER.replace(b", ", b",close,")]
)
def test_offers_of_another_protocol_are_not_taken(port: int, offer: bytes) -> None:
    chunked = head(NPY, None).replace(b"\r\n\r\n", offer) + b"%x\r\n%s\r\n0\r\n\r\n" % (len(ONE), ONE)
    for data in (
        request(NPY, ONE).replace(b"\r\n\r\n", offer, 1),
        chunked,
        HEALTH.replace(b"\r\n\r\n", offer),
    ):
        assert status(send(port, data)) == 200
    assert status(send(port, head(NPY, 10**9).replace(b"\r\n\r\n", offer))) == 413
    twice = head(NPY, 4).replace(b"\r\n\r\n", b"\r\nContent-Length: 5" + offer) + b"abcde"
    assert status(send(port, twice)) == 400
    parts = [HEALTH.replace(b"\r\n\r\n", offer), HEALTH.replace(b"Host", b"Connection: close\r\nHost")]
    answers = read_all(connected(port, b"".join(parts)))
    assert answers.count(b"HTTP/1.1 200") == (1 if b"close" in offer else 2)


def test_a_body_in_pieces_after_an_offer(port: int) -> None:
    data = request(NPY, ONE).replace(b"\r\n\r\n", OFFER, 1)
    with connected(port, data[:40]) as client:
        for start in range(40, len(data), 200):
            time.sleep(0.02)
            client.sendall(data[start : start + 200])
        assert status(client.recv(1000)) == 200


def test_no_tunnel(port: int) -> None:
    assert status(send(port, b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\nabc", timeout=3)) in (400, 404, 405)
    assert healthy(port) < 2
