"""Connections of strangers: how many, how long, and how much before a request's headers are complete.

uvicorn bounds none of it: a client may send headers for ever, or nothing at all.
"""

from __future__ import annotations

import asyncio
import resource

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_S = 10.0
"""How long a request's line and headers may take, and how long a connection may be silent."""
MAX_HEAD_BYTES = 32 * 2**10
MAX_HEADERS = 100
MAX_PIPELINED = 4
"""Requests that a client may send before the first is answered."""
FREE_CHUNKS = 64
CHUNK_BYTES = 256
"""Bytes that a body's chunks have on average, but for the first ``FREE_CHUNKS``: each costs a call."""
REFUSAL_S = 0.25
"""After how long what is no HTTP is answered: who sends nothing else must not crowd out the others."""
_SLICE = 16 * 2**10
"""Bytes that are looked at in one go."""


class Connections:
    """All open connections. At the bound, a new one takes the place of the one that has waited longest for
    its own client: so idle ones, however many, keep nobody out.

    Attributes:
        most: bound on their number; half of the files that this process may open, at most 1024.
    """

    def __init__(self) -> None:
        self.most = min(1024, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2)
        self.waiting: dict[GuardedProtocol, None] = {}  # ordered: who has waited longest comes first
        self.open = 0

    def came(self, protocol: GuardedProtocol) -> None:
        """A new connection."""
        self.open += 1
        if self.open > self.most:
            if self.waiting:
                oldest = next(iter(self.waiting))
                self.waiting.pop(oldest)
                oldest.transport.abort()
            else:  # all are at work for their clients
                protocol.transport.abort()
        self.waiting[protocol] = None

    def went(self, protocol: GuardedProtocol) -> None:
        """A connection ended."""
        self.open -= 1
        self.waiting.pop(protocol, None)


def guarded(connections: Connections) -> type[GuardedProtocol]:
    """The protocol of one server, for uvicorn's ``http`` setting."""
    return type("Guarded", (GuardedProtocol,), {"guard": connections})


class GuardedProtocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 with bounds on what comes before a request is handed on."""

    guard: Connections
    _timer: asyncio.TimerHandle | None = None
    _head = 0
    _in_head = True
    _refused = False
    _chunks = _body = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._watch()
        self.guard.came(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._unwatch()
        self.guard.went(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        for start in range(0, len(data), _SLICE):
            part = data[start : start + _SLICE]
            if self._in_head:
                self._head += len(part)
                if self._head > MAX_HEAD_BYTES:
                    self._refuse()
            if self._refused or self.transport.is_closing():
                return
            super().data_received(part)

    def on_message_begin(self) -> None:
        self._in_head, self._head, self._chunks, self._body = True, 0, 0, 0
        self._watch()
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        if len(self.headers) > MAX_HEADERS:
            raise ValueError("too many headers")  # httptools turns it into an answer of 400

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._unwatch()
        if len(self.pipeline) >= MAX_PIPELINED:
            raise ValueError("too many requests at once")
        super().on_headers_complete()

    def on_chunk_header(self) -> None:
        self._chunks += 1
        if self._chunks > FREE_CHUNKS + self._body // CHUNK_BYTES:
            raise ValueError("too many chunks")

    def on_body(self, body: bytes) -> None:
        self._body += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self.guard.waiting.pop(self, None)  # from here on it waits for us
        super().on_message_complete()

    def on_response_complete(self) -> None:
        if not self.pipeline and not self.transport.is_closing():
            self.guard.waiting[self] = None
            self._watch()  # not uvicorn's timer alone: any byte stops that one
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        if self.cycle is not None and self.cycle.response_started and not self.cycle.response_complete:
            self.transport.close()  # not in the middle of an answer
        elif not self._refused:
            self._refused = True
            self.transport.pause_reading()
            self.loop.call_later(REFUSAL_S, self._send_refusal, msg)

    def _send_refusal(self, msg: str) -> None:
        if not self.transport.is_closing():
            super().send_400_response(msg)

    def _refuse(self) -> None:
        self.send_400_response(f"more than {MAX_HEAD_BYTES} bytes of headers")

    def _watch(self) -> None:
        self._unwatch()
        self._timer = self.loop.call_later(HEAD_S, self._expire)

    def _unwatch(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _expire(self) -> None:
        if not self.transport.is_closing():
            self.transport.abort()
