"""The client of the audited endpoint: one connection, a rate limit, retries that back off, hard stops.

Nothing is sent to any other host: redirects are not followed, and neither proxies nor stored credentials of
the environment are used.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import requests
from requests.adapters import HTTPAdapter
from urllib3.response import BaseHTTPResponse
from urllib3.util import Retry

from mipoison.config import ConfigError
from study.auditing.template import Template, without_secrets
from study.runtime.plain import visible_line

MOST_BYTES = 2**20
"""Largest body of an answer that is read."""
PART = 2**16
RETRIED = (408, 429, 500, 502, 503, 504)
"""Statuses after which the same question is asked again, later."""
BACKOFF_S, LONGEST_BACKOFF_S = 0.5, 60.0
LONGEST_RETRY_AFTER_S = 900.0
"""An endpoint that asks for more patience ends the audit, which can be resumed."""
LEFT, RENEWED = "X-Queries-Remaining", "Retry-After"
"""Headers of a 429: how much of a budget is left, and when there is more of it."""
SAID_S = 5.0
"""Waits as long as this are always said, shorter ones if none was said for as long."""
SHOWN = 160
"""Characters of an answer in an error message."""


class EndpointError(Exception):
    """The endpoint did not answer, or refused; the audit ends and can be resumed. One line."""


class RefusedError(EndpointError):
    """The endpoint refuses this request for good: credentials, address or template must be changed."""


@dataclass(frozen=True)
class Reply:
    """An answer as it came. ``seconds``: how long it took, waiting for retries included."""

    status: int
    body: bytes
    seconds: float


class _Patience(Retry):
    """urllib3's retries, which say how long they wait, with a bound on what Retry-After may ask for.

    A 429 of an endpoint of whose budget nothing is left, and which names no time of renewal, ends them.
    """

    waits: Callable[[str, float], None]

    def new(self, **kw: Any) -> _Patience:
        """As urllib3 makes the retries that are left: with the same way to say it."""
        made = super().new(**kw)
        made.waits = self.waits
        return made

    def increment(
        self,
        method: str | None = None,
        url: str | None = None,
        response: BaseHTTPResponse | None = None,
        *args: Any,
        **kw: Any,
    ) -> _Patience:
        if response is not None and response.status == 429 and _nothing_left(response):
            raise EndpointError(
                f"status 429, {LEFT}: 0: nothing is left of the endpoint's budget of questions, and no "
                "Retry-After says that it is renewed: ask for more of it, then go on"
            )
        return super().increment(method, url, response, *args, **kw)

    def sleep(self, response: BaseHTTPResponse | None = None) -> None:
        """Wait for as long as Retry-After says, else for the doubled time; and say so."""
        seconds = (self.get_retry_after(response) if response else None) or self.get_backoff_time()
        if seconds > 0:
            why = "no answer" if response is None else f"status {response.status}"
            self.waits(f"{why}: the next try is in {seconds:.0f} s, {self.total} are left", seconds)
            time.sleep(seconds)

    def get_retry_after(self, response: BaseHTTPResponse) -> float | None:
        after = super().get_retry_after(response)
        if after is not None and after > LONGEST_RETRY_AFTER_S:
            raise EndpointError(
                f"the endpoint asks to come back in {after:.0f} s; run the same command again then"
            )
        return after


def _nothing_left(response: BaseHTTPResponse) -> bool:
    """Whether a budget is spent for good, as far as the answer tells."""
    return response.headers.get(RENEWED) is None and response.headers.get(LEFT, "").strip() == "0"


class Endpoint:
    """Asks one image at a time.

    Args:
        template: the request. rate: most questions a second; 0: no limit. retries: of a question that the
            endpoint could not answer for now. timeout_s: for connecting, and for the whole answer.
        environment: where tokens are read from; default: the process's.
        told: called with a line before a wait for the next try.
        sleep, clock: for tests.

    Raises:
        ConfigError: a token's variable is not set.
    """

    def __init__(
        self,
        template: Template,
        *,
        rate: float = 0.0,
        retries: int = 8,
        timeout_s: float = 60.0,
        environment: Mapping[str, str] | None = None,
        told: Callable[[str], None] = lambda text: None,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not rate >= 0:
            raise ConfigError(f"rate = {rate}: at least 0 questions a second")
        self._template, self._timeout_s = template, timeout_s
        self._between_s = 1 / rate if rate else 0.0
        self._sleep, self._clock, self._next = sleep, clock, -float("inf")
        self._told, self._said = told, -float("inf")
        self._session = requests.Session()
        self._session.trust_env = False  # no proxy, no .netrc
        self._session.headers["User-Agent"] = "mipoison-audit"
        self._session.headers.update(
            template.sent_headers(os.environ if environment is None else environment)
        )
        patience = _Patience(
            total=retries,
            redirect=0,
            allowed_methods=None,
            status_forcelist=RETRIED,
            backoff_factor=BACKOFF_S,
            backoff_max=LONGEST_BACKOFF_S,
            raise_on_status=False,
        )
        patience.waits = self._say
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, HTTPAdapter(max_retries=patience, pool_maxsize=1))

    def close(self) -> None:
        """Close the connection."""
        self._session.close()

    def ask(self, pixels_HWC: np.ndarray) -> Reply:
        """The endpoint's answer to an image, uint8.

        Raises:
            RefusedError: 401, 403, another status of the kind 4xx, or a redirect.
            EndpointError: no answer after all retries, or one that is too large.
        """
        kind, body = self._template.encode(pixels_HWC)
        self._wait()
        start = self._clock()
        try:
            with self._session.post(
                self._template.url,
                data=body,
                headers={"Content-Type": kind, "Accept": "application/json"},
                timeout=self._timeout_s,
                allow_redirects=False,
                stream=True,
            ) as response:
                found = self._read(response)
        except requests.RequestException as error:
            raise EndpointError(f"no answer: {self._reason(error)}") from None  # its text may have the query
        _check_status(response, self._without_query(found))
        return Reply(response.status_code, found, self._clock() - start)

    def _say(self, text: str, seconds: float) -> None:
        """Say that a wait begins, unless it is short and one was said just now."""
        now = self._clock()
        if seconds >= SAID_S or now - self._said >= SAID_S:
            self._said = now
            self._told(text)

    def _reason(self, error: BaseException) -> str:
        """The innermost cause in one line, without the request's headers and the URL's query."""
        inner = getattr(error.args[0] if error.args else error, "reason", None) or error
        return visible_line(self._without_query(str(inner).encode()).decode("utf-8", "replace"), 300)

    def _without_query(self, text: bytes) -> bytes:
        query = urlsplit(self._template.url).query.encode()
        return text.replace(query, b"...") if query else text

    def _wait(self) -> None:
        now = self._clock()
        if now < self._next:
            self._sleep(self._next - now)
            now = self._next
        self._next = now + self._between_s

    def _read(self, response: requests.Response) -> bytes:
        found, until = bytearray(), self._clock() + self._timeout_s
        for part in response.iter_content(PART):
            found += part
            if len(found) > MOST_BYTES:
                raise RefusedError(
                    f"an answer of more than {MOST_BYTES} bytes, beginning {beginning(bytes(found))}"
                )
            if self._clock() > until:
                raise EndpointError(f"an answer took more than {self._timeout_s:.0f} s")
        return bytes(found)


def _check_status(response: requests.Response, body: bytes) -> None:
    status = response.status_code
    if 200 <= status < 300:
        return
    if 300 <= status < 400:
        where = visible_line(without_secrets(response.headers.get("Location", "nowhere")), SHOWN)
        raise RefusedError(f"status {status}, a redirect to {where}; it is not followed: give that URL")
    if status in (401, 403):
        raise RefusedError(f"status {status}: the endpoint refuses the credentials; check --header")
    text = f"status {status}: {beginning(body)}"
    if status in RETRIED or status >= 500:
        raise EndpointError(f"{text}, after all retries")
    raise RefusedError(f"{text}; check --body, --layout, --scale and the URL")


def beginning(body: bytes) -> str:
    """The beginning of an answer, for a message in one line."""
    return repr(visible_line(body[: 4 * SHOWN].decode("utf-8", "replace"), SHOWN))
