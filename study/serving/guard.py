"""Bounds untrusted connections: their number, their idle time, and the size of a request's headers.

uvicorn bounds none of these: a client may send headers for ever, or nothing at all.
"""

from __future__ import annotations

import asyncio
import resource

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

HEAD_S = 10.0
"""How long a request's headers may take to arrive, and how long a connection may be idle."""
MAX_HEAD_BYTES = 32 * 2**10
MAX_HEADERS = 100
MAX_PIPELINED = 4
"""Requests that a client may send before the first is answered."""
FREE_CHUNKS = 64
CHUNK_BYTES = 256
"""Least mean size of a body's chunks after the first ``FREE_CHUNKS``: each chunk costs a call."""
REFUSAL_S = 0.25
"""Delay before data that are not HTTP are answered, so that a flood of them leaves time for others."""
TAKE_S = 10.0
TAKE_BYTES = 16 * 2**10
"""Within ``TAKE_S`` a client must read this many bytes of its answer, or the rest."""
PROBE_S = 0.1
"""Delay before the first check whether a client that closed its sending side is still there; doubled each
time."""
_SLICE = 16 * 2**10
"""Bytes that are parsed at a time."""


class Connections:
    """All open connections.

    When there are too many, a new connection replaces the one that has been idle for longest, so that idle
    connections cannot keep other clients out.

    Attributes:
        most: bound of their number: half of the files that this process may open, at most 1024.
        waiting: idle connections, on which nothing happens before the client sends or reads something.
    """

    def __init__(self) -> None:
        self.most = min(1024, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2)
        self.waiting: dict[GuardedProtocol, None] = {}  # ordered: longest idle first
        self.open = 0

    def opened(self, protocol: GuardedProtocol) -> None:
        """Register a new connection."""
        self.open += 1
        if self.open > self.most:
            if self.waiting:
                oldest = next(iter(self.waiting))
                self.waiting.pop(oldest)
                oldest.transport.abort()
            else:  # all others are being served
                protocol.transport.abort()
                return
        self.waiting[protocol] = None

    def closed(self, protocol: GuardedProtocol) -> None:
        """Remove a connection that ended."""
        self.open -= 1
        self.waiting.pop(protocol, None)


def guarded(connections: Connections) -> type[GuardedProtocol]:
    """A protocol class bound to these connections, for uvicorn's ``http`` setting."""
    return type("Guarded", (GuardedProtocol,), {"guard": connections})


class GuardedProtocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 protocol with bounds on all that happens before and after the application runs."""

    guard: Connections
    _timer: asyncio.TimerHandle | None = None
    _taking: asyncio.TimerHandle | None = None
    _answering: RequestResponseCycle | None = None  # uvicorn keeps only the latest request's cycle
    _head = 0
    _in_head = True
    _refused = _ended = _lost = False
    _chunks = _body = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._watch()
        self.guard.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        self._unwatch()
        self._stop_watching_reads()
        self.guard.closed(self)
        for cycle in (self._answering, *(cycle for cycle, _ in self.pipeline)):
            if cycle is not None and not cycle.response_complete:  # uvicorn notifies only the latest
                cycle.disconnected = True
                cycle.message_event.set()
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
            self._feed(part)

    def _feed(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        while data:
            try:
                self.parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as offered:
                if not self._offers_upgrade():
                    return  # CONNECT: ignore what follows
                data = self._plain_head() + data[offered.args[0] :]
            except httptools.HttpParserError:
                self.send_400_response("Invalid HTTP request received.")
                return

    def _offers_upgrade(self) -> bool:
        """Whether the request offers to switch protocols. The offer is ignored: its body is HTTP/1.1."""
        return bool(self.parser.should_upgrade()) and self.parser.get_method() != b"CONNECT"

    def _plain_head(self) -> bytes:
        """The request's head without the upgrade header, for a new parser.

        The old parser treats all that follows as the other protocol.
        """
        lines = [
            b"%s %s HTTP/%s" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())
        ]
        lines += [b"%s: %s" % header for header in self.headers if header[0] != b"upgrade"]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's own
        return b"\r\n".join([*lines, b"", b""])

    def eof_received(self) -> bool:  # type: ignore[override]
        """A client that closed its sending side may still read: a complete request is answered."""
        if not self._ended and not self._refused:
            cycle = self._answering
            if cycle is None or cycle.more_body or cycle.response_complete:
                return False  # uvicorn closes the connection
            self._ended = True
            self.loop.call_later(PROBE_S, self._probe, PROBE_S)
        return True

    def _probe(self, after: float) -> None:
        """Send an interim response, which clients skip, to detect whether the client has disconnected."""
        cycle = self._answering
        if self._lost or self.transport.is_closing() or cycle is None:
            return
        if not cycle.response_started and cycle.scope["http_version"] == "1.1":
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self.loop.call_later(2 * after, self._probe, 2 * after)

    def on_message_begin(self) -> None:
        self._in_head, self._head, self._chunks, self._body = True, 0, 0, 0
        self._watch()
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        if len(self.headers) > MAX_HEADERS:
            raise ValueError("too many headers")  # httptools turns it into status 400

    def on_headers_complete(self) -> None:
        if self._offers_upgrade():
            return  # it is parsed again without the offer
        self._in_head = False
        self._unwatch()
        if len(self.pipeline) >= MAX_PIPELINED:
            raise ValueError("too many requests at once")
        super().on_headers_complete()
        if not self.pipeline:
            self._answering = self.cycle

    def on_chunk_header(self) -> None:
        self._chunks += 1
        if self._chunks > FREE_CHUNKS + self._body // CHUNK_BYTES:
            raise ValueError("too many chunks")

    def on_body(self, body: bytes) -> None:
        self._body += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self._offers_upgrade():
            return
        super().on_message_complete()
        self._settle()

    def on_response_complete(self) -> None:
        self._answering = self.pipeline[-1][0] if self.pipeline else None
        if self._ended and (self._answering is None or self._answering.more_body):
            self.transport.close()  # no further request will arrive
        if self._answering is None and not self.transport.is_closing():
            self._watch()  # uvicorn's own timer is stopped by any byte
        super().on_response_complete()
        self._settle()
        self._watch_reads()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._settle()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._settle()

    def _settle(self) -> None:
        """Update whether the connection is idle: it is not while a complete request is being answered."""
        cycle = self._answering
        ours = cycle is not None and not cycle.more_body and not cycle.response_complete
        if self._lost or (ours and not self.flow.write_paused and not self.transport.is_closing()):
            self.guard.waiting.pop(self, None)
        else:
            self.guard.waiting.setdefault(self)

    def _watch_reads(self, before: int | None = None) -> None:
        """Abort a connection, closing or not, whose client does not read its answer fast enough."""
        self._stop_watching_reads()
        left = 0 if self._lost else self.transport.get_write_buffer_size()
        if before is not None and left > max(0, before - TAKE_BYTES):
            self.transport.abort()
        elif left:
            self._taking = self.loop.call_later(TAKE_S, self._watch_reads, left)

    def _stop_watching_reads(self) -> None:
        if self._taking is not None:
            self._taking.cancel()
            self._taking = None

    def send_400_response(self, msg: str) -> None:
        if self.cycle is not None and self.cycle.response_started and not self.cycle.response_complete:
            self.transport.close()  # never inside another answer
            self._let_go()
        elif not self._refused:
            self._refused = True
            self.transport.pause_reading()
            self.loop.call_later(REFUSAL_S, self._send_refusal, msg)

    def _send_refusal(self, msg: str) -> None:
        if not self.transport.is_closing():
            super().send_400_response(msg)
            self._let_go()

    def _let_go(self) -> None:
        self._settle()
        self._watch_reads()

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
