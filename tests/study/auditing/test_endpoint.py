"""The client against a real server: retries, Retry-After, hard stops, bounds, the rate."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest
from audited_servers import Counted, pictures, plain, scores

from mipoison.config import ConfigError
from study.auditing import endpoint as module
from study.auditing.endpoint import MOST_BYTES, Endpoint, EndpointError, RefusedError
from study.auditing.template import Template

IMAGE = pictures(1, 0)[0]
BODY = '{"instances": [{"pixels": "@image"}]}'


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BACKOFF_S", 0.01)


def template(url: str, *headers: str) -> Template:
    return Template(url=url, body=BODY, layout="flat", scale="byte", headers=headers)


def test_an_answer_with_a_token() -> None:
    model = Counted()
    with plain(model) as url:
        ours = Endpoint(template(url, "X-Key: $KEY"), environment={"KEY": "s3"})
        reply = ours.ask(IMAGE)
        ours.close()
    assert reply.status == 200
    assert json.loads(reply.body)["predictions"][0]["scores"] == scores(IMAGE[..., 0])
    assert model.headers["X-Key"] == "s3"


def test_credentials_and_proxies_of_the_environment_are_not_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NETRC", f"{tmp_path}/netrc")
    with open(f"{tmp_path}/netrc", "w") as file:
        file.write("machine 127.0.0.1 login me password mine\n")
    model = Counted()
    with plain(model) as url:
        assert Endpoint(template(url)).ask(IMAGE).status == 200
    assert "Authorization" not in model.headers


def test_it_waits_for_as_long_as_the_endpoint_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(module.time, "sleep", slept.append)
    model = Counted(fault=lambda n: (429, {"Retry-After": "7"}, b"slow down") if n <= 2 else None)
    with plain(model) as url:
        assert Endpoint(template(url)).ask(IMAGE).status == 200
    assert slept == [7, 7]
    assert model.requests == 3
    assert list(model.asked.values()) == [1]


def test_it_does_not_wait_for_ever() -> None:
    model = Counted(fault=lambda n: (503, {"Retry-After": "5000"}, b""))
    with plain(model) as url, pytest.raises(EndpointError, match="come back in 5000 s"):
        Endpoint(template(url)).ask(IMAGE)
    assert model.requests == 1


def test_a_budget_that_is_spent_for_good_ends_at_once() -> None:
    spent = {"X-Queries-Remaining": "0"}
    model = Counted(fault=lambda n: (429, spent, b"0 of the budget of 700 left"))
    with plain(model) as url, pytest.raises(EndpointError, match="nothing is left of the endpoint") as raised:
        Endpoint(template(url)).ask(IMAGE)
    assert model.requests == 1
    assert not isinstance(raised.value, RefusedError)


@pytest.mark.parametrize("headers", [{"X-Queries-Remaining": "0", "Retry-After": "1"}, {}])
def test_a_budget_that_may_be_renewed_is_waited_for(headers: dict[str, str]) -> None:
    model = Counted(fault=lambda n: (429, headers, b"slow down") if n == 1 else None)
    with plain(model) as url:
        start = time.monotonic()
        assert Endpoint(template(url)).ask(IMAGE).status == 200
    assert time.monotonic() - start >= (1 if headers else 0)
    assert model.requests == 2


def test_waits_are_said_but_not_each_of_many_short_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(module, "BACKOFF_S", 0.5)
    monkeypatch.setattr(module.time, "sleep", slept.append)
    said: list[str] = []
    with plain(Counted(fault=lambda n: (503, {}, b""))) as url, pytest.raises(EndpointError):
        Endpoint(template(url), told=said.append).ask(IMAGE)
    assert slept == [1, 2, 4, 8, 16, 32, 60]
    assert said == [
        f"status 503: the next try is in {wait} s, {left} are left"
        for wait, left in ((1, 6), (8, 3), (16, 2), (32, 1), (60, 0))
    ]


@pytest.mark.parametrize("status", [500, 503, 0])
def test_it_tries_again_and_gives_up(status: int) -> None:
    model = Counted(fault=lambda n: (status, {}, b"<h1>broken</h1>"))
    with plain(model) as url, pytest.raises(EndpointError) as raised:
        Endpoint(template(url), retries=3).ask(IMAGE)
    assert model.requests == 4
    assert not isinstance(raised.value, RefusedError)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("status", [401, 403, 404, 422])
def test_it_stops_at_once_where_it_is_refused(status: int) -> None:
    model = Counted(fault=lambda n: (status, {}, b"no: wrong shape"))
    with plain(model) as url, pytest.raises(RefusedError, match=f"status {status}") as raised:
        Endpoint(template(url, "X-Key: $KEY"), environment={"KEY": "verysecret"}).ask(IMAGE)
    assert model.requests == 1
    assert "verysecret" not in str(raised.value)


def test_redirects_are_not_followed() -> None:
    other, model = Counted(), Counted()
    with plain(other) as elsewhere, plain(model) as url:
        model.fault = lambda n: (307, {"Location": elsewhere}, b"")
        with pytest.raises(RefusedError, match="redirect to http://127"):
            Endpoint(template(url)).ask(IMAGE)
    assert (model.requests, other.requests) == (1, 0)


def test_a_huge_answer_is_not_read() -> None:
    model = Counted(fault=lambda n: (200, {}, b"[" + b"1," * MOST_BYTES))
    with plain(model) as url, pytest.raises(RefusedError, match="more than 1048576 bytes"):
        Endpoint(template(url)).ask(IMAGE)


def test_nobody_listens() -> None:
    with plain(Counted()) as url:
        pass
    with pytest.raises(EndpointError, match="no answer"):
        Endpoint(template(url), retries=1).ask(IMAGE)


def test_the_rate_is_kept() -> None:
    waited: list[float] = []
    now = [0.0]

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        now[0] += seconds

    with plain(Counted()) as url:
        ours = Endpoint(template(url), rate=4.0, sleep=sleep, clock=lambda: now[0])
        for _ in range(5):
            ours.ask(IMAGE)
    assert np.allclose(waited, [0.25] * 4)
    with pytest.raises(ConfigError, match="rate"):
        Endpoint(template(url), rate=-1)
