"""The HTTP server without Ray, over loopback: bounds, deadlines, fairness between clients."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from worst_bodies import SHAPE, encoded, head, images_json, npy, request

pytest.importorskip("uvicorn", reason="ray[serve] is not installed")

from running_server import NPY, ONE, ask, fetch, healthy, mean, running, send, status

from study.serving import guard, http_server
from study.serving.bounds import RequestError, byte_bound
from study.serving.budget import QueryBudget
from study.serving.door import Door


def test_right_requests(port: int) -> None:
    assert ask(port, ONE) == (200, {"released": [[0.25, 0.75]], "labels": [1]})
    many = np.random.default_rng(0).random((256, *SHAPE)).astype(np.float32)
    answer = ask(port, npy(many))[1]
    assert np.allclose(np.array(answer["released"])[:, 0], many.mean((1, 2, 3)), atol=1e-6)  # in their order
    assert len(ask(port, images_json(256), "application/json")[1]["labels"]) == 256  # type: ignore[arg-type]
    assert ask(port, encoded("PNG"), "image/png")[0] == 200
    chunked = head(NPY, None) + b"%x\r\n%s\r\n0\r\n\r\n" % (len(ONE), ONE)
    assert status(send(port, chunked)) == 200
    patient = head(NPY, len(ONE)).replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n") + ONE
    assert send(port, patient).startswith(b"HTTP/1.1 100")


def test_bodies_over_the_bound_are_refused_before_they_are_read(port: int) -> None:
    bound = byte_bound(NPY, SHAPE)
    assert status(send(port, head(NPY, bound + 1))) == 413  # before any of it is sent
    assert status(send(port, head(NPY, 10**30))) in (400, 413)
    parts = (b"%x\r\n" % 100_000 + b"x" * 100_000 + b"\r\n") * (bound // 100_000 + 2)
    assert status(send(port, head(NPY, None) + parts)) == 413  # of an endless body
    assert (
        ask(port, b"x" * (bound + 1))[0] == 413
    )  # a client that sends everything before it reads gets the answer
    tiny = b"1\r\nx\r\n" * 100_000
    assert status(send(port, head(NPY, None) + tiny)) == 400


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (head(NPY, 4).replace(b"/release", b"/other") + b"abcd", 404),
        (b"GET /release HTTP/1.1\r\nHost: a\r\n\r\n", 405),
        (b"POST /health HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", 405),
        (request("text/plain", b"hello"), 415),
        (b"POST /release HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx", 415),
        (head(NPY, 4).replace(b"\r\n\r\n", b"\r\nContent-Encoding: gzip\r\n\r\n") + b"abcd", 415),
        (head(NPY, 4).replace(b"\r\n\r\n", b"\r\nContent-Type: image/png\r\n\r\n") + b"abcd", 400),
        (head(NPY, 4).replace(b"\r\n\r\n", b"\r\nX-Request-Timeout-Seconds: \xff\r\n\r\n") + b"abcd", 422),
        (request(NPY, b""), 400),
        (b"POST /release HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", 400),
        (head(NPY, 4).replace(b"\r\n\r\n", b"\r\nContent-Length: 5\r\n\r\n") + b"abcde", 400),
        (head(NPY, 4).replace(b"\r\n\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\n") + b"0\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\nX: " + b"x" * 100_000, 400),
        (b"GET /health HTTP/1.1\r\n" + b"X: x\r\n" * 200 + b"\r\n", 400),
        (b"GET /\xff\xfe HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", 404),
        (b"\x16\x03\x01" + b"\0" * 100, 400),
        (b"GET /release HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", 405),
    ],
)
def test_what_is_no_request(port: int, data: bytes, expected: int) -> None:
    answer = send(port, data)
    assert status(answer) == expected, answer[:300]
    assert healthy(port) < 5


def test_too_many_requests_at_once(port: int) -> None:
    answer = send(port, b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n" * 1000, timeout=3)
    assert answer.count(b"HTTP/1.1 200") <= guard.MAX_PIPELINED + 1
    assert healthy(port) < 5


def test_those_who_send_one_byte_keep_nobody_out(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """300 clients stop in their body, 100 in their headers, 100 send nothing: each meets its deadline."""
    monkeypatch.setattr(http_server, "BODY_S", 3.0)
    monkeypatch.setattr(guard, "HEAD_S", 3.0)
    idle = []
    try:
        for data in [head("image/png", 1000) + b"a"] * 300 + [b"POST /rel"] * 100 + [b""] * 100:
            idle.append(socket.create_connection(("127.0.0.1", port), timeout=20))
            idle[-1].sendall(data)
        assert healthy(port) < 2
        assert ask(port, ONE)[0] == 200
        assert status(idle[0].recv(1000)) == 408
        for client in (idle[350], idle[450]):
            with contextlib.suppress(ConnectionResetError):
                assert client.recv(1000) == b""  # closed, else it would time out
    finally:
        for client in idle:
            client.close()


def test_at_the_bound_the_idlest_connection_gives_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "Connections", lambda: bounded)
    bounded = guard.Connections()
    bounded.most = 20
    with running() as port:
        idle = [socket.create_connection(("127.0.0.1", port), timeout=5) for _ in range(60)]
        try:
            assert healthy(port) < 2
            assert ask(port, ONE)[0] == 200
            assert bounded.open <= 20
        finally:
            for client in idle:
                client.close()


def test_large_bodies_share_a_bound(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two arriving bodies use up the bound: a third large one gets 503, a small one is answered."""
    monkeypatch.setattr(http_server, "MAX_HELD", 700_000)
    half = [socket.create_connection(("127.0.0.1", port), timeout=5) for _ in range(2)]
    try:
        for client in half:
            client.sendall(head(NPY, 400_000) + b"x" * 330_000)
        time.sleep(0.5)
        answer = send(port, head(NPY, 400_000) + b"x" * 399_999)
        assert status(answer) == 503
        assert b"retry-after: 1" in answer.lower()
        assert ask(port, ONE)[0] == 200
    finally:
        for client in half:
            client.close()
    time.sleep(0.3)
    assert ask(port, npy(np.zeros((256, *SHAPE))))[0] == 200  # their memory is free again


def test_health_says_what_is_wrong() -> None:
    with running(fault="no replica of the classifier is running") as port:
        until = time.monotonic() + 5
        while (answer := ask(port, b"", path="/health"))[0] == 200 and time.monotonic() < until:
            time.sleep(0.05)
        assert answer == (503, {"error": "no replica of the classifier is running"})


def test_a_classifier_that_fails_is_a_500_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    async def fails(requests: list[np.ndarray]) -> list[np.ndarray]:
        raise ZeroDivisionError("private")

    with running(fails) as port:
        assert ask(port, ONE) == (500, {"error": "internal error"})
        assert healthy(port) < 5


def test_health_answers_while_the_classifier_is_at_work_for_others() -> None:
    """Requests of clients that disconnected are not computed."""
    asked: list[int] = []
    go = threading.Event()

    async def slow(requests: list[np.ndarray]) -> list[np.ndarray]:
        asked.append(sum(map(len, requests)))
        while not go.is_set():
            await asyncio.sleep(0.01)
        return await mean(requests)

    with running(slow) as port:
        gone = []
        for _ in range(100):
            gone.append(socket.create_connection(("127.0.0.1", port), timeout=5))
            gone[-1].sendall(request(NPY, npy(np.zeros((20, *SHAPE), np.uint8))))
        time.sleep(1)
        assert healthy(port) < 2
        for client in gone:
            client.close()
        time.sleep(1)
        go.set()
        assert ask(port, ONE)[0] == 200
        assert sum(asked) < 100  # of 2000


def test_the_budget_outlives_a_restart_and_what_was_not_answered_is_given_back(tmp_path: Path) -> None:
    async def full(requests: list[np.ndarray]) -> list[np.ndarray]:
        raise RequestError(503, "no replica of the classifier is running")

    def door() -> Door:
        return Door(budget=QueryBudget(tmp_path / "q", 3))

    with running(door=door()) as port:
        status_, headers, _ = fetch(port, "/release", npy(np.zeros((2, *SHAPE))))
        assert (status_, headers["x-queries-remaining"]) == (200, "1")
        assert fetch(port, "/release", b"hello")[0] == 415  # asks nothing, costs nothing
    with running(full, door=door()) as port:
        assert fetch(port, "/release", ONE)[0] == 503
    with running(door=door()) as port:
        assert fetch(port, "/release", npy(np.zeros((2, *SHAPE))))[0] == 429
        assert fetch(port, "/release", ONE)[1]["x-queries-remaining"] == "0"
        status_, headers, body = fetch(port, "/release", ONE)
        assert (status_, headers["x-queries-remaining"], b"budget of 3" in body) == (429, "0", True)
        assert fetch(port, "/release", b"hello")[0] == 429  # with nothing left, nothing is parsed


def test_a_client_that_goes_pays_its_queries_and_nobody_pays_a_classifier_that_fails(tmp_path: Path) -> None:
    """Where the client goes vectors may have been computed; where the classifier fails none is released."""
    reached, budget = threading.Event(), QueryBudget(tmp_path / "q", 9)

    async def slow_or_broken(requests: list[np.ndarray]) -> list[np.ndarray]:
        reached.set()
        await asyncio.sleep(1)
        raise ZeroDivisionError

    with running(slow_or_broken, door=Door(budget=budget)) as port:
        assert fetch(port, "/release", ONE)[0] == 500
        assert budget.spend("from 127.0.0.1", 1).left == 8
        reached.clear()
        with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
            client.sendall(request(NPY, ONE))
            assert reached.wait(5)
        time.sleep(0.3)
        assert budget.spend("from 127.0.0.1", 1).left == 6  # its own, the one that went, and this one


def test_what_a_body_is_is_known_by_its_first_bytes_however_they_come(port: int) -> None:
    chunked = head("text/plain", None) + b"".join(b"1\r\n%c\r\n" % byte for byte in ONE[:40])
    assert status(send(port, chunked + b"%x\r\n%s\r\n0\r\n\r\n" % (len(ONE) - 40, ONE[40:]))) == 200
    png_bound = byte_bound("image/png", SHAPE)
    long = head("text/plain", png_bound + 1) + encoded("PNG") + b"x" * 600
    assert status(send(port, long)) == 413  # a picture is not as long, as soon as it is known for one
