"""Who a client is: a key, or an address, of which only a trusted proxy may tell another."""

from __future__ import annotations

import hashlib
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from mipoison.config import ConfigError
from study.serving.api_keys import ApiKeys
from study.serving.bounds import RequestError
from study.serving.budget import QueryBudget
from study.serving.door import Door, networks


def scope(peer: str | None, **headers: str) -> dict[str, Any]:
    sent = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return {"client": None if peer is None else (peer, 5), "headers": sent}


KEYED = Door(ApiKeys({"anna": hashlib.sha256(b"k1").hexdigest()}))


def test_a_key_in_either_header() -> None:
    assert KEYED.client(scope("1.2.3.4", authorization="Bearer k1")) == "key anna"
    assert KEYED.client(scope("1.2.3.4", authorization="bearer  k1")) == "key anna"
    assert KEYED.client(scope("1.2.3.4", x_api_key="k1")) == "key anna"


@pytest.mark.parametrize(
    "headers", [{}, {"authorization": "Bearer k2"}, {"authorization": "Basic k1"}, {"x_api_key": ""}]
)
def test_without_a_right_key(headers: dict[str, str]) -> None:
    with pytest.raises(RequestError) as caught:
        KEYED.client(scope("1.2.3.4", **headers))
    assert caught.value.status == 401
    assert "X-API-Key" in str(caught.value)
    assert dict(caught.value.headers)[b"www-authenticate"].startswith(b"Bearer")
    assert "k2" not in str(caught.value)


def test_addresses() -> None:
    door = Door()
    assert door.client(scope("1.2.3.4", x_forwarded_for="9.9.9.9")) == "from 1.2.3.4"  # not believed
    assert door.client(scope("::ffff:1.2.3.4")) == "from 1.2.3.4"
    assert door.client(scope("2001:db8:1:2:3::9")) == "from 2001:db8:1:2::/64"
    assert door.client(scope(None)) == "from unknown"


def test_only_trusted_proxies_tell_an_address() -> None:
    door = Door(proxies=networks(["10.0.0.0/8", "::1"]))
    assert door.client(scope("10.0.0.1", x_forwarded_for="9.9.9.9")) == "from 9.9.9.9"
    assert door.client(scope("::1", x_forwarded_for="9.9.9.9")) == "from 9.9.9.9"
    # What the client itself wrote stands on the left, and is not reached.
    assert door.client(scope("10.0.0.1", x_forwarded_for="8.8.8.8, 9.9.9.9")) == "from 9.9.9.9"
    assert door.client(scope("10.0.0.1", x_forwarded_for="8.8.8.8, 9.9.9.9, 10.1.1.1")) == "from 9.9.9.9"
    assert door.client(scope("10.0.0.1", x_forwarded_for="nonsense")) == "from 10.0.0.1"
    assert door.client(scope("10.0.0.1")) == "from 10.0.0.1"
    assert door.client(scope("11.0.0.1", x_forwarded_for="9.9.9.9")) == "from 11.0.0.1"
    # A port belongs to no address, and further lines of the header continue the list.
    assert door.client(scope("10.0.0.1", x_forwarded_for="9.9.9.9:443")) == "from 9.9.9.9"
    assert door.client(scope("10.0.0.1", x_forwarded_for="[2001:db8::9]:443")) == "from 2001:db8::/64"
    assert door.client(scope("10.0.0.1", x_forwarded_for="2001:db8::9")) == "from 2001:db8::/64"
    two = scope("10.0.0.1", x_forwarded_for="8.8.8.8")
    two["headers"].append((b"x-forwarded-for", b"9.9.9.9, 10.1.1.1"))
    assert door.client(two) == "from 9.9.9.9"
    with pytest.raises(ConfigError, match="trusted_proxy"):
        networks(["proxy"])


def test_over_the_budget(tmp_path: Path) -> None:
    door = Door(budget=QueryBudget(tmp_path / "q", 3))
    spent = door.spend("a", 2)
    assert spent is not None
    assert spent.left == 1
    with pytest.raises(RequestError, match="2 queries asked for, 1 of the budget of 3 left") as caught:
        door.spend("a", 2)
    assert caught.value.status == 429
    assert caught.value.more == {"budget": 3, "remaining": 1}
    assert dict(caught.value.headers) == {b"x-queries-remaining": b"1"}
    door.check("a")
    door.give_back("a", 2, spent)
    again = door.spend("a", 3)
    assert again is not None
    assert again.left == 0
    with pytest.raises(RequestError, match="0 of the budget of 3 left"):
        door.check("a")
    assert Door().spend("a", 10**9) is None


def test_retry_after_where_waiting_helps(tmp_path: Path) -> None:
    door = Door(budget=QueryBudget(tmp_path / "q", 3, renewed_s=60))
    door.spend("a", 3)
    with pytest.raises(RequestError) as caught:
        door.spend("a", 1)
    assert 1 <= int(dict(caught.value.headers)[b"retry-after"]) <= 60
    with pytest.raises(RequestError) as caught:
        door.spend("a", 4)  # more than it will ever have
    assert b"retry-after" not in dict(caught.value.headers)


def test_what_cannot_be_counted_is_not_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    budget = QueryBudget(tmp_path / "q", 3)
    budget._file.execute("DROP TABLE queries")
    with pytest.raises(RequestError, match="cannot be counted") as caught:
        Door(budget=budget).spend("a", 1)
    assert caught.value.status == 503
    assert isinstance(caught.value.__cause__, sqlite3.Error)
