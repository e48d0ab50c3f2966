"""The HTTP server of the protected classifier. It bounds the time and memory that a request may take.

It is uvicorn in a thread of the main process and replaces Ray Serve's proxy, which reads bodies of any length
and pace into its memory, passes every request on to a replica, and lets the client's headers set deadlines.
Shape suffixes: N images, K classes, CHW image.
"""

from __future__ import annotations

import _thread
import asyncio
import contextlib
import gc
import json
import logging
import socket
import sys
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import uvicorn
import uvloop
from starlette.types import Receive, Scope, Send

from mipoison.config import ConfigError
from study.serving.batch_queue import Answer, BatchQueue
from study.serving.guard import Connections, guarded
from study.serving.readers import Readers
from study.serving.request_parsing import RequestError, Shape, byte_bound, content_kind, too_many_bytes

log = logging.getLogger(__name__)

BODY_S = 10.0
"""How long a body may take to arrive."""
RELEASE_S = 60.0
"""How long a request may wait for its released vectors."""
MAX_HELD = 64 * 2**20
"""Most bytes of arriving bodies that are held at once, not counting the first ``SMALL`` of each."""
SMALL = 16 * 2**10
"""Bytes of a body that are always accepted."""
CALM = 8
"""While no more requests than this are under way, errors are answered at once."""
PAUSE_S = 0.25
"""Otherwise errors are answered after this pause, so that a flood of bad requests leaves time for others."""
LINGER_S = 1.0
"""How long the rest of a refused body is read and dropped: many clients read no answer before they have sent
all."""
START_S = 30.0
ROUTES = {"/health": "GET", "/release": "POST"}


class HttpServer:
    """The server: ``POST /release`` answers images with released vectors, ``GET /health`` reports its state.

    Args:
        host, port: where to listen.
        image_shape: (C, H, W). n_classes: K. couples: see ``mipoison.protocols.Defense``.
        max_batches: batches under way at once: the number of replicas.

    Raises:
        ConfigError: the port is taken or not permitted.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        image_shape: Shape,
        n_classes: int,
        couples: bool,
        max_batches: int,
    ) -> None:
        self._shape, self._n_classes, self._couples, self._max_batches = (
            image_shape,
            n_classes,
            couples,
            max_batches,
        )
        self._held = self._under_way = 0
        self._fault = ""
        self._stopping = False
        self._ready = threading.Event()
        self._socket = _listening(host, port)
        config = uvicorn.Config(
            self._app, interface="asgi3", http=guarded(Connections()), ws="none", lifespan="off",
            log_config=None, log_level="critical", access_log=False, proxy_headers=False, server_header=False,
        )  # fmt: skip
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._serve, name="http", daemon=True)

    def start(self, answer: Answer, fault: Callable[[], str]) -> None:
        """Start the server; return when it answers requests.

        Args:
            answer: returns released vectors for the images of several requests.
            fault: returns what is wrong with the classifier, '' if nothing; called every two seconds in a
                thread.

        Raises:
            TimeoutError: it did not start in time.
        """
        self._readers = Readers(self._shape)
        self._queue = BatchQueue(answer, max_batches=self._max_batches, couples=self._couples)
        self._ask = fault
        sys.setswitchinterval(0.001)  # the server's thread and Ray's threads alternate for every request
        gc.collect()
        gc.freeze()  # exempt loaded modules from garbage collection, which would pause all requests
        self._thread.start()
        if not self._ready.wait(START_S):
            raise TimeoutError(f"the HTTP server did not start within {START_S:.0f} s")

    def stop(self, patience_s: float) -> None:
        """Accept no more requests, answer those under way for at most ``patience_s``, and end."""
        self._stopping = True
        self._server.config.timeout_graceful_shutdown = max(1, int(patience_s))
        self._server.should_exit = True
        if self._thread.is_alive():
            self._thread.join(patience_s + 2)
            self._readers.close()
        self._socket.close()

    def _serve(self) -> None:
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(self._main())
        except Exception:
            log.exception("the HTTP server failed")
        if not self._stopping:
            _thread.interrupt_main()  # the server is dead: end the process as Ctrl-C does

    async def _main(self) -> None:
        await self._readers.warm()
        watching = asyncio.create_task(self._watch())
        serving = asyncio.create_task(self._server.serve(sockets=[self._socket]))
        while not self._server.started and not serving.done():
            await asyncio.sleep(0.02)
        self._ready.set()
        await serving
        watching.cancel()

    async def _watch(self) -> None:
        while True:
            try:
                self._fault = await asyncio.to_thread(self._ask)
            except Exception as error:
                self._fault = f"the classifier's state is unknown ({type(error).__name__})"
            await asyncio.sleep(2)

    # --------------------------------------------------------------------------------------- one request

    async def _app(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._under_way += 1
        try:
            await self._respond(scope, receive, send)
        except (_Gone, asyncio.CancelledError):
            pass
        finally:
            self._under_way -= 1

    async def _respond(self, scope: Scope, receive: Receive, send: Send) -> None:
        whole = [False]  # whether the whole body was read
        try:
            answer = await self._answer(scope, receive, whole)
        except RequestError as error:
            await self._refuse(error, receive, send, whole[0])
        except (_Gone, asyncio.CancelledError):
            raise
        except Exception:  # log it and keep serving
            log.exception("a request failed")
            await self._refuse(RequestError(500, "internal error"), receive, send, whole[0])
        else:
            await _send(send, 200, answer, [])

    async def _refuse(self, error: RequestError, receive: Receive, send: Send, whole: bool) -> None:
        if crowded := self._under_way > CALM:
            await asyncio.sleep(PAUSE_S)
        headers = [(b"retry-after", b"1")] if error.status == 503 else []
        if whole:
            await _send(send, error.status, {"error": str(error)}, headers)
            return
        await _send(
            send, error.status, {"error": str(error)}, [*headers, (b"connection", b"close")], more=True
        )
        if not crowded:
            with contextlib.suppress(_Gone, TimeoutError):
                async with asyncio.timeout(LINGER_S):
                    while (await _part(receive))[1]:
                        pass
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _answer(self, scope: Scope, receive: Receive, whole: list[bool]) -> dict[str, Any]:
        route = ROUTES.get(scope["path"])
        if route is None:
            raise RequestError(404, "no such path; POST /release or GET /health")
        if scope["method"] != route:
            raise RequestError(405, f"{scope['path']} takes {route}")
        if route == "GET":
            return self._health()
        kind = content_kind(_header(scope, b"content-type"))
        if (encoding := _header(scope, b"content-encoding")) not in ("", "identity"):
            raise RequestError(415, f"content encoding {encoding[:40]!r}: send the body as it is")
        content_type = _header(scope, b"content-type")
        body = await self._body(kind, _header(scope, b"content-length"), receive)
        whole[0] = True
        return await _while_there(receive, self._released(content_type, body))

    async def _released(self, content_type: str, body: bytes) -> dict[str, Any]:
        x_NCHW = await self._readers.read(content_type, body)
        try:
            async with asyncio.timeout(RELEASE_S):
                c_NK = await self._queue.release(x_NCHW)
        except TimeoutError as error:
            raise RequestError(503, f"not answered within {RELEASE_S:.0f} s") from error
        return {"released": c_NK.tolist(), "labels": c_NK.argmax(1).tolist()}

    def _health(self) -> dict[str, Any]:
        if self._fault:
            raise RequestError(503, self._fault)
        return {"status": "ok", "image_shape": list(self._shape), "n_classes": self._n_classes}

    async def _body(self, kind: str, length: str, receive: Receive) -> bytes:
        """Read a request's body, at most as many bytes as its content type may have, within the deadline."""
        bound = byte_bound(kind, self._shape)
        if length.isdecimal() and (len(length) > 19 or int(length) > bound):
            raise too_many_bytes(kind, self._shape)
        body, held = bytearray(), 0
        try:
            async with asyncio.timeout(BODY_S):
                more = True
                while more:
                    part, more = await _part(receive)
                    body += part
                    if len(body) > bound:
                        raise too_many_bytes(kind, self._shape)
                    self._held += (new := max(0, len(body) - SMALL - held))
                    held += new
                    if self._held > MAX_HELD:
                        raise RequestError(503, "too many large bodies at once; try again in a second")
        except TimeoutError as error:
            raise RequestError(408, f"the body did not arrive within {BODY_S:.0f} s") from error
        finally:
            self._held -= held
        return bytes(body)


class _Gone(Exception):
    """The client disconnected."""


async def _while_there(receive: Receive, work: Coroutine[Any, Any, dict[str, Any]]) -> dict[str, Any]:
    """The result of the work; cancelled if the client disconnects before it is there."""
    working, gone = asyncio.ensure_future(work), asyncio.ensure_future(receive())
    try:
        await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise _Gone
    finally:
        working.cancel()
        gone.cancel()


async def _part(receive: Receive) -> tuple[bytes, bool]:
    """The next bytes of a body, and whether more follow."""
    message = await receive()
    if message["type"] != "http.request":
        raise _Gone
    return message.get("body", b""), message.get("more_body", False)


async def _send(
    send: Send,
    status: int,
    answer: dict[str, Any],
    headers: list[tuple[bytes, bytes]],
    more: bool = False,
) -> None:
    body = json.dumps(answer).encode()
    start = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *headers]
    await send({"type": "http.response.start", "status": status, "headers": start})
    await send({"type": "http.response.body", "body": body, "more_body": more})


def _header(scope: Scope, name: bytes) -> str:
    """A header's value; '' if it is missing.

    Raises:
        RequestError: 400 if it was sent more than once.
    """
    found = [value for key, value in scope["headers"] if key == name]
    if len(found) > 1:
        raise RequestError(400, f"{name.decode()} was sent {len(found)} times")
    return found[0].decode("latin-1").strip() if found else ""


def _listening(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family, kind, protocol)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise ConfigError(f"cannot listen on {host}:{port}: {error.strerror}") from error
    return listener
