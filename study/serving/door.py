"""Who asks, and how much they may still ask: API keys, addresses behind trusted proxies, the query budget.

A client is a key's name, or without keys an address; of IPv6 the /64, as one host has all of it.
"""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import re
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from starlette.types import Scope

from mipoison.config import ConfigError
from study.serving.api_keys import ApiKeys
from study.serving.asgi import header
from study.serving.bounds import RequestError
from study.serving.budget import OverBudget, QueryBudget, Spent

log = logging.getLogger(__name__)

_FORWARDED = b"x-forwarded-for"
_WITH_PORT = re.compile(r"([0-9.]+):[0-9]{1,5}|\[([0-9A-Fa-f:.]+)\](?::[0-9]{1,5})?")

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def networks(texts: Sequence[str]) -> tuple[Network, ...]:
    """Addresses and networks of trusted proxies.

    Raises:
        ConfigError: a text is neither.
    """
    try:
        return tuple(ipaddress.ip_network(text) for text in texts)
    except ValueError as error:
        raise ConfigError(f"trusted_proxy: {error}: give addresses or networks (10.0.0.0/8)") from error


@dataclass(frozen=True)
class Door:
    """What a request has to pass before its images reach the classifier.

    Attributes:
        keys: None: everybody may ask.
        budget: None: queries are not counted.
        proxies: peers whose ``X-Forwarded-For`` is believed; nobody else's is.
    """

    keys: ApiKeys | None = None
    budget: QueryBudget | None = None
    proxies: tuple[Network, ...] = field(default=())

    def client(self, scope: Scope) -> str:
        """The client's name: ``key NAME``, or ``from ADDRESS``.

        Raises:
            RequestError: 401 without a right key.
        """
        if self.keys is None:
            return f"from {self._address(scope)}"
        name = self.keys.name_of(_key(scope))
        if name is None:
            error = RequestError(
                401, "no valid API key: send it as 'Authorization: Bearer KEY' or as 'X-API-Key: KEY'"
            )
            error.headers = [(b"www-authenticate", b'Bearer realm="mipoison"')]
            raise error
        return f"key {name}"

    def check(self, client: str) -> None:
        """Count nothing; refuse a client that has no query left, before its body is parsed.

        Raises:
            RequestError: 429 with nothing left, 503 if that cannot be known.
        """
        if self.budget is not None:
            with self._refusing(1, self.budget.most):
                self.budget.check(client)

    def spend(self, client: str, n: int) -> Spent | None:
        """Count n queries; return how many the client has left, None if they are not counted.

        Raises:
            RequestError: 429 over the budget, 503 if they cannot be counted.
        """
        if self.budget is None:
            return None
        with self._refusing(n, self.budget.most):
            return self.budget.spend(client, n)

    @staticmethod
    @contextlib.contextmanager
    def _refusing(n: int, most: int) -> Iterator[None]:
        """Turn what the budget raises into the error that is answered."""
        try:
            yield
        except OverBudget as over:
            error = RequestError(429, f"{n} queries asked for, {over.left} of the budget of {most} left")
            error.more = {"budget": most, "remaining": over.left}
            error.headers = [(b"x-queries-remaining", str(over.left).encode())]
            if over.again_s is not None and n <= most:
                error.headers.append((b"retry-after", str(over.again_s).encode()))
            raise error from None
        except sqlite3.Error as error:
            log.exception("queries could not be counted")
            raise RequestError(503, "queries cannot be counted at the moment; none was answered") from error

    def give_back(self, client: str, n: int, spent: Spent | None) -> None:
        """Undo :meth:`spend`, which returned ``spent``, where nothing was released."""
        if self.budget is not None and spent is not None:
            try:
                self.budget.give_back(client, n, spent.since)
            except sqlite3.Error:
                log.exception("queries stay counted that were not answered")

    def _address(self, scope: Scope) -> str:
        peer = scope.get("client")
        found = _ip(peer[0]) if peer else None
        if found is not None and self._trusted(found):
            lines = [value.decode("latin-1") for name, value in scope["headers"] if name == _FORWARDED]
            forwarded = ",".join(lines).split(",")  # several lines are one list (RFC 9110, 5.3)
            for text in reversed(forwarded):  # from the nearest proxy on, as long as they are trusted
                further = _ip(_without_port(text.strip()))
                if further is None:
                    break
                found = further
                if not self._trusted(further):
                    break
        if found is None:
            return "unknown"
        if isinstance(found, ipaddress.IPv6Address):
            return str(ipaddress.ip_network((int(found) >> 64 << 64, 64)))
        return str(found)

    def _trusted(self, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
        return any(address in network for network in self.proxies)


def _ip(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return None
    return getattr(found, "ipv4_mapped", None) or found


def _without_port(text: str) -> str:
    """The address of ``1.2.3.4:443`` or ``[2001:db8::1]:443``; any other text as it is."""
    found = _WITH_PORT.fullmatch(text)
    return (found[1] or found[2]) if found else text


def _key(scope: Scope) -> str:
    """The key in ``Authorization: Bearer`` or ``X-API-Key``; '' if there is none."""
    scheme, _, key = header(scope, b"authorization").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else header(scope, b"x-api-key")
