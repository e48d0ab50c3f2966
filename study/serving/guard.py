"""Connections of strangers: how many, how long, and how much before a request's headers are complete.

uvicorn bounds none of it: a client may send headers for ever, or nothing at all.
"""

from __future__ import annotations

import asyncio
import resource

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

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
TAKE_S = 10.0
TAKE_BYTES = 16 * 2**10
"""A client takes as many bytes of its answer in that time, or the rest."""
PROBE_S = 0.1
"""After how long who has ended its own side of the connection is looked for; every further time takes twice
as long."""
_SLICE = 16 * 2**10
"""Bytes that are looked at in one go."""


class Connections:
    """All open connections. At the bound, a new one takes the place of the one that has waited longest for
    its own client: so idle ones, however many, keep nobody out.

    Attributes:
        most: bound on their number; half of the files that this process may open, at most 1024.
        waiting: those that nothing happens on before their clients send or read something.
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
                return
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
    _taking: asyncio.TimerHandle | None = None
    _answering: RequestResponseCycle | None = None  # uvicorn's own cycle is the one that came last
    _head = 0
    _in_head = True
    _refused = _ended = _lost = False
    _chunks = _body = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._watch()
        self.guard.came(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        self._unwatch()
        self._take_in_peace()
        self.guard.went(self)
        for cycle in (self._answering, *(cycle for cycle, _ in self.pipeline)):
            if cycle is not None and not cycle.response_complete:  # uvicorn tells the last one alone
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
                    return  # CONNECT: what follows is nothing to us
                data = self._plain_head() + data[offered.args[0] :]
            except httptools.HttpParserError:
                self.send_400_response("Invalid HTTP request received.")
                return

    def _offers_upgrade(self) -> bool:
        """Whether this request may be answered in another protocol. It never is: its body is HTTP/1.1's."""
        return bool(self.parser.should_upgrade()) and self.parser.get_method() != b"CONNECT"

    def _plain_head(self) -> bytes:
        """The request's head without its offer, for a new parser: this one takes what follows for the other
        protocol."""
        lines = [
            b"%s %s HTTP/%s" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())
        ]
        lines += [b"%s: %s" % header for header in self.headers if header[0] != b"upgrade"]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's own
        return b"\r\n".join([*lines, b"", b""])

    def eof_received(self) -> bool:  # type: ignore[override]
        """Who has ended its own side may still read: a request that came as a whole is answered."""
        if not self._ended and not self._refused:
            cycle = self._answering
            if cycle is None or cycle.more_body or cycle.response_complete:
                return False  # closes
            self._ended = True
            self.loop.call_later(PROBE_S, self._probe, PROBE_S)
        return True

    def _probe(self, after: float) -> None:
        """Who went away looks the same until something is sent: an interim answer, that clients skip."""
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
            raise ValueError("too many headers")  # httptools turns it into an answer of 400

    def on_headers_complete(self) -> None:
        if self._offers_upgrade():
            return  # it comes again without the offer
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
            self.transport.close()  # nothing more will come
        if self._answering is None and not self.transport.is_closing():
            self._watch()  # not uvicorn's timer alone: any byte stops that one
        super().on_response_complete()
        self._settle()
        self._see_it_taken()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._settle()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._settle()

    def _settle(self) -> None:
        """Whose turn it is: ours while a whole request is without an answer, if its client takes answers."""
        cycle = self._answering
        ours = cycle is not None and not cycle.more_body and not cycle.response_complete
        if self._lost or (ours and not self.flow.write_paused and not self.transport.is_closing()):
            self.guard.waiting.pop(self, None)
        else:
            self.guard.waiting.setdefault(self)

    def _see_it_taken(self, before: int | None = None) -> None:
        """End a connection, closing or not, whose client does not read what was sent to it."""
        self._take_in_peace()
        left = 0 if self._lost else self.transport.get_write_buffer_size()
        if before is not None and left > max(0, before - TAKE_BYTES):
            self.transport.abort()
        elif left:
            self._taking = self.loop.call_later(TAKE_S, self._see_it_taken, left)

    def _take_in_peace(self) -> None:
        if self._taking is not None:
            self._taking.cancel()
            self._taking = None

    def send_400_response(self, msg: str) -> None:
        if self.cycle is not None and self.cycle.response_started and not self.cycle.response_complete:
            self.transport.close()  # not in the middle of an answer
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
        self._see_it_taken()

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
