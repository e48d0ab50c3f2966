"""The server's settings besides unit and victim: keys, budgets, proxies, resizing; mistakes are one line."""

from __future__ import annotations

import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mipoison.config import ConfigError
from mipoison.victims.preprocess import Preprocessing
from study import serve


def arguments(**given: Any) -> serve.Arguments:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    return serve.Arguments(unit=given.pop("unit", "unit"), victim="net:make", port=port, **given)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"queries_per_key": 0}, "queries_per_key = 0"),
        ({"queries_per_key": 5, "queries_renewed_s": 0.0}, "queries_renewed_s = 0.0"),
        ({"queries_renewed_s": 60.0}, "belong to queries_per_key"),
        ({"query_store": Path("q")}, "belong to queries_per_key"),
        ({"queries_per_key": 5, "unit": "s3://bucket/unit"}, "query_store: give a file of this machine"),
    ],
)
def test_settings_out_of_bounds(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        arguments(**given).check()
    assert "\n" not in str(caught.value)


def test_right_settings(tmp_path: Path) -> None:
    arguments(queries_per_key=5, queries_renewed_s=60.0, query_store=tmp_path / "q").check()
    arguments(unit="s3://bucket/unit", queries_per_key=5, query_store=tmp_path / "q").check()


def test_the_door(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MIPOISON_API_KEYS", raising=False)
    door = serve._door(arguments(trusted_proxy=("10.0.0.0/8", "127.0.0.1")))
    assert (door.keys, door.budget, len(door.proxies)) == (None, None, 2)
    assert serve._said_of(door) == "no API keys; queries are not counted"
    door = serve._door(arguments(queries_per_key=7, query_store=tmp_path / "q", queries_renewed_s=60.0))
    assert serve._said_of(door) == (
        f"no API keys; 7 queries for each address, renewed after 60 s, counted in {tmp_path / 'q'}"
    )
    with pytest.raises(ConfigError, match="trusted_proxy"):
        serve._door(arguments(trusted_proxy=("proxy",)))


@pytest.mark.parametrize("text", ["", "secret-key", "anna:hunter2"])
def test_keys_of_another_form_never_open_the_door(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIPOISON_API_KEYS", text)
    with pytest.raises(ConfigError, match="MIPOISON_API_KEYS") as caught:
        serve._door(arguments())
    assert "hunter2" not in str(caught.value)
    assert "secret-key" not in str(caught.value)


@pytest.mark.parametrize("stated", [None, "none", "bicubic", "box"])
def test_pictures_are_resized_only_where_the_server_was_told_how(
    stated: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Transforms of the classifier say nothing of how pictures became images of the unit's size."""
    given: dict[str, Any] = {}
    monkeypatch.setattr("study.serving.http_server.HttpServer", lambda *_, **terms: given.update(terms))
    kept = Preprocessing(resize=(256,), interpolation="bilinear")
    protected: Any = SimpleNamespace(
        preprocessing=kept, image_shape=(3, 224, 224), n_classes=2, couples=False
    )
    serve._http_server(arguments(resize=stated), protected, serve._door(arguments()), None)
    assert given["resize"] == (None if stated in (None, "none") else stated)
