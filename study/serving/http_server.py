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
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import uvicorn
import uvloop
from starlette.types import Receive, Scope, Send

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
from study.serving.batch_queue import Answer, BatchQueue
from study.serving.bounds import (
    SNIFFED,
    RequestError,
    Shape,
    byte_bound,
    content_kind,
    stated_kind,
    too_many_bytes,
)
from study.serving.door import Door
from study.serving.guard import Connections, guarded
from study.serving.listeners import listening
from study.serving.openapi import ROUTES, document
from study.serving.privacy_label import MISSING
from study.serving.readers import Readers
from study.serving.request_parsing import Images
from study.serving.server_metrics import CONTENT_TYPE, ServerMetrics

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
START_S = 120.0


class HttpServer:
    """The server: ``POST /release`` answers images with released vectors; ``ROUTES`` lists the others.

    Args:
        host, port: where to listen.
        image_shape: (C, H, W). n_classes: K. couples: see ``mipoison.protocols.Defense``.
        max_batches: batches under way at once: the number of replicas.
        resize: how pictures of another size are resized; None: they are refused.
        label: the privacy label, JSON; None: there is none.
        door: who may ask, and how much.

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
        resize: str | None = None,
        label: bytes | None = None,
        door: Door | None = None,
    ) -> None:
        self._shape, self._n_classes = image_shape, n_classes
        self._couples, self._max_batches = couples, max_batches
        self._resize, self._label, self._door = resize, label, door or Door()
        self._metrics = ServerMetrics(frozenset(ROUTES))
        self._openapi = json.dumps(
            document(
                image_shape, n_classes, resize=resize, keyed=self._door.keys is not None,
                budget=None if self._door.budget is None else self._door.budget.most,
            )
        ).encode()  # fmt: skip
        self._held = self._under_way = 0
        self._fault = ""
        self._stopping = False
        self._ready = threading.Event()
        self._socket = listening(host, port)
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
            TimeoutError: it did not start in time. RuntimeError: it failed.
        """
        self._readers = Readers(self._shape, self._resize)
        self._queue = BatchQueue(answer, max_batches=self._max_batches, couples=self._couples)
        self._ask = fault
        sys.setswitchinterval(0.001)  # the server's thread and Ray's threads alternate for every request
        gc.collect()
        gc.freeze()  # exempt loaded modules from garbage collection, which would pause all requests
        self._thread.start()
        if not self._ready.wait(START_S):
            raise TimeoutError(f"the HTTP server did not start within {START_S:.0f} s")
        if not self._server.started:
            raise RuntimeError("the HTTP server failed as it started")

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
        self._ready.set()
        if self._server.started and not self._stopping:
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
        began = time.monotonic()
        try:
            status = await self._respond(scope, receive, send)
            self._metrics.observe(scope["path"], status, time.monotonic() - began)
        except (Gone, asyncio.CancelledError):
            pass
        finally:
            self._under_way -= 1

    async def _respond(self, scope: Scope, receive: Receive, send: Send) -> int:
        """Answer a request; return the status."""
        whole = [False]  # whether the whole body was read
        try:
            reply = await self._answer(scope, receive, whole)
        except RequestError as error:
            await self._refuse(error, receive, send, whole[0])
            return error.status
        except (Gone, asyncio.CancelledError):
            raise
        except Exception:  # log it and keep serving
            log.exception("a request failed")
            await self._refuse(RequestError(500, "internal error"), receive, send, whole[0])
            return 500
        await send_reply(send, 200, reply)
        return 200

    async def _refuse(self, error: RequestError, receive: Receive, send: Send, whole: bool) -> None:
        if crowded := self._under_way > CALM:
            await asyncio.sleep(PAUSE_S)
        headers = [*error.headers, *([(b"retry-after", b"1")] if error.status == 503 else [])]
        answer = {"error": str(error), **error.more}
        if whole:
            await send_reply(send, error.status, json_reply(answer, headers))
            return
        await send_reply(
            send, error.status, json_reply(answer, [*headers, (b"connection", b"close")]), more=True
        )
        if not crowded:
            with contextlib.suppress(Gone, TimeoutError):
                async with asyncio.timeout(LINGER_S):
                    while (await part_of_body(receive))[1]:
                        pass
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _answer(self, scope: Scope, receive: Receive, whole: list[bool]) -> Reply:
        path = scope["path"]
        route = ROUTES.get(path)
        if route is None:
            raise RequestError(404, f"no such path; there are: {', '.join(ROUTES)}")
        if scope["method"] != route:
            error = RequestError(405, f"{path} takes {route}")
            error.headers = [(b"allow", route.encode())]
            raise error
        if path == "/release":
            return await self._release(scope, receive, whole)
        if path == "/health":
            return self._health()
        if path == "/openapi.json":
            return Reply(self._openapi)
        if path == "/label":
            if self._label is None:
                raise RequestError(404, MISSING)
            return Reply(self._label)
        if self._door.keys is not None:
            self._door.client(scope)  # with keys, /metrics asks for one, too
        return Reply(self._metrics.text(self._under_way), CONTENT_TYPE)

    async def _release(self, scope: Scope, receive: Receive, whole: list[bool]) -> Reply:
        client = self._door.client(scope)
        if self._door.budget is not None:  # with nothing left, nothing is parsed
            await asyncio.to_thread(self._door.check, client)
        content_type = header(scope, b"content-type")
        if (encoding := header(scope, b"content-encoding")) not in ("", "identity"):
            raise RequestError(415, f"content encoding {encoding[:40]!r}: send the body as it is")
        body = await self._body(content_type, header(scope, b"content-length"), receive)
        whole[0] = True
        return await while_there(receive, self._released(client, content_type, body))

    async def _released(self, client: str, content_type: str, body: bytes) -> Reply:
        images = await self._readers.read(content_type, body)
        n = len(images.x_NCHW)
        spent = None
        if self._door.budget is not None:  # counted before it is answered; a crash gives nothing away
            spent = await asyncio.to_thread(self._door.spend, client, n)
        try:
            async with asyncio.timeout(RELEASE_S):
                c_NK = await self._queue.release(images.x_NCHW, client)
        except Exception as error:
            if self._door.budget is not None:  # nothing was released
                await asyncio.to_thread(self._door.give_back, client, n, spent)
            if not isinstance(error, TimeoutError):
                raise
            raise RequestError(503, f"not answered within {RELEASE_S:.0f} s") from error
        self._metrics.released(n)
        answer = {"released": plain_rows(c_NK), "labels": c_NK.argmax(1).tolist()}
        headers = [] if spent is None else [(b"x-queries-remaining", str(spent.left).encode())]
        if any(images.sizes):
            answer["resized"] = self._said_of(images)
            headers.append((b"x-resized", str(self._resize).encode()))
        return json_reply(answer, headers)

    def _said_of(self, images: Images) -> dict[str, Any]:
        """Which pictures were resized, from which size, and how."""
        _, height, width = self._shape
        given = [None if size is None else list(size) for size in images.sizes]
        return {"interpolation": self._resize, "given": given, "to": [width, height]}

    def _health(self) -> Reply:
        if self._fault:
            raise RequestError(503, self._fault)
        return json_reply({"status": "ok", "image_shape": list(self._shape), "n_classes": self._n_classes})

    async def _body(self, content_type: str, length: str, receive: Receive) -> bytes:
        """Read a request's body within the deadline, at most as many bytes as what it is may have.

        What it is is known after its first bytes; before them its Content-Type bounds the stated length.
        """
        kind, known = stated_kind(content_type), False
        resized = self._resize is not None
        body, held = bytearray(), 0
        self._check_length(kind, length)
        try:
            async with asyncio.timeout(BODY_S):
                more = True
                while more:
                    part, more = await part_of_body(receive)
                    body += part
                    if not known and body and (len(body) >= SNIFFED or not more):
                        kind, known = content_kind(content_type, bytes(body[:SNIFFED])), True
                        self._check_length(kind, length)
                    if len(body) > byte_bound(kind, self._shape, resized=resized):
                        raise too_many_bytes(kind, self._shape, resized=resized)
                    self._held += (new := max(0, len(body) - SMALL - held))
                    held += new
                    if self._held > MAX_HELD:
                        raise RequestError(503, "too many large bodies at once; try again in a second")
        except TimeoutError as error:
            raise RequestError(408, f"the body did not arrive within {BODY_S:.0f} s") from error
        finally:
            self._held -= held
        return bytes(body)

    def _check_length(self, kind: str | None, length: str) -> None:
        """Raise RequestError if the stated length is over the bound."""
        resized = self._resize is not None
        bound = byte_bound(kind, self._shape, resized=resized)
        if length.isdecimal() and (len(length) > 19 or int(length) > bound):
            raise too_many_bytes(kind, self._shape, resized=resized)
